"""What a browser loads and waits for, when it opens the page of a large study.

    python tests/benchmarks/bench_page.py [--candidates 10000] [--loads 7] [--starts 3]

Chromium opens the page, with an empty cache each time: --loads times from a server that has shown
the page before, and --starts times from one that has just started. Counted are the bytes over the
wire, headers included, of all that the page loads until a second after its figures are there, the
first contentful paint, and the time until the figures are there; of the paint, the time until the
first byte is the server's, and the rest is the browser's. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from measuring import progress, report, spread
from playwright.sync_api import Browser, sync_playwright
from served_study import SPACE, STUDY, our_server, write_study

_QUIET_MS = 1000.0
_TIMES_MS = """[performance.getEntriesByType("navigation")[0].responseStart,
  ...performance.getEntriesByName("first-contentful-paint").map((e) => e.startTime)]"""


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=7, help="from a server that knows the study")
    parser.add_argument("--starts", type=int, default=3, help="from a server that just started")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as name, browsing() as browser:
        folder = Path(name)
        url = f"sqlite:///{folder / 'studies.db'}"
        write_study(url, options.candidates)
        progress("the study is written")
        browser.new_page().goto("about:blank")  # its own start is over
        first, later = [], []
        for start in range(max(1, options.starts)):
            with our_server(url, folder / "runs") as server:
                first.append(_load(browser, server.address))
                if start == 0:
                    later = [_load(browser, server.address) for _ in range(options.loads)]
    report(
        "page",
        {
            "candidates": options.candidates,
            "genes": len(SPACE.genes),
            "chromium": browser.version,
            "load_average": round(os.getloadavg()[0], 1),
            "loaded": _summary(later),
            "loaded_first": _summary(first),
        },
    )


@contextmanager
def browsing() -> Iterator[Browser]:
    """A Chromium without a window."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise RuntimeError("there is no chromium on this machine; install it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def _load(browser: Browser, address: str) -> dict[str, Any]:
    """Open the page of the study once, in a new context: its cache is empty."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        received = _count(context.new_cdp_session(page))
        begin = time.perf_counter()
        page.goto(f"{address}/studies/{STUDY}")
        page.wait_for_selector("#history svg", state="attached", timeout=120_000)
        figures_s = time.perf_counter() - begin
        page.wait_for_timeout(_QUIET_MS)
        answer_ms, paint_ms = page.evaluate(_TIMES_MS)
    finally:
        context.close()
    answer_s, paint_s = answer_ms / 1e3, paint_ms / 1e3
    by_request = {path: round(n) for path, n in received.items()}
    progress(
        f"{answer_s:.3f} s to the answer, {paint_s:.3f} to a paint, {figures_s:.3f} to the figures"
    )
    return {
        "bytes": by_request,
        "answer_s": answer_s,
        "paint_s": paint_s,
        "figures_s": figures_s,
    }


def _count(session: Any) -> dict[str, float]:
    """Bytes by path, as the browser tells them from now on; a stream that goes on is included."""
    paths: dict[str, str] = {}
    received: dict[str, float] = {}
    counted: dict[str, float] = {}

    def asked(event: dict[str, Any]) -> None:
        path = "/" + event["request"]["url"].partition("://")[2].partition("/")[2]
        paths[event["requestId"]] = path.partition("?")[0]

    def add(event: dict[str, Any], total: float) -> None:
        path = paths[event["requestId"]]
        received[path] = received.get(path, 0) + total - counted.get(event["requestId"], 0)
        counted[event["requestId"]] = total

    def more(event: dict[str, Any]) -> None:
        add(event, counted.get(event["requestId"], 0) + event["encodedDataLength"])

    session.on("Network.requestWillBeSent", asked)
    session.on("Network.responseReceived", lambda e: add(e, e["response"]["encodedDataLength"]))
    session.on("Network.dataReceived", more)
    session.on("Network.loadingFinished", lambda e: add(e, e["encodedDataLength"]))
    session.send("Network.enable")
    return received


def _summary(loads: list[dict[str, Any]]) -> dict[str, Any]:
    if not loads:
        return {"loads": 0}
    return {
        "loads": len(loads),
        "bytes": spread([sum(load["bytes"].values()) for load in loads], digits=6),
        "bytes_of_the_last": loads[-1]["bytes"],
        "first_byte_s": spread([load["answer_s"] for load in loads]),
        "first_contentful_paint_s": spread([load["paint_s"] for load in loads]),
        "figures_s": spread([load["figures_s"] for load in loads]),
    }


if __name__ == "__main__":
    main()
