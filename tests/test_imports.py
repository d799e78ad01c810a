"""The direction of imports: what each package may know, and what it must run without."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "supernet", "glora_search")
NETWORK = {"torch", "timm", "numpy", "safetensors", "PIL", "sklearn"}
EXTRAS = {"onnxruntime"}  # of the network; imported by the function that needs it
MODELS = {"torch", "torchvision", "timm", "safetensors", "supernet"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imported_by(module: str) -> frozenset[str]:
    """Dotted names that the module imports, wherever in its file; those of a package included.

    What stands below `if TYPE_CHECKING` is not imported.
    """
    names: set[str] = set()
    tree = ast.parse(modules()[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def reach(package: str) -> set[str]:
    """Top names, and modules of ours, that the package's modules import, directly or not."""
    pending = [m for m in modules() if m == package or m.startswith(f"{package}.")]
    assert pending, f"no module below {package}"
    seen: set[str] = set()
    tops: set[str] = set()
    while pending:
        module = pending.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imported_by(module):
            tops.add(name.partition(".")[0])
            pending += [m for m in _with_parents(name) if m in modules()]
    return seen | (tops - set(sys.stdlib_module_names))


def _with_parents(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def foreign(names: Iterable[str]) -> set[str]:
    """The third-party packages among `names`."""
    return {name for name in names if "." not in name} - set(PACKAGES)


def test_there_are_modules_to_look_at() -> None:
    """A walk over a wrong folder would find nothing wrong."""
    counts = {p: sum(m.startswith(f"{p}.") for m in modules()) for p in PACKAGES}
    assert counts["search_spaces"] >= 5
    assert counts["supernet"] >= 10
    assert counts["glora_search"] >= 15
    assert "torch" in imported_by("supernet.layer")
    assert "torch" in reach("glora_search.evaluating"), "by way of supernet"


def test_search_spaces_need_the_standard_library_alone() -> None:
    names = reach("search_spaces")
    assert foreign(names) == set()
    assert {name.partition(".")[0] for name in names} == {"search_spaces"}


def test_the_network_knows_nothing_of_the_service() -> None:
    """It trains on a GPU machine that has neither Ray nor Optuna."""
    names = reach("supernet")
    assert foreign(names) <= NETWORK | EXTRAS
    assert not any(name.startswith("glora_search") for name in names)


@pytest.mark.slow
def test_extras_are_imported_where_they_are_needed() -> None:
    """Without them everything else works: nothing imports one when it is imported itself."""
    found = 0
    for module, path in modules().items():
        for node in ast.walk(tree := ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports_one = bool(EXTRAS & set(ast.unparse(node).replace(".", " ").split()))
                found += imports_one
                assert not (imports_one and node in tree.body), module
    assert found >= 1


ROOMS: dict[str, set[str]] = {  # each may import those named with it, all of which stand above it
    "study": set(),
    "proposing": {"study"},
    "recording": {"study"},
    "cluster": {"study", "recording"},
    "evaluating": {"study", "cluster"},
    "stages": {"study", "proposing", "recording", "cluster", "evaluating"},
    "reporting": {"study", "recording"},
    "bench": {"study", "proposing", "cluster", "evaluating", "stages"},
    "operations": {
        *("study", "recording", "cluster", "evaluating", "stages", "reporting", "bench"),
    },
    "server": {"study", "recording", "reporting", "operations"},
    "client": {"study"},
    "cli": {"study", "recording", "stages", "operations", "server", "client"},
}
"""The rooms of the service, from the lowest to the highest."""

DOORS: dict[str, set[str]] = {  # what other rooms may import of a room; of the others, anything
    "proposing": {""},
    "recording": {"", "storage_url", "batch_writer", "shielding"},
    "evaluating": {"", "in_process", "package", "ray_actors", "results"},
    "reporting": {  # what writes the report, and the data that the page of the service shares
        *("", "blocks", "course", "formatting", "frequencies", "marks", "snapshot", "summary"),
        *("tokens", "trials"),
    },
    "bench": {
        *("ahead", "data_check", "layout", "plan", "power", "published", "recipes", "runs"),
        *("schedule", "suite_plan", "suites", "table", "statistics"),
        *("science.designs", "science.plan", "science.scale", "science.tables"),
    },
    "server": {"app", "serving", "settings"},
    "client": {""},
    "cli": {"commands"},
}


def room_of(module: str) -> str:
    """The room of a module of the service; empty for its root."""
    return module.split(".")[1] if module.startswith("glora_search.") else ""


def imports_of(room: str) -> Iterable[tuple[str, str]]:
    """(module, module of the service that it imports) for all modules of a room."""
    for module in modules():
        if room_of(module) == room:
            for name in imported_by(module):
                if name in modules() and name.startswith("glora_search."):
                    yield module, name


def test_every_room_is_on_the_map() -> None:
    """And there are at most twelve: ten of the service, and two more doors for its users, the
    server and its client.
    """
    assert {room_of(m) for m in modules() if room_of(m)} == {*ROOMS, "__main__"}
    assert len(ROOMS) <= 12
    files = {p.name for p in (ROOT / "glora_search").iterdir() if p.is_file()}
    assert files == {"__init__.py", "__main__.py", "py.typed"}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way_through_doors(room: str) -> None:
    lower = list(ROOMS)[: list(ROOMS).index(room)]
    assert ROOMS[room] <= set(lower), "the map itself goes one way"
    found = list(imports_of(room))
    assert found or room == "study"
    for module, imported in found:
        other = room_of(imported)
        if other == room:
            continue
        assert other in ROOMS[room], f"{module} imports {imported}"
        part = imported.removeprefix(f"glora_search.{other}").removeprefix(".")
        assert part in DOORS.get(other, {part}), f"{module} imports {imported}, which is no door"


def test_the_network_has_narrow_doors() -> None:
    """Whoever needs data imports `supernet.data`; whoever needs a method, `supernet.methods`."""
    for module in modules():
        for name in imported_by(module):
            for room in ("supernet.data", "supernet.methods"):
                if name.startswith(f"{room}.") and name in modules():
                    assert module.startswith(room), f"{module} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_circle(package: str) -> None:
    """Between modules, imports within functions included; a package's own door aside."""
    mine = [m for m in modules() if m == package or m.startswith(f"{package}.")]
    edges = {m: {n for n in imported_by(m) if not f"{m}.".startswith(f"{n}.")} for m in mine}
    while leaves := [m for m, found in edges.items() if not found & edges.keys()]:
        for leaf in leaves:
            del edges[leaf]
    assert not edges, f"modules that import one another: {', '.join(edges)}"


@pytest.mark.parametrize(
    ("package", "excluded"),
    [
        ("study", {*MODELS, "ray", "optuna", "sqlalchemy"}),
        ("proposing", {*MODELS, "ray", "sqlalchemy"}),
        ("recording", {*MODELS, "ray"}),
        ("evaluating", {"optuna", "sqlalchemy"}),
        ("reporting", {*MODELS, "ray"}),
    ],
)
def test_rooms_do_without_what_others_need(package: str, excluded: set[str]) -> None:
    """Proposing needs no torch, evaluating no database: directly or not."""
    assert not reach(f"glora_search.{package}") & excluded


def test_predicting_needs_neither_database_nor_cluster() -> None:
    """An export runs on machines that have nothing but the network's package."""
    names = reach("glora_search.operations.predicting") | reach("glora_search.cli.predict_verb")
    assert "torch" in names
    assert not names & {"ray", "optuna", "sqlalchemy"}


def test_the_loop_needs_neither_network_nor_cluster() -> None:
    """It joins three protocols, so it is tested with a table of known fitness."""
    direct = {name.partition(".")[0] for name in imported_by("glora_search.stages.search_loop")}
    assert not direct & {*MODELS, "ray", "optuna", "sqlalchemy"}


# In processes of their own

_TRAIN_WITHOUT_THE_SERVICE = """
import sys

absent = ("ray", "optuna", "sqlalchemy", "pydantic", "click", "rich", "plotly", "glora_search")


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ImportError(f"{name} is blocked")


sys.meta_path.insert(0, Blocked())
for name in absent:
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} can be imported")

import torch
import search_spaces, supernet, supernet.export
from supernet.data import DigitsSource, load_search_splits

torch.set_num_threads(1)
args = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 1, "num_heads": 2}
architecture = supernet.Architecture("vit_tiny_patch16_224", 5, args)
model = architecture.build()
preprocessing = supernet.Preprocessing.from_model(model)
train, val = load_search_splits(DigitsSource(n_train=10, n_val=10), preprocessing)
layers = supernet.find_layers(model, architecture=architecture)
space = search_spaces.SearchSpace(layers, search_spaces.load_preset("digits").choices)
network = supernet.Supernet(model, space)
before = {name: tensor.clone() for name, tensor in network.trainable_state().items()}
supernet.train_supernet(network, train, supernet.Recipe(epochs=1, lr=1e-2), seed=0)
assert any(not torch.equal(before[name], t) for name, t in network.trainable_state().items())
(evaluation,) = supernet.evaluate_subnets(network, [space.max_subnet()], val)
print("trained and evaluated", evaluation.n_images)
assert not set(absent) & set(sys.modules)
"""

_HELP = """
import sys, json
from glora_search.cli.commands import cli

cli.main(["--help"], standalone_mode=False)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""

_SERVE = """
import sys, json
from pathlib import Path
from glora_search.server.app import make_app
from glora_search.server.settings import ServerSettings

make_app(ServerSettings(storage="sqlite:///none.db", root=Path("none")))
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def python(code: str) -> list[str]:
    """The lines that a new process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_network_trains_where_the_service_cannot_be_imported() -> None:
    assert python(_TRAIN_WITHOUT_THE_SERVICE) == ["trained and evaluated 10"]


@pytest.mark.slow
def test_a_server_starts_without_what_studies_need() -> None:
    """It is ready in seconds and small: networks, clusters and figures are other processes'."""
    (loaded,) = python(_SERVE)
    assert not {*MODELS, "ray", "plotly", "pandas", "sklearn"} & set(json.loads(loaded))
    assert "fastapi" in json.loads(loaded)


def test_help_answers_at_once() -> None:
    """It loads nothing that is slow to load."""
    *help_text, loaded = python(_HELP)
    slow = {"torch", "timm", "ray", "optuna", "pydantic", "sqlalchemy", "plotly", "numpy"}
    assert not slow & set(json.loads(loaded))
    assert "click" in json.loads(loaded)
    assert any("launch" in line for line in help_text)
