"""The page as text: what it says of each state, what it refuses, what it never contains."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import partialmethod
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi.testclient import TestClient
from page_studies import (
    PAGES,
    SHOWN,
    WHY_NOT,
    WORDS,
    example_table,
    make_study,
    studies_in_every_state,
)
from reporting_studies import Page, outcomes
from server_cases import begun_by, storage
from server_cases import settings as server_settings

from glora_search.operations.running import STUDY_FILE
from glora_search.operations.serving import create_study
from glora_search.recording import Database
from glora_search.reporting.snapshot import Snapshot
from glora_search.server.app import make_app
from glora_search.server.page import routes, shown, views
from glora_search.server.page.rendering import STATIC, static_file
from glora_search.server.service import Service
from glora_search.server.settings import ServerSettings
from glora_search.study.objectives import BY_LOSS_AND_PARAMS, Objectives

ADDRESS = "http://127.0.0.1:8484"
OWN = {"Origin": ADDRESS}
TOKEN, READ_TOKEN = "may-change", "may-read"

FIGURES = {"history", "workers", "trade-off", "winner", "survival", "best"}
FIGURES_OF_TWO = FIGURES - {"trade-off"} | {"front"}
NOTHING, START, STOP = {"nothing"}, {"do-start"}, {"do-stop"}
RESUME = {"do-resume", "do-resume-changed"}
SECTIONS = {
    "finished": FIGURES | {"export"},
    "fresh": NOTHING,
    "broken": {"history", "workers", "failures"},
    "two": FIGURES_OF_TWO,
    "two-again": FIGURES_OF_TWO,
    "created": NOTHING,
    "starting": NOTHING,
    "not-started": NOTHING,
}
"""The sections of studies that do not have just all the figures of one objective."""

BUTTONS = {
    "running": STOP,
    "fresh": STOP,
    "halted": RESUME,
    "broken": RESUME,
    "created": START,
    "starting": STOP,
    "not-started": START,
}
"""What can be done with studies that are not finished."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerSettings]:
    """A server's settings, and in its database a study in each state."""
    with studies_in_every_state(tmp_path_factory.mktemp("page")) as settings:
        yield settings


@pytest.fixture(scope="module")
def client(settings: ServerSettings) -> Iterator[TestClient]:
    with TestClient(make_app(settings), base_url=ADDRESS, follow_redirects=False) as client:
        yield client


def page(client: TestClient, path: str, status: int = 200) -> Page:
    answer = client.get(path)
    assert answer.status_code == status
    return Page(answer.text)


class Badges(HTMLParser):
    """The words of the badges of a page, in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        css = (dict(attrs).get("class") or "").split()
        self._inside = (self._inside and tag == "span" and "dot" in css) or "badge" in css

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.words.append(data)
            self._inside = False


def test_the_list_tells_each_study_with_its_state_in_words(client: TestClient) -> None:
    """Colour alone is not seen by everybody."""
    answer = client.get("/")
    assert Badges(answer.text).words == list(WORDS.values())
    words = Page(answer.text).words
    assert "50 of 50" in words
    assert "10 failed" in words
    assert "none yet" in words


@pytest.mark.parametrize("name", SHOWN)
def test_a_study_is_shown_in_every_state(client: TestClient, name: str) -> None:
    """The state, of the figures those that it has data for, and the buttons that make sense."""
    answer = client.get(f"/studies/{name}")
    assert Badges(answer.text).words == [WORDS[name]]
    ids = Page(answer.text).ids()
    known = set().union(FIGURES, *SECTIONS.values())
    assert ids & known == SECTIONS.get(name, FIGURES)
    assert {each for each in ids if each.startswith("do-")} == BUTTONS.get(name, set())


def test_a_damaged_study_is_told_as_damaged(client: TestClient) -> None:
    """The list says why, and the page is no unexpected error."""
    why = "study 'damaged' is stored in format 99"
    assert why in page(client, "/").words
    shown = page(client, "/studies/damaged", 409)
    assert why in shown.words
    assert "/studies/damaged" not in [a.get("href") for _, a in shown.tags], "it leads nowhere"


def test_a_study_that_did_not_start_says_why(client: TestClient) -> None:
    """What its process said last is all that there is of it."""
    assert f"Its start ended with an {WHY_NOT}" in page(client, "/studies/not-started").words


def test_a_created_study_is_started_with_its_button(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is launched once, with the study file that was created, and is then being started."""
    began = begun_by(monkeypatch)
    with Database(storage(tmp_path)) as database:
        create_study(database, example_table("a"))
    allowed = server_settings(tmp_path)
    with TestClient(make_app(allowed), base_url=ADDRESS, follow_redirects=False) as client:
        assert "do-start" in page(client, "/studies/a").ids()
        answer = client.post("/studies/a/start", headers=OWN)
        assert (answer.status_code, answer.headers["Location"]) == (303, "/studies/a?did=start")
        assert began == [("launch", STUDY_FILE)]
        assert tomllib.loads((allowed.root / "a" / STUDY_FILE).read_text()) == example_table("a")
        for path in ("/", "/studies/a?did=start"):
            assert Badges(client.get(path).text).words == ["starting"]
        assert client.post("/studies/a/start", headers=OWN).status_code == 409
        assert len(began) == 1


def test_one_sees_how_a_training_goes_and_how_busy_workers_are(
    client: TestClient, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has a line for each epoch; each of the two workers has evaluated lately."""
    folder = settings.root / "fresh"
    folder.mkdir(exist_ok=True)
    (folder / "service.log").write_text("training the supernet: 3/50, loss 1.2\n")
    assert "training the supernet: 3/50, loss 1.2" in client.get("/studies/fresh").text
    within_an_hour = partialmethod(Service.busy_workers, within_s=3600.0)  # a minute may be over
    monkeypatch.setattr(Service, "busy_workers", within_an_hour)
    text = client.get("/studies/running").text
    busy = Page(text).words
    assert "Busy in the last minute" in busy
    shares = re.findall(r'<td class="n">([\d.]+) %</td></tr>', text)
    assert [float(share) > 0 for share in shares] == [True, True]
    assert "Busy in the last minute" not in page(client, "/studies/finished").words
    assert re.search(r"0\.\d of 2 workers were busy on average, \d+(\.\d+)? % of the time", busy)


@pytest.mark.parametrize("path", PAGES)
def test_pages_keep_the_policy_and_load_nothing_from_elsewhere(
    client: TestClient, path: str
) -> None:
    """No inline script or style, which the policy would block; no other host; under 300 kB with
    all that it loads.
    """
    answer = client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    shown = Page(answer.text)
    assert not any(text.strip() for text in shown.scripts + shown.styles)
    for tag, attributes in shown.tags:
        assert "style" not in attributes, tag
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("href", "src", "action", "data-live", "data-events"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), attributes
    assert len(answer.content) + sum(len(static_file(name)) for name in STATIC) < 300_000


@pytest.mark.parametrize("path", PAGES)
def test_what_one_can_use_has_a_name(client: TestClient, path: str) -> None:
    """A field without a label, a picture without words, an id used twice: a reader of the screen
    stumbles over each. (The whole of it was checked with axe.)
    """
    shown = page(client, path)
    labelled = {a.get("for") for tag, a in shown.tags if tag == "label"}
    for tag, attributes in shown.tags:
        if tag in ("input", "select", "textarea") and attributes.get("type") != "hidden":
            named = "aria-label" in attributes or attributes.get("id") in labelled
            assert named or attributes.get("name") == "study", attributes
        if attributes.get("role") == "img" or tag == "progress":
            assert attributes.get("aria-label"), attributes
    ids = [a["id"] for _, a in shown.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert [tag for tag, _ in shown.tags].count("h1") == 1


def test_hostile_texts_are_shown_and_not_obeyed(client: TestClient) -> None:
    """What a worker said is text, whatever it contains; a lone surrogate is no error."""
    shown = page(client, "/studies/broken")
    assert '</script><script>alert("x")</script>' in shown.words
    assert [a for tag, a in shown.tags if tag == "img"] == []


def test_what_is_fetched_again_is_what_the_page_holds(client: TestClient) -> None:
    """The script replaces sections by their ids: a study that stands still must not flicker."""
    for whole, part in (("/studies/finished", "/studies/finished/live"), ("/", "/live")):
        fragment = client.get(part).text
        assert fragment.strip() in client.get(whole).text
    assert "since=20" in client.get("/studies/running").text, "events go on where the page ends"


@pytest.mark.slow
def test_a_study_is_drawn_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only then: drawing 10,000 subnets takes half a second, for each page that is open."""
    drawn: list[int] = []

    def study_view(snapshot: Snapshot, planned: int | None) -> dict[str, Any]:
        drawn.append(len(snapshot.trials))
        return views.study_view(snapshot, planned)

    monkeypatch.setattr(shown, "study_view", study_view)
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with Database.open(url, create=True) as database:
        record = make_study(database, "a", "searching", outcomes(12))
        app = make_app(ServerSettings(storage=url, root=tmp_path))
        with TestClient(app, base_url=ADDRESS) as client, record.hold():
            for _ in range(2):
                assert "12 of 50" in page(client, "/studies/a").words
            record.flush(outcomes(20))
            for _ in range(2):
                assert "20 of 50" in page(client, "/studies/a/live").words
            record.set_attribute("status", "exporting")
            assert "exporting" in page(client, "/studies/a").words
    assert drawn == [12, 20, 20]


def test_a_large_study_comes_in_two_parts(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame at once, with what is known without reading; the script fetches the rest. Without a
    script there is a link, and the second look is whole.
    """
    monkeypatch.setattr(routes, "_READ_AT_ONCE", 20)
    with TestClient(make_app(settings), base_url=ADDRESS) as client:
        answer = client.get("/studies/finished")
        frame = Page(answer.text)
        assert Badges(answer.text).words == ["finished"]
        assert "50 of 50" in frame.words
        assert "Reading 50 outcomes" in frame.words
        assert {"data-now"} <= {name for _, a in frame.tags for name in a}
        assert "/studies/finished?all=1" in [a.get("href") for _, a in frame.tags]
        for path in ("/studies/finished", "/studies/halted"):
            assert "history" in page(client, path).ids()
    with TestClient(make_app(settings), base_url=ADDRESS) as client:
        assert "history" in page(client, "/studies/finished?all=1").ids()


def test_a_page_crosses_the_wire_compressed_where_the_browser_takes_it(client: TestClient) -> None:
    """It says the same either way, and a cache between may not confuse the two."""
    sent = {}
    for offer in ("identity", "br, GZIP;q=0.5", "gzip;q=0"):
        answer = client.get("/studies/finished", headers={"Accept-Encoding": offer})
        assert answer.headers["Vary"] == "Accept-Encoding"
        sent[offer] = (answer.headers.get("Content-Encoding"), answer.text)
    assert [encoding for encoding, _ in sent.values()] == [None, "gzip", None]
    assert len({text for _, text in sent.values()}) == 1


def test_an_unknown_study_is_told_with_its_neighbours(client: TestClient) -> None:
    """As HTML, and with the status that the API has."""
    assert "nearest: finished" in page(client, "/studies/finishd", 404).words
    assert client.get("/static/nothing.js").status_code == 404


def test_static_files_have_an_address_of_their_content(client: TestClient) -> None:
    """They are kept for ever, so another content needs another address."""
    links = [
        a.get("href") or a.get("src") for t, a in page(client, "/").tags if t in ("link", "script")
    ]
    assert len(links) == len(STATIC)
    for link in links:
        answer = client.get(link)
        assert "?v=" in link
        assert "immutable" in answer.headers["Cache-Control"]


def test_studies_are_compared(client: TestClient) -> None:
    """Figures on one axis where the fitness is the same, results with their errors, differences."""
    shown = page(client, "/compare?study=finished&study=running&study=by-top1")
    assert "Best val loss so far" in shown.words
    assert "Best val top-1 so far" in shown.words
    assert "82.5 ± 1.2 %" in shown.words
    assert "Nothing but the name" in shown.words
    lines = [
        a["class"] for tag, a in shown.tags if tag == "path" and "series" in (a.get("class") or "")
    ]
    assert lines.count("swatch series series-2") == 2, "one colour in the history and the front"
    assert "needs two studies" in page(client, "/compare?study=finished").words
    assert "no study 'fresh'" in page(client, "/compare?study=finished&study=fresh", 404).words


def test_hypervolumes_stand_in_a_column_for_each_pair_of_objectives(tmp_path: Path) -> None:
    """That of val loss and that of top-1 have different units."""
    by_top1 = Objectives.of("top1", "params")
    of_each = {"a": BY_LOSS_AND_PARAMS, "b": BY_LOSS_AND_PARAMS, "c": by_top1, "d": by_top1}
    with Database(storage(tmp_path)) as database:
        for name, objectives in of_each.items():
            make_study(database, name, "complete", outcomes(12), objectives)
    with TestClient(make_app(server_settings(tmp_path)), base_url=ADDRESS) as client:
        words = page(client, f"/compare?{urlencode([('study', name) for name in of_each])}").words
    assert words.count("Hypervolume of val loss and adapter parameters") == 2, "chart and column"
    assert words.count("Hypervolume of val top-1 and adapter parameters") == 2
    cells = re.findall(r"finished 12 0 .*? none (\S+) (\S+) 3\.0 s", words)
    of_loss, of_top1 = cells[0][0], cells[2][1]
    assert cells == [(of_loss, "none")] * 2 + [("none", of_top1)] * 2
    assert "none" not in (of_loss, of_top1)


def test_studies_that_are_too_many_are_told(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_MOST_COMPARED", 2)
    words = page(client, "/compare?study=finished&study=halted&study=by-top1").words
    assert "At most 2 studies are compared; the first of them are shown." in words


# Forms


def test_no_file_is_asked_for_without_a_script(client: TestClient) -> None:
    """A script reads it into the text; without one nothing would become of it."""
    shown = page(client, "/new")
    [around] = [a for _, a in shown.tags if a.get("id") == "from-file"]
    assert "hidden" in around


def submit(client: TestClient, text: str, **headers: str) -> Any:
    return client.post("/new", data={"text": text, "do": "start"}, headers={**OWN, **headers})


def test_mistakes_stand_beside_their_lines(client: TestClient) -> None:
    """With Windows' line ends too, which browsers send; a missing table has no line."""
    text = '[study]\r\nname = "x"\r\n\r\n[search]\r\npopluation = 8\r\nfitness = "<b>"'
    answer = submit(client, text)
    assert answer.status_code == 422
    wrong = answer.text.split('<li class="wrong">')[1:]
    assert [part.partition("<strong")[0] for part in wrong] == [
        "popluation = 8",
        "fitness = &#34;&lt;b&gt;&#34;",
    ]
    assert "did you mean &#39;population&#39;?" in wrong[0]
    assert "backbone: missing" in answer.text.partition('class="lines"')[0]
    assert "<b>" not in answer.text
    broken = submit(client, '[study]\nname = "x\n')
    assert broken.text.partition('<li class="wrong">')[2].startswith("name = &#34;x")


def test_a_name_that_is_taken_is_told(client: TestClient) -> None:
    """And the text is not lost."""
    text = client.get("/new?example=digits").text.partition("<textarea")[2]
    text = text.partition(">\n")[2].partition("</textarea>")[0].replace("&#34;", '"')
    answer = submit(client, text.replace('name = "digits"', 'name = "finished"', 1))
    assert answer.status_code == 409
    assert "exists already" in Page(answer.text).words
    assert "name = &#34;finished&#34;" in answer.text


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://example.org"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
@pytest.mark.parametrize(
    "path", ["/new", "/studies/halted/resume", "/studies/running/stop", "/studies/two/export"]
)
def test_pages_of_other_sites_change_nothing(
    client: TestClient, path: str, headers: dict[str, str]
) -> None:
    """A form that does not come from here is refused, even where no token is asked for."""
    answer = client.post(path, data={"text": "", "do": "start"}, headers=headers)
    assert answer.status_code == 403


def test_what_cannot_be_done_is_told(client: TestClient) -> None:
    """Two people press the same button, or the study has ended meanwhile."""
    for path, words in (
        ("/studies/halted/stop", "does not run"),
        ("/studies/running/resume", "runs already"),
        ("/studies/finished/start", "resume it instead"),
        ("/studies/nix/stop", "no study 'nix'"),
    ):
        answer = client.post(path, headers=OWN)
        assert answer.status_code == (404 if "nix" in path else 409), answer.text
        shown = Page(answer.text)
        assert words in shown.words
        links = {a["href"] for tag, a in shown.tags if tag == "a"}
        assert (path.rpartition("/")[0] in links) == ("nix" not in path)


@pytest.mark.parametrize("lines", ["a\n" * 101, f"search.generations={'9' * 2000}"])
def test_changes_are_as_few_and_as_short_as_the_api_has_them(
    client: TestClient, lines: str
) -> None:
    answer = client.post("/studies/halted/resume", data={"overrides": lines}, headers=OWN)
    assert answer.status_code == 422
    assert "at most 100 changes" in Page(answer.text).words


def test_one_takes_a_point_of_the_front(client: TestClient) -> None:
    """By its row, as the knee, or by its size; what is there can be downloaded."""
    shown = page(client, "/studies/two")
    assert {"front", "take", "exports", "export-knee", "max-params"} <= shown.ids()
    assert "front" not in page(client, "/studies/finished").ids()
    status = client.get("/api/v1/studies/two").json()["front"]
    knee = next(t for t in status["trials"] if t["trial"] == status["knee"])
    hypervolume = f"Hypervolume {status['hypervolume']:.4f}"
    assert f"The knee is trial {knee['trial']}" in shown.words
    assert hypervolume in shown.words
    offered = [a["value"] for _, a in shown.tags if a.get("name") == "digest"]
    assert {t["digest"] for t in status["trials"]} <= set(offered)
    links = [a["href"] or "" for tag, a in shown.tags if tag == "a"]
    assert f"/api/v1/studies/two/export?digest={knee['digest']}" in links
    for form in ({"pick": "knee"}, {"digest": knee["digest"]}, {"max_params": knee["n_params"]}):
        answer = client.post("/studies/two/export", data=form, headers=OWN)
        assert answer.status_code == 303
        assert answer.headers["Location"] == "/studies/two?did=export#exports"
    assert "The export is being made" in page(client, "/studies/two?did=export").words
    for data, code, words in (
        ({"digest": "0" * 12}, 404, "0 subnets whose digest begins"),
        ({"max_params": "many"}, 422, "say which subnet"),
        ({"max_params": "0"}, 404, "no evaluated subnet of at most 0"),
        ({}, 422, "say which subnet"),
    ):
        answer = client.post("/studies/two/export", data=data, headers=OWN)
        assert answer.status_code == code
        assert words in Page(answer.text).words
    answer = client.post("/studies/finished/export", data={"pick": "loss"}, headers=OWN)
    assert "no trained supernet" in Page(answer.text).words


# Tokens


@pytest.fixture
def guarded(settings: ServerSettings) -> Iterator[TestClient]:
    """A client of a server that asks for tokens."""
    asking = ServerSettings(
        storage=settings.storage, root=settings.root, token=TOKEN, read_token=READ_TOKEN
    )
    with TestClient(make_app(asking), base_url=ADDRESS, follow_redirects=False) as client:
        yield client


def log_in(client: TestClient, token: str, to: str = "/") -> Any:
    return client.post("/login", data={"token": token, "next": to}, headers=OWN)


def test_nothing_is_shown_without_a_token(guarded: TestClient) -> None:
    """Not even that a study exists: pages lead to the login, what a script asks for is refused."""
    for path in ("/", "/new", "/compare", "/studies/finished", "/studies/nix"):
        answer = guarded.get(path)
        assert answer.status_code == 303
        assert answer.headers["Location"] == f"/login?next={path}"
    for path in ("/live", "/studies/finished/live", "/api/v1/studies"):
        assert guarded.get(path).status_code == 401
    assert guarded.post("/studies/running/stop", headers=OWN).status_code == 401
    assert guarded.get("/login").status_code == 200
    answer = log_in(guarded, "wrong")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_token_is_kept_where_no_script_and_no_other_site_gets_it(guarded: TestClient) -> None:
    """In a cookie, with which events can be followed as well; after logging out it is gone."""
    answer = log_in(guarded, TOKEN, "/studies/finished")
    assert answer.headers["Location"] == "/studies/finished"
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert guarded.get("/").status_code == 200
    assert guarded.get("/api/v1/studies").status_code == 200
    assert "do-resume" in page(guarded, "/studies/halted").ids()
    assert guarded.post("/studies/halted/stop", headers=OWN).status_code == 409
    assert guarded.post("/logout", headers=OWN).status_code == 303
    assert guarded.get("/").status_code == 303


def test_who_may_only_read_sees_no_buttons_and_can_do_nothing(guarded: TestClient) -> None:
    """A hidden button is a courtesy; the refusal is the protection."""
    log_in(guarded, READ_TOKEN)
    shown = page(guarded, "/studies/halted")
    assert not any(name.startswith("do-") for name in shown.ids())
    assert "New study" not in shown.words
    assert "take" not in page(guarded, "/studies/two").ids()
    assert "exports" in page(guarded, "/studies/two").ids()
    for path in ("/new", "/studies/halted/resume", "/studies/running/stop", "/studies/two/export"):
        answer = guarded.post(path, data={"text": ""}, headers=OWN)
        assert answer.status_code == 403
        assert "may only read" in answer.text
    assert guarded.post("/api/v1/studies/running/stop").status_code == 403


@pytest.mark.parametrize("to", ["//example.org", "https://example.org", "/\\example.org", "x", ""])
def test_the_login_leads_to_no_other_site(guarded: TestClient, to: str) -> None:
    """Else a link to a login here would be a link to anywhere."""
    assert log_in(guarded, TOKEN, to).headers["Location"] == "/"
