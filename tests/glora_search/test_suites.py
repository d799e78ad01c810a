"""The suites of files, on small folder trees of their real form with a tiny transformer."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from suite_folders import write_base_study, write_few_shot, write_imagenet, write_vtab

from glora_search.bench import execute as executing
from glora_search.bench.recipes import PUBLISHED_LR
from glora_search.bench.runs import Run, RunResult
from glora_search.bench.table import comparison
from glora_search.cli.bench_tables import comparison_output
from glora_search.cli.commands import cli
from glora_search.operations import bench_domains, bench_few_shot, bench_vtab
from glora_search.operations.recorded_bench import Comparison
from glora_search.operations.suites import Asked
from glora_search.study.errors import StudyFileError
from glora_search.study.study_file import StudyFile
from supernet.errors import DataError

pytestmark = pytest.mark.slow
TASKS = ("dtd", "eurosat", "kitti")
MORE_TASKS = ("svhn", "dmlab")
METHODS = ("linear", "lora")
Counted = Callable[..., list[Run]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("suites")


@pytest.fixture(scope="module")
def study(folder: Path) -> Path:
    return write_base_study(folder / "base")


@pytest.fixture(scope="module")
def vtab_root(folder: Path) -> Path:
    return write_vtab(folder / "vtab", (*TASKS, *MORE_TASKS))


@pytest.fixture(scope="module")
def few_shot_root(folder: Path) -> Path:
    return write_few_shot(folder / "few-shot", ("oxford_pets", "food-101"), (1, 2), (0, 1))


@pytest.fixture(scope="module")
def imagenet_root(folder: Path) -> Path:
    return write_imagenet(folder / "imagenet")


@pytest.fixture(scope="module")
def vtab(vtab_root: Path, folder: Path, asked: Asked) -> Comparison:
    return bench_vtab(vtab_root, tasks=TASKS, asked=asked, storage=url(folder))


@pytest.fixture(scope="module")
def asked(study: Path) -> Asked:
    return Asked(study=study, methods=METHODS, seeds=2, epochs=2, sweep=False)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Watches the runs that are done from now on; before number `stop` comes an interruption."""

    def watch(stop: int | None = None) -> list[Run]:
        found: list[Run] = []

        def watched(run: Run, file: StudyFile) -> RunResult:
            if len(found) == stop:
                raise KeyboardInterrupt
            found.append(run)
            return execute(run, file)

        monkeypatch.setattr(executing, "execute", watched)
        return found

    execute = executing.execute
    return watch


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'suites.db'}"


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def words_of(study: Path) -> list[str | Path]:
    return ["--study", study, "--methods", ",".join(METHODS), "--epochs", "2", "--no-sweep"]


def figures(comparison: Comparison) -> dict[str, Any]:
    return {r.run.key: (r.val_loss, r.test_loss, r.test_top1) for r in comparison.results}


def test_vtab_has_a_run_for_each_task_method_and_seed(vtab: Comparison) -> None:
    assert len(vtab.results) == 3 * 2 * 2
    assert not [r.error for r in vtab.results if r.failed]
    assert {r.n_test for r in vtab.results} == {20}
    assert vtab.reference == "lora"


def test_means_of_groups_are_those_computed_by_hand(vtab: Comparison) -> None:
    """Each group has one task here, so a group's mean is that of the two seeds."""
    for row in vtab.rows:
        seeds_mean = dict.fromkeys(TASKS, 0.0)
        for result in vtab.results:
            if result.run.method == row.method:
                seeds_mean[result.run.task] += (result.test_top1 or 0.0) / 2
        assert row.means is not None
        assert row.means.groups == {
            "natural": pytest.approx(seeds_mean["dtd"]),
            "specialised": pytest.approx(seeds_mean["eurosat"]),
            "structured": pytest.approx(seeds_mean["kitti"]),
        }
        assert row.means.of_groups == pytest.approx(sum(seeds_mean.values()) / 3)
        assert {t: f.mean for t, f in row.tasks.items()} == pytest.approx(seeds_mean)


def test_the_mean_of_groups_is_not_the_flat_mean(
    vtab: Comparison, vtab_root: Path, folder: Path, asked: Asked, runs: Counted
) -> None:
    """Further tasks are added to the same record, whose runs are not done again."""
    new = runs()
    wide = bench_vtab(vtab_root, tasks=(*TASKS, *MORE_TASKS), asked=asked, storage=url(folder))
    assert {run.task for run in new} == set(MORE_TASKS)
    assert figures(vtab).items() <= figures(wide).items()
    for row in wide.rows:
        top1 = {task: figure.mean for task, figure in row.tasks.items()}
        natural = (top1["dtd"] + top1["svhn"]) / 2
        structured = (top1["kitti"] + top1["dmlab"]) / 2
        assert row.means is not None
        assert row.means.of_groups == pytest.approx((natural + top1["eurosat"] + structured) / 3)
        assert row.means.of_tasks == pytest.approx(sum(top1.values()) / 5)
        assert row.test_top1 is not None
        assert row.test_top1.mean == pytest.approx(row.means.of_tasks)


def test_vtab_is_interrupted_and_goes_on_to_the_same_figures(
    vtab: Comparison, vtab_root: Path, study: Path, tmp_path: Path, runs: Counted
) -> None:
    words = ["bench", "vtab", "--root", vtab_root, "--tasks", ",".join(TASKS), *words_of(study)]
    words += ["--seeds", "2", "--storage", url(tmp_path), "--json"]
    first = runs(stop=5)
    ended = command(*words)
    assert ended.exit_code == 130
    assert "the same command goes on" in ended.stderr
    second = runs()
    ended = command(*words)
    assert ended.exit_code == 0, ended.stderr
    assert (len(first), len(second)) == (5, 7)
    found = {
        r.run.key: (r.val_loss, r.test_loss, r.test_top1)
        for r in map(RunResult.from_json, json.loads(ended.stdout)["runs"])
    }
    assert found == figures(vtab)


def test_a_subset_is_marked_and_published_figures_say_which_mean(
    vtab: Comparison, vtab_root: Path, study: Path, folder: Path
) -> None:
    words = ["bench", "vtab", "--root", vtab_root, "--tasks", ",".join(TASKS), *words_of(study)]
    ended = command(*words, "--seeds", "2", "--storage", url(folder))
    assert ended.exit_code == 0, ended.stderr
    shown = ended.stdout
    assert "flat mean of 3 of 19 tasks" in shown
    assert "mean, natural (1 of 7)" in shown
    assert "mean of group means (subset)" in shown
    assert "does not compare with the published ones" in shown
    assert "PACE" in shown
    assert max(map(len, shown.splitlines())) <= 120
    document = vtab.to_json()
    assert document["suite"]["complete"] is False
    assert document["suite"]["groups"] == {
        "natural": ["dtd"],
        "specialised": ["eurosat"],
        "structured": ["kitti"],
    }
    assert {p["mean_of_groups"] for p in document["published"]} >= {0.69, 0.78, 0.79}


def test_tables_of_all_methods_fit_120_columns(
    vtab: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = dataclasses.replace(vtab.layout, tasks=vtab.layout.whole)
    results = [
        dataclasses.replace(
            vtab.results[0],
            run=dataclasses.replace(vtab.results[0].run, method=method, task=task, seed=seed),
            test_top1=0.5 + 0.1 * seed,
        )
        for method in PUBLISHED_LR
        for task in layout.tasks
        for seed in (0, 1)
    ]
    rows = comparison(results, tuple(PUBLISHED_LR), "lora", layout)
    whole = dataclasses.replace(vtab, layout=layout, rows=rows, results=results)
    shown = comparison_output(whole)
    assert [len(table.columns) for table in shown.more] == [7, 7, 5, 4]
    shown.show(as_json=False)
    text = capsys.readouterr().out
    tables = [line for line in text.splitlines() if line and line[0] in "┏┃┡│└"]
    assert max(map(len, tables)) <= 120
    assert "…" not in text
    one_seed = comparison(results[::2], tuple(PUBLISHED_LR), "lora", layout)
    named = dataclasses.replace(whole, rows=one_seed, name="[vtab]")
    comparison_output(named).show(as_json=False)
    told_of_one = capsys.readouterr().out
    assert "[vtab]" in told_of_one, "words in brackets are no markup"
    assert "one seed" in told_of_one
    for told in ("mean, specialised (4)", "mean of group means ", "flat mean of 19 tasks"):
        assert told in text
    assert "subset" not in text


def test_few_shot_has_a_table_over_shots(
    few_shot_root: Path, study: Path, folder: Path, runs: Counted
) -> None:
    """The sweep takes the list of seed 0: there is none of its own seed."""
    done = runs()
    words = ["bench", "few-shot", "--root", few_shot_root, "--study", study, "--epochs", "1"]
    words += ["--datasets", "oxford_pets,food-101", "--shots", "1,2", "--methods", "linear"]
    ended = command(*words, "--seeds", "2", "--storage", url(folder), "--out", folder / "out")
    assert ended.exit_code == 0, ended.stderr
    assert {run.split for run in done if run.role == "sweep"} == {0}
    assert len([run for run in done if run.role == "sweep"]) == 4 * 3
    assert len([run for run in done if run.role == "final"]) == 4 * 2
    for row in ("oxford_pets/1", "food-101/2", "mean, 1 shot (2 of 5)", "mean, 2 shots (2 of 5)"):
        assert row in ended.stdout
    document = json.loads((folder / "out" / "comparison.json").read_text())
    (row,) = document["rows"]
    for shots in (1, 2):
        pair = [row["tasks"][f"{name}/{shots}"]["mean"] for name in ("oxford_pets", "food-101")]
        key = "1 shot" if shots == 1 else "2 shots"
        assert row["means"]["groups"][key] == pytest.approx(sum(pair) / 2)
    assert row["means"]["of_groups"] is None, "groups that overlap have no mean of their own"


def test_a_seed_chooses_the_list_of_the_training_images(
    few_shot_root: Path, asked: Asked, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"^oxford_pets/1: .*no list .*seed_2; .*seed 0, 1"):
        bench_few_shot(
            few_shot_root,
            datasets=["oxford_pets"],
            shots=[1],
            asked=Asked(study=asked.study, methods=METHODS, seeds=3),
            storage=url(tmp_path),
        )
    assert not (tmp_path / "suites.db").exists(), "nothing was begun"


@pytest.fixture(scope="module")
def domains(imagenet_root: Path, folder: Path, study: Path) -> tuple[Comparison, list[Run]]:
    """Two domains, with all trainings that were done."""
    with pytest.MonkeyPatch.context() as patched:
        trained: list[Run] = []
        train = executing._train

        def counted(run: Run, materials: Any) -> Any:
            trained.append(run)
            return train(run, materials)

        patched.setattr(executing, "_train", counted)
        found = bench_domains(
            imagenet_root,
            domains=("imagenet", "imagenet-a"),
            asked=Asked(study=study, methods=("linear",), seeds=2, epochs=2, overrides=BIG_BATCHES),
            storage=url(folder),
        )
    return found, trained


BIG_BATCHES = ("supernet.batch_size=250", "supernet.warmup_epochs=1")


def test_one_training_serves_all_domains(domains: tuple[Comparison, list[Run]]) -> None:
    comparison, trained = domains
    assert [run.role for run in trained] == ["sweep"] * 3 + ["final"] * 2
    (row,) = comparison.rows
    assert (row.n_runs, row.n_failed) == (2, 0)
    assert set(row.tasks) == {"imagenet", "imagenet-a"}
    for result in comparison.results:
        tested = result.by_test_set
        assert {name: t.n_images for name, t in tested.items()} == {
            "imagenet": 20,
            "imagenet-a": 200,
        }
        assert result.test_top1 == pytest.approx(sum(t.top1 for t in tested.values()) / 2)
        assert RunResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    losses = [r.by_test_set["imagenet-a"].loss for r in comparison.results]
    assert max(losses) < comparison.results[0].by_test_set["imagenet"].loss, "of 200 classes alone"


def test_another_set_of_domains_keeps_the_sweep(
    domains: tuple[Comparison, list[Run]],
    imagenet_root: Path,
    folder: Path,
    study: Path,
    runs: Counted,
) -> None:
    done = runs()
    words = ["bench", "domains", "--root", imagenet_root, "--domains", "imagenet-a"]
    words += ["--study", study, "--methods", "linear", "--seeds", "1", "--epochs", "2"]
    words += [word for override in BIG_BATCHES for word in ("--set", override)]
    ended = command(*words, "--storage", url(folder))
    assert ended.exit_code == 0, ended.stderr
    assert [run.role for run in done] == ["final"]
    assert "mean of 1 of 5 tasks" in ended.stdout


def empty(root: Path) -> None:
    (root / "kitti" / "val200.txt").write_text("")


def remove(root: Path) -> None:
    shutil.rmtree(root / "kitti")


def add(line: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "kitti" / "test.txt"
        path.write_text(path.read_text() + line)

    return spoil


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (add("images/gone 1.jpg 1\n"), r"test\.txt, line 21: images/gone 1\.jpg: no such file"),
        (add("images/test/img_22_1.jpg 4\n"), r"test\.txt, line 21: .*label 4 is not a class"),
        (add("nothing\n"), r"test\.txt, line 21: expected 'relative/path label'"),
        (empty, r"the list val200\.txt is empty"),
        (remove, r"no folder 'kitti' below .*its folders are dtd, eurosat"),
    ],
)
def test_a_mistake_in_the_last_task_is_told_before_anything_trains(
    mistake: Callable[[Path], object],
    told: str,
    vtab_root: Path,
    asked: Asked,
    tmp_path: Path,
    runs: Counted,
) -> None:
    root = tmp_path / "vtab"
    for task in TASKS:
        shutil.copytree(vtab_root / task, root / task)
    mistake(root)
    done = runs()
    with pytest.raises(DataError, match=f"^kitti: {told}") as raised:
        bench_vtab(root, tasks=TASKS, asked=asked, storage=url(tmp_path))
    assert done == []
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "suites.db").exists()


def test_mistakes_in_several_tasks_are_counted(
    vtab_root: Path, asked: Asked, tmp_path: Path
) -> None:
    told = r"^cifar: no folder .*\(mistakes also in clevr_count, resisc45\)$"
    with pytest.raises(DataError, match=told):
        bench_vtab(
            vtab_root,
            tasks=("cifar", "dtd", "clevr_count", "resisc45"),
            asked=asked,
            storage=url(tmp_path),
        )


def test_a_mistake_that_all_tasks_share_is_told_once(asked: Asked, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not there; give the folder that holds the data set$"):
        bench_vtab(tmp_path / "nowhere", asked=asked, storage=url(tmp_path))


def test_an_image_that_does_not_decode_fails_its_runs_until_it_is_mended(
    vtab_root: Path, study: Path, tmp_path: Path, runs: Counted
) -> None:
    """A failed run is done again by the same command; the others are not."""
    asked = Asked(study=study, methods=("linear",), seeds=2, epochs=1, sweep=False)
    root = tmp_path / "vtab"
    for task in ("dtd", "kitti"):
        shutil.copytree(vtab_root / task, root / task)
    picture = root / "kitti/images/test/img 22_0.jpg"
    content = picture.read_bytes()
    picture.write_bytes(content[:100])
    broken = bench_vtab(root, tasks=("dtd", "kitti"), asked=asked, storage=url(tmp_path))
    for row in broken.rows:
        assert (row.n_runs, row.n_failed) == (2, 2)
        assert row.error is not None
        assert "img 22_0.jpg: the image does not decode" in row.error
        assert row.means is not None
        assert row.means.groups["natural"] is not None
        assert row.means.of_tasks is row.means.of_groups is None, "a task has no figure"
    picture.write_bytes(content)
    done = runs()
    mended = bench_vtab(root, tasks=("dtd", "kitti"), asked=asked, storage=url(tmp_path))
    assert {run.task for run in done} == {"kitti"}
    assert len(done) == 2
    assert {row.n_failed for row in mended.rows} == {0}


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["vtab", "--tasks", "cifar,clevr"], 2, "tasks = cifar, clevr: each once, of cifar"),
        (["vtab", "--tasks", "dtd", "--set", "data.task=svhn"], 2, "the suite decides this key"),
        (["vtab", "--tasks", "dtd", "--set", "data.trian=x"], 2, "did you mean 'train'"),
        (
            ["vtab", "--root", "/nowhere/here"],
            1,
            "the data's root /nowhere/here is not there; give",
        ),
        (["few-shot", "--shots", "1,x"], 2, "expected whole numbers with commas"),
        (["few-shot", "--shots", "0"], 2, "numbers from 1 on, each once"),
        (["few-shot", "--datasets", "pets"], 2, "datasets = pets: each once, of food-101"),
        (["domains", "--domains", "sketch"], 2, "domains = sketch: each once, of imagenet"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    words: list[str],
    status: int,
    told: str,
    vtab_root: Path,
    study: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from glora_search.cli import commands

    root = [] if "--root" in words else ["--root", str(vtab_root)]
    line = ["glora-search", "bench", *words, *root, "--study", str(study)]
    monkeypatch.setattr("sys.argv", [*line, "--storage", url(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == status
    assert told in capsys.readouterr().err


def test_the_packaged_study_and_its_preprocessing_are_the_default(tmp_path: Path) -> None:
    from glora_search.bench.suites import few_shot_suite, vtab_suite

    base = Asked(overrides=("backbone.checkpoint=w.npz",), workers=0).base(tmp_path)
    suite = vtab_suite(base)
    assert len(suite.files) == 19
    assert suite.layout.complete
    assert suite.name == "vtab"
    assert sum(len(tasks) for tasks in suite.layout.present.values()) == 19
    for file in [*suite.files.values(), *few_shot_suite(base).files.values()]:
        assert file.data.crop_mode == "squash"
        assert file.data.mean == [0.485, 0.456, 0.406]
        assert file.backbone.checkpoint == Path("w.npz").absolute()
        assert file.cluster.workers == 0


def test_a_study_without_mistakes_in_other_sections_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text('study = 3\ncluster = 4\ndata = "x"\n')
    with pytest.raises(StudyFileError, match=r"--set cluster\.workers: 'cluster' is a value"):
        bench_vtab(tmp_path, asked=Asked(study=path, workers=0))
    with pytest.raises(StudyFileError, match="the suite's study has 4 mistakes"):
        bench_vtab(tmp_path, asked=Asked(study=path))
