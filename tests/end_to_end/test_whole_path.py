"""From a study file to a plain ViT: the same winner whoever evaluates and whatever interrupts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fork_server import Running, glora_search, wait_until
from tiny_study import found, study, write_study

from glora_search.operations import study_status
from glora_search.operations.launching import SearchResult, launch, resume
from glora_search.recording import Database
from glora_search.stages import prepare as prepare_module

pytestmark = pytest.mark.slow

# Long enough to be interrupted in the middle of training and in the middle of the search.
LONG: dict[str, dict[str, Any]] = {
    "supernet": {"epochs": 60},
    "search": {"generations": 30, "flush_every": 2},
}


def storage(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


def launch_here(folder: Path, **sections: dict[str, Any]) -> SearchResult:
    folder.mkdir(exist_ok=True)
    return launch(study(folder, **sections), storage=storage(folder))


@pytest.fixture(scope="module")
def test_split_opened() -> list[str]:
    """The status of the undisturbed study, whenever something opened the test split."""
    return []


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, test_split_opened: list[str]
) -> SearchResult:
    folder = tmp_path_factory.mktemp("undisturbed")
    real = prepare_module.load_test_split

    def watched(*arguments: Any, **options: Any) -> Any:
        with Database.open(storage(folder), create=False) as database:
            test_split_opened.append(str(database.open_study("tiny").attributes["status"]))
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_module, "load_test_split", watched)
        return launch_here(folder, **LONG)


def test_search_never_reads_the_test_split(
    undisturbed: SearchResult, test_split_opened: list[str]
) -> None:
    """Until the winner is chosen, nothing opens the test split."""
    assert test_split_opened == ["exporting"]


def test_one_worker_equals_two_workers_equals_none(tmp_path: Path, shared_ray: str) -> None:
    """The number of workers changes when a search ends, never what it finds; neither does it matter
    whether the Ray was there (two workers) or is started for them (one).
    """
    results = {
        n: launch_here(tmp_path / str(n), cluster=cluster, search={"generations": 3})
        for n, cluster in {
            0: {"workers": 0},
            1: {"workers": 1},
            2: {"workers": 2, "address": shared_ray},
        }.items()
    }
    workers = [{o.worker for o in r.outcomes} for r in results.values()]
    # Two workers load for seconds what they evaluate in one: the second may come too late.
    assert [len(w) for w in workers] in ([1, 1, 1], [1, 1, 2])
    assert workers[0].isdisjoint(workers[1] | workers[2])
    assert found(results[0].outcomes) == found(results[1].outcomes) == found(results[2].outcomes)
    exports = [r.export.directory / "model.safetensors" for r in results.values()]
    assert len({path.read_bytes() for path in exports}) == 1


def start(folder: Path, **sections: dict[str, Any]) -> Running:
    """`glora-search launch` in a process of its own."""
    file = write_study(folder, **sections)
    return Running(glora_search, "launch", str(file), "--storage", storage(folder), folder=folder)


def in_training(folder: Path) -> Callable[[], bool]:
    return lambda: any((folder / "runs" / "supernets").glob("*.training.safetensors"))


def in_search(folder: Path) -> Callable[[], bool]:
    """More than one generation is recorded."""

    def begun() -> bool:
        if not any((folder / "runs" / "supernets").glob("*.safetensors")):
            return False
        with Database.open(storage(folder), create=False) as database:
            return database.open_study("tiny").tally().n_complete > 10

    return begun


@pytest.mark.parametrize("stage", [in_training, in_search])
def test_resume_after_sigkill(
    tmp_path: Path, stage: Callable[[Path], Callable[[], bool]], undisturbed: SearchResult
) -> None:
    """Every (generation, index, digest, value) and the winner are those of an undisturbed run."""
    process = start(tmp_path, **LONG)
    assert wait_until(stage(tmp_path), process, poll_s=0.002), process.errors
    process.kill()
    with Database.open(storage(tmp_path), create=False) as database:
        kept = found(database.open_study("tiny").history())
    assert len(kept) < len(undisturbed.outcomes), "it was over before it was killed"
    result = resume("tiny", storage=storage(tmp_path))
    assert found(result.outcomes) == found(undisturbed.outcomes)
    assert set(kept) <= set(found(result.outcomes))
    assert result.winner.candidate == undisturbed.winner.candidate
    mine = result.export.directory / "model.safetensors"
    theirs = undisturbed.export.directory / "model.safetensors"
    assert mine.read_bytes() == theirs.read_bytes()


def test_a_front_is_the_same_after_sigkill(tmp_path: Path) -> None:
    """A search of two objectives, killed in its midst."""
    search = {**LONG["search"], "objectives": ["loss", "params"]}
    alone = launch_here(tmp_path / "alone", search=search)
    (tmp_path / "killed").mkdir()
    process = start(tmp_path / "killed", search=search)
    assert wait_until(in_search(tmp_path / "killed"), process, poll_s=0.002), process.errors
    process.kill()
    with Database.open(storage(tmp_path / "killed"), create=False) as database:
        assert len(database.open_study("tiny").history()) < len(alone.outcomes)
    result = resume("tiny", storage=storage(tmp_path / "killed"))
    assert found(result.outcomes) == found(alone.outcomes)
    fronts = [study_status("tiny", storage(tmp_path / n)).front for n in ("killed", "alone")]
    digests = [[o.candidate.subnet.digest for _, o in f.members] for f in fronts if f is not None]
    assert digests[0] == digests[1]
    assert len(digests[0]) > 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_politely(
    tmp_path: Path, number: signal.Signals, undisturbed: SearchResult
) -> None:
    """Ctrl-C: status 130, what to type to go on, everything that had arrived recorded."""
    process = start(tmp_path, **LONG)
    assert wait_until(in_search(tmp_path), process, poll_s=0.002), process.errors
    process.signal(number)
    assert process.wait() == 130, process.errors
    err = process.errors
    assert "glora-search resume tiny" in err
    assert "Traceback" not in err
    with Database.open(storage(tmp_path), create=False) as database:
        record = database.open_study("tiny")
        assert record.holder is None, "the study was not given back"
        assert f"{record.tally().n_complete} subnets are recorded" in err
    if number is signal.SIGINT:
        result = resume("tiny", storage=storage(tmp_path))
        assert found(result.outcomes) == found(undisturbed.outcomes)


LOAD = """
import sys, json
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("glora_search", "supernet", "search_spaces"):
            raise ImportError(f"{name} is not for this process")
sys.meta_path.insert(0, Blocked())
try:
    import supernet
except ImportError:
    pass
else:
    raise SystemExit("the project's packages can be imported")
import timm, torch
from timm.data import create_transform, resolve_model_data_config
from sklearn.datasets import load_digits
from PIL import Image
model = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True).eval()
transform = create_transform(**resolve_model_data_config(model), is_training=False)
digits = load_digits()
images = [Image.fromarray((x * 255 / 16).round().astype("uint8")) for x in digits.images[:32]]
with torch.inference_mode():
    logits = model(torch.stack([transform(x) for x in images]))
print(json.dumps([type(model).__name__, len(model.state_dict()), logits.tolist()]))
"""


def test_timm_alone_loads_the_export(undisturbed: SearchResult) -> None:
    """In a process where this project cannot be imported, with timm's own preprocessing."""
    import torch
    from PIL import Image
    from sklearn.datasets import load_digits

    ended = subprocess.run(
        [sys.executable, "-c", LOAD, str(undisturbed.export.directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    name, n_tensors, logits = json.loads(ended.stdout)
    assert name == "VisionTransformer"
    plain = undisturbed.materials.architecture.build()
    assert n_tensors == len(plain.state_dict()), "something of GLoRA is left"
    preprocessing = undisturbed.materials.preprocessing
    transform = preprocessing.transform()
    images = [
        Image.fromarray((x * 255 / 16).round().astype("uint8")) for x in load_digits().images[:32]
    ]
    batch = preprocessing.normalise(torch.stack([transform(x) for x in images]))
    supernet = undisturbed.supernet.eval()
    supernet.set_active_subnet(undisturbed.winner.candidate.subnet)
    with torch.inference_mode():
        expected = supernet(batch)
    torch.testing.assert_close(torch.tensor(logits), expected, rtol=1e-4, atol=1e-4)
