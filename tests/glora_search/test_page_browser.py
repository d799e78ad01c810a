"""The page in a real browser, over a real server: one journey from a study file to a network."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_study
from fork_server import Running, glora_search, wait_until

from glora_search.operations.running import STUDY_FILE
from glora_search.recording.storage_url import ENVIRONMENT
from glora_search.server.app import make_app
from glora_search.server.settings import ServerSettings
from glora_search.study.toml_text import toml_text

pytest.importorskip("playwright", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 300_000
SERIOUS = ("serious", "critical")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


class ForkedStudies:
    """The runner of a server whose studies are the command line in forked processes: what each
    costs is a fork.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def launch(self, name: str, table: dict[str, Any]) -> int:
        folder = self._settings.root / name
        folder.mkdir(exist_ok=True)
        (folder / STUDY_FILE).write_text(toml_text(table))
        return self._begin(folder, "launch", STUDY_FILE)

    def resume(self, name: str, overrides: Sequence[str] = ()) -> int:
        words = [word for override in overrides for word in ("--set", override)]
        return self._begin(self._settings.root / name, "resume", name, *words)

    def _begin(self, folder: Path, *words: str) -> int:
        variables = {ENVIRONMENT: self._settings.storage}
        self.running = Running(glora_search, *words, folder=folder, environment=variables)
        return self.running.pid


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, ForkedStudies]]:
    """The address of a server on the loopback, and what runs its studies."""
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        root = folder / "root"
        root.mkdir()
        settings = ServerSettings(
            storage=f"sqlite:///{folder / 'studies.db'}",
            root=root,
            data_roots=(folder,),
            port=port,
        )
        app = make_app(settings)
        runner = ForkedStudies(settings)
        app.state.service.runner = runner
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}", runner
        finally:
            server.should_exit = True
            thread.join()


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


def test_a_study_is_submitted_watched_stopped_resumed_and_its_export_loads(
    tmp_path: Path,
) -> None:
    """What the page is for, in one go; the browser's policy refuses nothing of it."""
    timm = pytest.importorskip("timm")
    table = tiny_study.study_table(
        tmp_path, search={"generations": 40, "flush_every": 4}, supernet={"epochs": 2}
    )
    del table["study"]["directory"]
    with (
        serving(tmp_path) as (address, runner),
        browsing(viewport={"width": 390, "height": 800}) as (page, complaints),
    ):
        page.goto(f"{address}/new")
        check_width(page)
        page.fill("#text", toml_text(table).replace("population", "popluation"))
        page.click("text=Start the study")
        assert "did you mean 'population'" in page.inner_text("li.wrong")
        assert page.inner_text("li.wrong").startswith("popluation = 8")
        check_access(page)
        complaints.clear()  # the browser notes that the answer was 422

        page.fill("#text", toml_text(table))
        page.click("text=Start the study")
        # Stopped at its first outcomes: there are hundreds to come, so it cannot end before that.
        assert wait_until(lambda: evaluated(address, "tiny") > 0, runner.running)
        page.click("#do-stop")
        page.wait_for_selector(".state-stopped")  # nobody reloads: it comes by itself
        assert page.locator("#history").count() == 1
        done = int(page.inner_text("#state .of").partition(" of ")[0])
        assert 0 < done < 328
        check_access(page)

        page.click("#changes summary")
        page.fill("#overrides", "search.flush_every = 8\n\ncluster.workers=0")
        page.click("#do-resume-changed")
        page.wait_for_selector(".state-finished")
        assert page.inner_text("#state .of") == "328 of 328"
        assert page.locator("#winner table").count() == 2
        check_width(page)
        check_access(page)
        runner.running.succeed()

        with page.expect_download() as download:
            page.click("text=Download the export")
        download.value.save_as(tmp_path / "export.zip")
        page.keyboard.press("Tab")  # from the link on, by keyboard alone
        assert page.evaluate("document.activeElement !== document.body")
        for path in ("", "compare?study=tiny", "login"):
            page.goto(f"{address}/{path}")
            check_width(page)
            check_access(page)
        assert complaints == []
    with zipfile.ZipFile(tmp_path / "export.zip") as archive:
        archive.extractall(tmp_path / "export")
    model = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True)
    assert model.num_classes == 3
