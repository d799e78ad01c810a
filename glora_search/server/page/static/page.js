// Keeps a page up to date: fetches the part that changes, and replaces the sections that differ.
"use strict";

const live = document.getElementById("live");
let busy = false;
let again = false;
let lastState = stateNow();

function stateNow() {
  const element = document.getElementById("state");
  return element ? element.dataset.state : "";
}

function sections(root) {
  return [...root.querySelectorAll("section[id]")];
}

// What a reader has opened, ticked, typed, focused and scrolled within `old`, to be put back after it
// was replaced.
function keep(old) {
  const open = [...old.querySelectorAll("details[id]")].map((d) => [d.id, d.open]);
  const checked = [...old.querySelectorAll("input:checked")].map((i) => i.value);
  const typed = [...old.querySelectorAll("textarea[id], input[type=number][id]")].map((i) => [i.id, i.value]);
  const focus = old.contains(document.activeElement) ? document.activeElement : null;
  const scrolled = [...old.querySelectorAll(".scroll, pre")].map((e) => e.scrollLeft);
  return (fresh) => {
    for (const [id, value] of open) {
      const details = document.getElementById(id);
      if (details) details.open = value;
    }
    for (const [id, value] of typed) {
      const field = document.getElementById(id);
      if (field) field.value = value;
    }
    for (const input of fresh.querySelectorAll("input[type=checkbox]")) {
      input.checked = checked.includes(input.value);
    }
    fresh.querySelectorAll(".scroll, pre").forEach((e, k) => { e.scrollLeft = scrolled[k] || 0; });
    if (focus) {
      const same = focus.id ? document.getElementById(focus.id)
        : [...fresh.querySelectorAll("a, button, input, summary")].find(
          (e) => e.outerHTML === focus.outerHTML || (e.value && e.value === focus.value));
      if (same) same.focus({ preventScroll: true });
    }
  };
}

function replace(old, fresh) {
  const restore = keep(old);
  old.replaceWith(fresh);
  restore(fresh);
}

function merge(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html").body;
  const ids = (root) => sections(root).map((s) => s.id).join(" ");
  const raw = new Map(sections(fresh).map((s) => [s.id, s.outerHTML]));
  if (ids(fresh) !== ids(live)) {
    const restore = keep(live);
    live.replaceChildren(...fresh.childNodes);
    restore(live);
  } else {
    for (const section of sections(fresh)) {
      if (drawn.get(section.id) !== raw.get(section.id)) {
        replace(document.getElementById(section.id), document.importNode(section, true));
      }
    }
  }
  drawn = raw;
  const state = stateNow();
  const announce = document.getElementById("announce");
  if (announce && state !== lastState) announce.textContent = `The study is now: ${state}`;
  lastState = state;
}

let drawn = new Map(live ? sections(live).map((s) => [s.id, s.outerHTML]) : []);

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  const begun = performance.now();
  try {
    const answer = await fetch(live.dataset.live, { credentials: "same-origin" });
    if (answer.ok) merge(await answer.text());
    else if (answer.status === 401) location.reload();
  } catch {
    // The server is away: the next round asks again.
  }
  // The slower the answer, the longer the pause: drawing a large study takes a twentieth of the time.
  const pause = Math.min(20000, Math.max(1000, 20 * (performance.now() - begun)));
  setTimeout(() => {
    busy = false;
    if (again) { again = false; refresh(); }
  }, pause);
}

let events = null;

// Only while the page is seen: a browser keeps six connections to a server, over all of its tabs.
function follow() {
  if (!live.dataset.events || !window.EventSource || events) return;
  events = new EventSource(live.dataset.events);
  for (const kind of ["state", "outcomes", "progress", "gone"]) {
    events.addEventListener(kind, refresh);
  }
}

function rest() {
  if (events) events.close();
  events = null;
}

if (live) {
  if ("now" in live.dataset) refresh();
  setInterval(() => { if (!document.hidden) refresh(); }, 1000 * Number(live.dataset.every || 5));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      rest();
    } else {
      follow();
      refresh();
    }
  });
  addEventListener("pagehide", rest);
  addEventListener("pageshow", follow);
  follow();
}

// The first mistake of a study file is seen without looking for it.
const lines = document.querySelector(".lines");
const wrong = lines && lines.querySelector(".wrong");
if (wrong) lines.scrollTop = wrong.offsetTop - lines.offsetTop - 40;

const file = document.getElementById("file");
if (file) {
  document.getElementById("from-file").hidden = false; // without a script it would do nothing
  file.addEventListener("change", async () => {
    if (file.files.length) document.getElementById("text").value = await file.files[0].text();
  });
}
