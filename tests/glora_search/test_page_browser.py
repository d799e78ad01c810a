"""The page in a real browser, over a real server: every page, and one journey from a study file to
a network.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_study
from fork_server import wait_until
from page_studies import PAGES, studies_in_every_state
from server_cases import serving, settings
from server_here import serving_forks

from glora_search.server.app import make_app
from glora_search.study.toml_text import toml_text

pytest.importorskip("playwright", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NARROW = {"width": 390, "height": 800}
PATIENCE_MS = 300_000
SERIOUS = ("serious", "critical")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@contextmanager
def browsing(**options: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page of a new browser, and all that it complained about."""
    from playwright.sync_api import sync_playwright  # half a second of every collection

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(PATIENCE_MS)
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        try:
            yield page, complaints
        finally:
            browser.close()


def evaluated(address: str, study: str) -> int:
    """How many outcomes of a study the database holds; 0 before there is a study."""
    with urllib.request.urlopen(f"{address}/api/v1/studies/{study}") as answer:
        return int(json.load(answer)["evaluated"])


def check_width(page: Any) -> None:
    """Nothing hangs out of a narrow screen: tables scroll by themselves."""
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], page.url


def check_access(page: Any) -> None:
    """Axe finds nothing serious, in the light page and in the dark one."""
    from axe_playwright_python.sync_playwright import Axe

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        violations = Axe().run(page).response["violations"]
        found = {v["id"]: v["nodes"][0]["html"] for v in violations if v["impact"] in SERIOUS}
        assert not found, (page.url, scheme)


def go_to(page: Any, selector: str) -> None:
    """Move the focus to an element by the key Tab alone."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"the key Tab does not reach {selector}")


def fill(page: Any, selector: str, text: str) -> None:
    """Replace the text of a field by keyboard alone."""
    go_to(page, selector)
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)


def press(page: Any, selector: str, key: str) -> None:
    """Use a button by keyboard alone."""
    go_to(page, selector)
    page.keyboard.press(key)


def test_every_page_is_for_everybody(tmp_path: Path) -> None:
    """Studies in every state, comparisons and an error, at the width of a telephone."""
    paths = (
        *PAGES,
        "/compare?study=finished&study=running",
        "/compare?study=two&study=two-again",
        "/studies/nix",
    )
    with (
        studies_in_every_state(tmp_path) as given,
        serving(make_app(given)) as address,
        browsing(viewport=NARROW) as (page, _),
    ):
        for path in paths:
            page.goto(f"{address}{path}")
            check_width(page)
            check_access(page)


def test_a_study_is_submitted_watched_stopped_resumed_and_its_export_loads(
    tmp_path: Path,
) -> None:
    """What the page is for, in one go and by keyboard alone; the browser's policy refuses nothing
    of it.
    """
    timm = pytest.importorskip("timm")
    from playwright.sync_api import expect

    table = tiny_study.study_table(
        tmp_path, search={"generations": 40, "flush_every": 4}, supernet={"epochs": 2}
    )
    del table["study"]["directory"]
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(toml_text(table).replace("population", "popluation"))
    with (
        serving_forks(settings(tmp_path, data_roots=(tmp_path,))) as (address, runner),
        browsing(viewport=NARROW) as (page, complaints),
    ):
        page.goto(address)
        assert "There is no study" in page.inner_text("#studies")
        check_width(page)
        check_access(page)

        press(page, "#studies .button", "Enter")
        page.wait_for_url("**/new")
        page.set_input_files("#file", wrong)
        page.wait_for_function("document.getElementById('text').value.includes('popluation')")
        assert page.is_visible("#file")
        press(page, "[value=start]", "Enter")
        assert "did you mean 'population'" in page.inner_text("li.wrong")
        assert page.inner_text("li.wrong").startswith("popluation = 8")
        expect(page.locator("li.wrong")).to_be_in_viewport()  # its line is beyond those first shown
        check_access(page)
        complaints.clear()  # the browser notes that the answer was 422

        fill(page, "#text", toml_text(table))
        press(page, "[value=start]", "Enter")
        page.wait_for_url("**/studies/tiny?did=start")
        # Stopped at its first outcomes: there are hundreds to come, so it cannot end before that.
        assert wait_until(lambda: evaluated(address, "tiny") > 0, runner.running)
        press(page, "#do-stop", "Space")
        page.wait_for_selector(".state-stopped")  # nobody reloads: it comes by itself
        assert page.locator("#history").count() == 1
        done = int(page.inner_text("#state .of").partition(" of ")[0])
        assert 0 < done < 328
        check_access(page)

        go_to(page, "#do-resume")
        press(page, "#changes summary", "Enter")
        fill(page, "#overrides", "search.flush_every = 8\n\ncluster.workers=0")
        press(page, "#do-resume-changed", "Enter")
        page.wait_for_selector(".state-finished")
        assert page.inner_text("#state .of") == "328 of 328"
        assert page.locator("#winner table").count() == 2
        check_width(page)
        check_access(page)
        runner.running.succeed()

        with page.expect_download() as download:
            press(page, "#get-1", "Enter")
        download.value.save_as(tmp_path / "export.zip")
        assert complaints == []
    with zipfile.ZipFile(tmp_path / "export.zip") as archive:
        archive.extractall(tmp_path / "export")
    model = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True)
    assert model.num_classes == 3
