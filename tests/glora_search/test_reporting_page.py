"""The report as a file: what it says of any study, that it loads nothing, how it is written."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from reporting_studies import HOSTILE, ONE_LAYER, SWIN, Page, outcome, outcomes, recorded

from glora_search.reporting import page as page_module
from glora_search.reporting import write_report
from glora_search.reporting.layer_grid import layer_grid_figures
from glora_search.reporting.page import render_page
from glora_search.reporting.snapshot import take_snapshot
from glora_search.study.errors import ReportError
from glora_search.study.objectives import BY_LOSS_AND_PARAMS, BY_TOP1, Objectives
from search_spaces import GLoRASearchError, SearchSpace, SubnetConfig

pytestmark = pytest.mark.slow

FIGURES = ["history", "trade_off", "winner", "overall", "low_rank", "by_depth"]

ATTRIBUTES = {
    "study": {
        "study": {"name": "sample", "seed": 3},
        "data": {"source": "digits", "n_val": 200},
        "search": {"population": 10, "max_params": None},
    },
    "seed": 3,
    "versions": {"torch": "2.15.0", "timm": "1.0.31"},
    "fingerprints": {"backbone": "ab" * 32},
    "machine": {"processor": "x86_64", "gpu": None},
    "status": "complete",
    "export": {
        "directory": '/tmp/a "b"/export',
        "trial": 28,
        "val": {"top1": 0.8, "loss": 0.4012, "n_images": 200},
        "test": {"top1": 0.75, "loss": 0.5, "n_images": 300},
        "logit_difference": 2.5e-06,
        "n_params": {"adapter": 2083, "head": 245, "merged_model": 172_000},
    },
    "comparison": [
        {"what": "winner", "n_params": 2083, "val_top1": 0.8, "test_top1": 0.75},
        {"what": "linear probe", "n_params": 0, "val_top1": 0.5, "test_top1": None},
    ],
}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a complete study with everything that there can be, failures among it."""
    folder = tmp_path_factory.mktemp("full")
    found = outcomes(30)
    found[7] = outcome(7, error_type="OutOfMemoryError", error="no room")
    with recorded(folder, found, attributes=ATTRIBUTES) as record:
        write_report(record, folder / "report.html")
    return Page.read(folder / "report.html")


def test_sections_stand_in_the_order_in_which_they_are_read(full: Page) -> None:
    sections = [a["id"] for tag, a in full.tags if tag == "section"]
    assert sections == [
        "comparison", "history", "trade-off", "winner", "choices", "best", "failures", "export",
        "provenance",
    ]  # fmt: skip
    kinds = [re.sub(r"figure-|-\d+$", "", name) for name in full.figures()]
    assert list(dict.fromkeys(kinds)) == FIGURES


def test_summary_says_what_was_found_how_sure_it_is_and_which_split_it_is_from(full: Page) -> None:
    assert "29 subnets were evaluated in 3 generations, 1 evaluation failed" in full.words
    assert "The winner is trial 28" in full.words
    assert "val top-1 80.0 ± 2.8 % on 200 images" in full.words  # sqrt(0.8 * 0.2 / 200) = 0.0283
    assert "On the test split, 300 images, by which nothing was chosen" in full.words
    assert "a top-1 of 75.0 ± 2.5 %" in full.words  # sqrt(0.75 * 0.25 / 300) = 0.025


def test_comparison_holds_the_rows_given_and_a_dash_for_what_is_not_known(full: Page) -> None:
    assert "winner 2,083 80.0 ± 2.8 % 75.0 ± 2.5 %" in full.words
    assert "linear probe 0 50.0 ± 3.5 % –" in full.words  # noqa: RUF001


def test_failures_are_told_by_kind_with_an_example(full: Page) -> None:
    assert "OutOfMemoryError 1 7 no room" in full.words


def test_export_tells_the_call_that_loads_it_as_valid_python(full: Page) -> None:
    """A quotation mark in the path must not break the line that people copy."""
    call = re.search(
        r"model = timm\.create_model\((\".*\"), pretrained=True\)\.eval\(\)", full.words
    )
    assert call is not None
    assert json.loads(call.group(1)) == 'local-dir:/tmp/a "b"/export'


def test_provenance_holds_seed_versions_fingerprints_machine_and_study_file(full: Page) -> None:
    for text in (
        "16 layers, 80 support tensors, about 1045 subnets.",  # 10 to the power of 45
        "Seed 3.", "torch 2.15.0", "backbone " + "ab" * 32, "gpu none", "[study]",
        'name = "sample"', "n_val = 200",
    ):  # fmt: skip
        assert text in full.words
    assert "max_params" not in full.words  # not set: TOML has no null


def test_page_loads_nothing(full: Page) -> None:
    """No script, style, font, image or frame from elsewhere, and a policy that would stop one."""
    for tag, attributes in full.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "source", "audio")
        assert "src" not in attributes
        href = attributes.get("href")
        assert href is None or href.startswith("#")
    style = "".join(full.styles)
    assert "url(" not in style
    assert "@import" not in style
    library, *own = full.scripts
    assert "http" not in "".join(own)
    policy = [
        a["content"] for _, a in full.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policy) == 1
    assert "default-src 'none'" in (policy[0] or "")
    assert "plotly.js v" in library[:100]


def test_plotly_is_in_the_page_exactly_once(full: Page) -> None:
    assert len([s for s in full.scripts if len(s) > 1_000_000]) == 1
    assert (
        len(full.scripts) == 1 + len(full.figures()) + 1
    )  # the library, the figures, and printing


def test_links_within_the_page_lead_somewhere(full: Page) -> None:
    targets = {(a["href"] or "")[1:] for tag, a in full.tags if tag == "a"}
    assert len(targets) == 9
    assert targets <= full.ids()


def test_study_without_outcomes(tmp_path: Path) -> None:
    """A report can be asked for while the supernet still trains."""
    with recorded(tmp_path, attributes={"status": "training"}) as record:
        write_report(record, tmp_path / "report.html")
    page = Page.read(tmp_path / "report.html")
    assert "No subnet of this study has been evaluated yet." in page.words
    assert "The study is not complete (status: training)" in page.words
    assert page.figures() == []


def test_study_of_failures_only(tmp_path: Path) -> None:
    found = [outcome(k, error_type="ValueError", error=f"bad {k}") for k in range(12)]
    with recorded(tmp_path, found) as record:
        write_report(record, tmp_path / "report.html")
    page = Page.read(tmp_path / "report.html")
    assert "12 evaluations in 2 generations failed" in page.words
    assert "There is no winner" in page.words
    assert "ValueError 12 0, 1, 2, 3, 4, 5, 6, 7, … bad 0" in page.words
    assert page.figures() == []


def test_one_outcome_of_one_layer_without_blocks(tmp_path: Path) -> None:
    """The smallest study that has pictures has all of them."""
    with recorded(tmp_path, [outcome(0, space=ONE_LAYER)], space=ONE_LAYER) as record:
        write_report(record, tmp_path / "report.html")
    page = Page.read(tmp_path / "report.html")
    assert [name.split("-")[1] for name in page.figures()] == FIGURES
    assert "1 subnet was evaluated in 1 generation, none failed" in page.words


def test_layers_that_are_named_as_in_swin_and_fitness_top1(tmp_path: Path) -> None:
    found = outcomes(40, space=SWIN)
    with recorded(tmp_path, found, space=SWIN, objectives=BY_TOP1) as record:
        write_report(record, tmp_path / "report.html")
        winner = min(record.trials().items(), key=lambda item: record.objectives.rank(item[1]))[0]
    page = Page.read(tmp_path / "report.html")
    assert f"The winner is trial {winner}" in page.words
    assert "The search went by val top-1" in page.words
    assert "depth: block (layers.N, layers.N.blocks.N)" in "".join(page.scripts)


def test_the_grid_is_the_winners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where finalists were scored again, that is not the best of the search."""
    drawn = []

    def draw(space: SearchSpace, subnet: SubnetConfig) -> Any:
        drawn.append(subnet)
        return layer_grid_figures(space, subnet)

    monkeypatch.setattr(page_module, "layer_grid_figures", draw)
    with recorded(tmp_path, outcomes(12)) as record:
        trials = record.trials()
        best, second, *_ = sorted(trials, key=lambda trial: record.objectives.rank(trials[trial]))
        scored = [
            {"trial": second, "loss": 0.1, "top1": 0.9},
            {"trial": best, "loss": 0.2, "top1": 0.8},
        ]
        record.set_attribute("finalists", scored)
        write_report(record, tmp_path / "report.html")
    assert f"The winner is trial {second}" in Page.read(tmp_path / "report.html").words
    assert [subnet.digest for subnet in drawn] == [trials[second].candidate.subnet.digest]


def test_fitness_that_is_not_measured(tmp_path: Path) -> None:
    with recorded(tmp_path, outcomes(12), objectives=Objectives.of("params")) as record:
        write_report(record, tmp_path / "report.html")
        best = min(record.trials().values(), key=lambda o: o.candidate.n_params)
    page = Page.read(tmp_path / "report.html")
    aim = "adapter parameters (lower is better; ties go to the lower val loss)"
    assert f"The search went by {aim}." in page.words
    assert f"{best.candidate.n_params:,} adapter parameters, val loss" in page.words
    assert "by adapter parameters, beside uniform draws" in page.words


@pytest.mark.slow
def test_five_thousand_outcomes_are_all_in_the_page(tmp_path: Path) -> None:
    found = outcomes(5000, space=ONE_LAYER, per_generation=50)
    with recorded(tmp_path, found, space=ONE_LAYER) as record:
        write_report(record, tmp_path / "report.html")
    page = Page.read(tmp_path / "report.html")
    assert "5,000 subnets were evaluated in 100 generations" in page.words
    history = next(
        s for s in page.scripts if 'newPlot(                        "figure-history' in s
    )
    points = re.findall(r'\[(\d+),"(?:random|mutation|crossover)",\d+,\d+,', history)
    assert sorted(set(map(int, points))) == list(range(5000))


def test_texts_of_a_study_cannot_become_markup(tmp_path: Path) -> None:
    """Errors, operators and paths come from other people's code; some hold HTML, or no UTF-8."""
    found = outcomes(20)
    found[3] = outcome(3, error_type=HOSTILE, error=HOSTILE)
    found[4] = outcome(4, operator=HOSTILE)
    attributes = {
        "study": {HOSTILE: {HOSTILE: HOSTILE}},
        "versions": {HOSTILE: HOSTILE},
        "export": {"directory": HOSTILE, "trial": 4},
        "comparison": [{"what": HOSTILE}],
        "status": HOSTILE,
    }
    with recorded(tmp_path, found, attributes=attributes) as record:
        write_report(record, tmp_path / "report.html")
    page = Page.read(tmp_path / "report.html")
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert len(page.scripts) == 1 + len(page.figures()) + 1
    assert 'alert("x")' in page.words


def test_attributes_of_unexpected_types_are_left_out(tmp_path: Path) -> None:
    """A report is made of what is there, also where a later version stored something else."""
    odd = {
        "study": "a text", "seed": "zero", "versions": [1], "fingerprints": None, "machine": 3,
        "status": 7, "export": ["?"], "comparison": {"what": "no list"},
    }  # fmt: skip
    half = {
        "export": {"trial": "x", "val": 3, "test": {"top1": "high"}, "n_params": {"head": "?"}},
        "comparison": ["no row", {}],
    }
    for k, attributes in enumerate((odd, half)):
        folder = tmp_path / str(k)
        folder.mkdir()
        with recorded(folder, outcomes(5), attributes=attributes) as record:
            write_report(record, folder / "report.html")
        page = Page.read(folder / "report.html")
        assert "5 subnets were evaluated" in page.words
        assert ("export" in page.ids()) == ("trial" in attributes["export"])


def test_export_of_another_trial_is_not_taken_for_the_winner(tmp_path: Path) -> None:
    attributes = {**ATTRIBUTES, "export": {**ATTRIBUTES["export"], "trial": 5}}
    with recorded(tmp_path, outcomes(30), attributes=attributes) as record:
        write_report(record, tmp_path / "report.html")
    page = Page.read(tmp_path / "report.html")
    assert "Trial 5 (not the winner above)" in page.words
    assert "trial 5, which was exported, has a top-1 of 75.0 ± 2.5 %" in page.words
    assert "winner’s test top-1" not in page.words  # noqa: RUF001


def test_export_of_an_average_is_told_from_the_winner(tmp_path: Path) -> None:
    average = {**ATTRIBUTES["export"], "trial": None, "average_of": [28, 5, 3]}
    with recorded(tmp_path, outcomes(30), attributes={**ATTRIBUTES, "export": average}) as record:
        write_report(record, tmp_path / "report.html")
    page = Page.read(tmp_path / "report.html")
    assert "The average of the 3 best subnets was merged into a plain network" in page.words
    assert "the average of the 3 best subnets, which was exported, has a top-1 of" in page.words
    assert "winner’s test top-1" not in page.words  # noqa: RUF001


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (
            {"trial": None, "average_of": [28, 5], "soup_of": [28, 3, 5, 9]},
            "the soup of 2 of the 4 best subnets",
        ),
        ({"finetuning": {"epochs": 20, "kept_epoch": 7}}, "trial 28, fine-tuned for 20 epochs"),
    ],
)
def test_export_of_a_soup_or_of_a_tuned_winner_is_told_from_the_winner(
    tmp_path: Path, changes: dict[str, object], what: str
) -> None:
    """Its test figures are not those of the winner as the search found it."""
    attributes = {**ATTRIBUTES, "export": {**ATTRIBUTES["export"], **changes}}
    with recorded(tmp_path, outcomes(30), attributes=attributes) as record:
        write_report(record, tmp_path / "report.html")
    page = Page.read(tmp_path / "report.html")
    assert f"{what[0].upper()}{what[1:]} was merged into a plain network" in page.words
    assert f"{what}, which was exported, has a top-1 of" in page.words
    assert "winner’s test top-1" not in page.words  # noqa: RUF001
    assert "(not the winner above)" not in page.words


def test_study_that_is_running_says_who_drives_it(tmp_path: Path) -> None:
    with recorded(tmp_path, outcomes(5), attributes={"status": "searching"}) as record:
        with record.hold():
            write_report(record, tmp_path / "report.html")
            holder = str(record.holder)
        page = Page.read(tmp_path / "report.html")
    assert f"The study is not complete (status: searching); {holder} was driving it." in page.words


def test_the_same_study_gives_the_same_page(tmp_path: Path) -> None:
    """Nothing in a report is drawn by chance, not even what is estimated by draws."""
    limited = {"study": {"search": {"max_params": 1500}}}
    now = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    with recorded(tmp_path, outcomes(20), attributes=limited) as record:
        pages = {render_page(take_snapshot(record), now=now) for _ in range(2)}
    assert len(pages) == 1
    assert "2026-01-02 03:04 UTC" in pages.pop()


def test_report_replaces_the_last_one_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "report.html"
    with recorded(tmp_path, outcomes(3)) as record:
        write_report(record, path)
        first = path.read_bytes()
        with record.hold():
            record.flush([outcome(3)])
        write_report(record, path)
    assert path.read_bytes() != first
    assert names_in(path.parent) == ["report.html"]


@pytest.mark.parametrize("place", ["a folder", "below a file", "too long a name"])
def test_unwritable_place_is_one_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    path = {
        "a folder": tmp_path / "folder",
        "below a file": tmp_path / "file" / "report.html",
        "too long a name": tmp_path / ("x" * 300),
    }[place]
    with recorded(tmp_path) as record, pytest.raises(ReportError) as caught:
        write_report(record, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, GLoRASearchError)
    assert isinstance(caught.value, OSError)
    assert names_in(tmp_path) == ["file", "folder", "studies.db"]


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """Within the test a file of this process cannot grow past a megabyte, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files_only")
def test_report_that_cannot_be_finished_leaves_the_last_one(tmp_path: Path) -> None:
    """Half a page under the report's name would be worse than none."""
    path = tmp_path / "report.html"
    path.write_text("the last report")
    with recorded(tmp_path, outcomes(3)) as record, pytest.raises(ReportError):
        write_report(record, path)
    assert path.read_text() == "the last report"
    assert names_in(tmp_path) == ["report.html", "studies.db"]


def test_reporting_needs_neither_torch_nor_timm_nor_ray() -> None:
    """A report is made on a laptop from a copy of the database."""
    code = (
        "import sys, glora_search.reporting\n"
        "print([m for m in ('torch', 'timm', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_study_of_two_objectives_shows_its_front(tmp_path: Path) -> None:
    """The knee is marked, the hypervolume drawn, and both objectives are named."""
    with recorded(tmp_path, outcomes(30), objectives=BY_LOSS_AND_PARAMS) as record:
        snapshot = take_snapshot(record)
        page = Page(render_page(snapshot))
    assert "figure-hypervolume-0" in page.ids()
    assert f"its knee is trial {snapshot.knee} with" in page.words
    assert "val loss (lower is better) and adapter parameters (lower is better)" in page.words
    assert any(f"knee (trial {snapshot.knee})" in script for script in page.scripts)
