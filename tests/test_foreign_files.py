"""Nothing that comes from outside runs as code, and no name leads out of its directory."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import study, study_table

from glora_search.stages.sources import make_source
from glora_search.study.errors import StudyFileError
from glora_search.study.reading import parse_study
from supernet import Preprocessing
from supernet.data import load_split
from supernet.errors import DataError

ROOT = Path(__file__).parents[1]
_UNPICKLING = {"load", "loads", "Unpickler", "read_pickle", "load_module"}
_OF = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "torch", "np", "numpy", "pd"}


def _calls() -> list[tuple[str, str, ast.Call]]:
    """Every call in the three packages: its place, what is called, the call."""
    found = []
    for package in ("search_spaces", "supernet", "glora_search"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    found.append((where, ast.unparse(node.func), node))
    return found


@pytest.mark.slow
def test_no_call_reads_a_pickle() -> None:
    """Whoever adds one says here why what it reads is ours."""
    calls = _calls()
    assert len(calls) > 1000
    for where, name, call in calls:
        module, _, function = name.rpartition(".")
        options = {k.arg: ast.unparse(k.value) for k in call.keywords}
        if module in _OF and function in _UNPICKLING:
            safe = options.get("weights_only") == "True" or options.get("allow_pickle") == "False"
            assert safe, f"{where}: {name}"
        if function == "load_state_dict" and "weights_only" in options:
            assert options["weights_only"] == "True", where
        assert name not in ("eval", "exec", "os.system"), f"{where}: {name}"
        assert options.get("shell", "False") == "False", f"{where}: {name}"
        assert options.get("trust_remote_code", "False") == "False", f"{where}: {name}"


_PREPROCESSING = Preprocessing(
    input_size=(3, 32, 32),
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    crop_pct=1.0,
    crop_mode="center",
)


class _Runs:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_changed_pickle_of_torchvision_is_not_loaded(tmp_path: Path) -> None:
    """CIFAR is distributed as pickles; torchvision compares them with the MD5 that it knows."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    ran = tmp_path / "ran"
    foreign = pickle.dumps(_Runs(ran))
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(foreign)
    table = study_table(tmp_path)
    table["data"] = {"source": "timm", "name": "torch/cifar10", "root": str(tmp_path)}
    source = make_source(parse_study(table, origin="study").data)
    with pytest.raises(DataError):
        load_split(source, "train", _PREPROCESSING)
    assert not ran.exists()
    pickle.loads(foreign)
    assert ran.exists(), "the test proves nothing"


_NAMES = st.one_of(
    st.text(max_size=12),
    st.text("./\\~$ab-_\x00\n ", max_size=12),
    st.sampled_from(["..", ".", "../x", "/etc", "a/../../b", "~", "a\n", "-rf", "a" * 201]),
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(name=_NAMES)
def test_no_name_of_a_study_leads_out_of_its_directory(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        file = study(folder, study={"name": name, "directory": str(folder / "runs")})
    except StudyFileError:
        return
    runs = folder / "runs"
    for path in (file.run_directory, file.export_directory):
        assert path.resolve().is_relative_to(runs.resolve())
    assert file.run_directory.resolve().parent == runs.resolve()


@pytest.mark.parametrize(
    "data",
    [
        {"source": "vtab", "task": "../cifar"},
        {"source": "vtab", "task": "/etc"},
        {"source": "vtab", "task": "cifar", "train": "../../train800.txt"},
        {"source": "folder", "train": "../train"},
        {"source": "folder", "test": "/etc"},
    ],
)
def test_no_name_within_the_data_leads_out_of_its_root(
    tmp_path: Path, data: dict[str, Any]
) -> None:
    table = study_table(tmp_path)
    table["data"] = {**data, "root": str(tmp_path)}
    with pytest.raises((DataError, StudyFileError)):
        make_source(parse_study(table, origin="study").data)
