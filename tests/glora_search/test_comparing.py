"""Methods compared on a real small study: runs that are recorded, resumed and paired."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_study import study, write_study

from glora_search.bench import schedule
from glora_search.bench.runs import Run, RunResult
from glora_search.bench.suites import OFFLINE_TASKS, QUICK_TASKS, offline_suite
from glora_search.bench.table import comparison
from glora_search.cli import bench_options
from glora_search.cli.bench_tables import comparison_output
from glora_search.cli.commands import cli
from glora_search.cluster.connection import WorkerPool, connect, disconnect, ray
from glora_search.operations import compare
from glora_search.operations.recorded_bench import Comparison
from glora_search.study.errors import StudyFileError
from glora_search.study.study_file import StudyFile

pytestmark = pytest.mark.slow
METHODS = ("linear", "lora", "glora-search", "glora-random")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparing")


@pytest.fixture(scope="module")
def file(folder: Path) -> StudyFile:
    return study(folder, search={"max_params": 2000}, supernet={"threads": 1})


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'bench.db'}"


@pytest.fixture(scope="module")
def compared(file: StudyFile, folder: Path) -> Comparison:
    return compare(file, methods=METHODS, seeds=2, epochs=3, sweep=False, storage=url(folder))


def test_every_method_has_its_runs(compared: Comparison) -> None:
    assert [row.method for row in compared.rows] == list(METHODS)
    assert {row.n_runs for row in compared.rows} == {2}
    assert all(row.error is None for row in compared.rows)
    rows = {row.method: row for row in compared.rows}
    assert rows["linear"].n_params == 0
    assert rows["lora"].n_params == 2048, "of all ranks the nearest to 2,000"
    assert 0 < (rows["glora-search"].n_params or 0) <= 2000
    assert all(row.merges and row.forward_ratio for row in compared.rows)


def test_cells_are_paired(compared: Comparison) -> None:
    """The difference of the means is the mean of the differences: the same seeds on both sides."""
    rows = {row.method: row for row in compared.rows}
    assert compared.reference == "linear"
    assert rows["linear"].difference is None
    found, test = rows["lora"].difference, rows["lora"].test_top1
    assert found is not None
    assert test is not None
    assert rows["linear"].test_top1 is not None
    assert found.mean == pytest.approx(test.mean - rows["linear"].test_top1.mean)
    assert found.low <= found.mean <= found.high


def test_seeds_draw_other_images(compared: Comparison) -> None:
    linear = [r for r in compared.results if r.run.method == "linear"]
    assert linear[0].val_loss != linear[1].val_loss
    assert {r.n_test for r in compared.results} == {linear[0].n_test}


def test_the_search_is_no_worse_on_val_than_a_random_subnet(compared: Comparison) -> None:
    """Both read the same supernet, and the search minimises this very figure."""
    by_key = {(r.run.method, r.run.seed): r.val_loss for r in compared.results}
    for seed in (0, 1):
        searched, random = by_key["glora-search", seed], by_key["glora-random", seed]
        assert searched is not None
        assert random is not None
        assert searched <= random


def test_the_same_call_again_runs_nothing(
    compared: Comparison, file: StudyFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_run(*_: object, **__: object) -> None:
        raise AssertionError("nothing was left to do")

    monkeypatch.setattr("glora_search.bench.execute.execute", no_run)
    again = compare(file, methods=METHODS, seeds=2, epochs=3, sweep=False, storage=url(folder))
    assert again.to_json() == compared.to_json()


def test_an_interrupted_comparison_goes_on(
    compared: Comparison, file: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its figures are those of an undisturbed one."""
    from glora_search.bench.execute import execute

    ended: list[Run] = []

    def third_is_interrupted(run: Run, file: StudyFile) -> RunResult:
        if len(ended) == 2:
            raise KeyboardInterrupt
        ended.append(run)
        return execute(run, file)

    with monkeypatch.context() as patched:
        patched.setattr("glora_search.bench.execute.execute", third_is_interrupted)
        with pytest.raises(KeyboardInterrupt):
            compare(
                file, methods=METHODS[:2], seeds=2, epochs=3, sweep=False, storage=url(tmp_path)
            )
    ended.clear()
    ended_after = []

    def counted(run: Run, file: StudyFile) -> RunResult:
        ended_after.append(run)
        return execute(run, file)

    monkeypatch.setattr("glora_search.bench.execute.execute", counted)
    found = compare(
        file, methods=METHODS[:2], seeds=2, epochs=3, sweep=False, storage=url(tmp_path)
    )
    assert len(ended_after) == 2
    figures = {r.run.key: r.test_loss for r in compared.results}
    assert {r.run.key: r.test_loss for r in found.results} == {
        r.run.key: figures[r.run.key] for r in found.results
    }


def test_a_run_that_fails_is_told_and_the_others_go_on(
    file: StudyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise FloatingPointError("the loss is NaN")

    monkeypatch.setattr("glora_search.bench.execute.train_network", diverge)
    methods = ("lora", "glora-random")
    found = compare(file, methods=methods, seeds=1, epochs=1, sweep=False, storage=url(tmp_path))
    lora, random = found.rows
    assert (lora.n_runs, lora.n_failed) == (0, 1)
    assert lora.error is not None
    assert "the loss is NaN" in lora.error
    assert random.n_runs == 1
    assert random.difference is None, "there is nothing to pair with"


def test_two_workers_find_what_one_process_finds(
    compared: Comparison, file: StudyFile, tmp_path: Path, shared_ray: str
) -> None:
    """And they leave the Ray that they have joined; one that was joined before is left joined."""
    changes = {"address": shared_ray, "workers": 2}
    spread = file.model_copy(update={"cluster": file.cluster.model_copy(update=changes)})
    found = compare(
        spread, methods=METHODS[:2], seeds=2, epochs=3, sweep=False, storage=url(tmp_path)
    )
    figures = {r.run.key: r.test_loss for r in compared.results}
    for result in found.results:
        assert result.error is None
        assert result.test_loss == pytest.approx(figures[result.run.key], rel=1e-5)
    assert not ray.is_initialized()

    connect(shared_ray, WorkerPool(workers=2))
    try:
        again = compare(
            spread, methods=METHODS[:1], seeds=1, epochs=1, sweep=False, storage=url(tmp_path)
        )
        assert [result.error for result in again.results] == [None]
        assert ray.is_initialized()
    finally:
        disconnect()


def test_the_command_prints_a_table_and_writes_a_picture(
    compared: Comparison, folder: Path, tmp_path: Path
) -> None:
    path = write_study(folder, search={"max_params": 2000}, supernet={"threads": 1})
    words = ["compare", str(path), "--methods", ",".join(METHODS), "--seeds", "2", "--epochs", "3"]
    words += ["--no-sweep", "--storage", url(folder), "--out", str(tmp_path)]
    ended = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert ended.exit_code == 0
    assert "paired by task and seed" in ended.stdout
    assert all(method in ended.stdout for method in METHODS)
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["method"] for row in document["rows"]] == list(METHODS)
    assert "NaN" not in (tmp_path / "comparison.json").read_text()
    lines = (tmp_path / "comparison.md").read_text().splitlines()
    columns = lines[2].count("|")
    assert [line.split()[1] for line in lines[4:8]] == list(METHODS)
    assert {line.count("|") for line in lines[2:8]} == {columns}
    page = (tmp_path / "comparison.html").read_text()
    assert "glora-search" in page
    assert "<script src=" not in page, "it loads nothing"


def test_no_difference_is_shown_without_its_interval(compared: Comparison) -> None:
    """With one seed there is none: the difference stays out of the table."""
    results = [result for result in compared.results if result.run.seed == 0]
    one_seed = replace(
        compared, rows=comparison(results, METHODS, "linear", compared.layout), results=results
    )
    shown = [row[6] for row in comparison_output(one_seed).rows]
    assert shown == ["-", *["one seed"] * 3]
    assert all("[" in row[6] for row in comparison_output(compared).rows[1:])


def test_the_command_beside_a_table_has_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:secret@db/studies"
    for words in (["--storage", url], [f"--storage={url}"]):
        monkeypatch.setattr("sys.argv", ["x/glora-search", "compare", *words, "--seeds", "2"])
        assert bench_options._command() == "glora-search compare --seeds 2"


@pytest.mark.parametrize("methods", [(), ("lora", "lora"), ("lora", "qlora")])
def test_methods_that_cannot_be_compared(file: StudyFile, methods: tuple[str, ...]) -> None:
    with pytest.raises(StudyFileError, match="each once, of linear, full"):
        compare(file, methods=methods or ("",), storage="sqlite://")


def test_the_offline_suite_is_one_backbone_and_ten_tasks(tmp_path: Path) -> None:
    files = offline_suite(OFFLINE_TASKS, tmp_path, workers=0).files
    assert len(files) == 10
    assert len({file.backbone.model_dump_json() for file in files.values()}) == 1
    assert set(QUICK_TASKS) <= set(OFFLINE_TASKS)
    assert {file.search.max_params for file in files.values()} == {18_432}
    with pytest.raises(StudyFileError, match="each once, of count"):
        offline_suite(["count", "counts"], tmp_path, workers=0)


def test_a_schedule_without_runs_ends(file: StudyFile) -> None:
    assert list(schedule.run_here(list, {"tiny": file})) == []
