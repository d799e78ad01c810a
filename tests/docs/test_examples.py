"""Every example of the README and the docs: Python runs, TOML is read, command lines are parsed."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import torch
from PIL import Image
from server_here import serving_forks
from tiny_study import ARGS, MODEL, study_table, write_study

from glora_search import export, launch, load_study_file
from glora_search.cli import remote_verbs
from glora_search.cli.commands import cli
from glora_search.server.settings import ServerSettings
from glora_search.study.reading import parse_study
from supernet import Architecture
from supernet.backbones import load_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ADDRESS = "http://127.0.0.1:8484"  # of the server in examples
KINDS = {"python", "toml"}  # what is tried below
_FENCE = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_INDENTED = re.compile(r"^ {4}(?:from|import|with|\[\w+\])(?: .*)?$", re.MULTILINE)
_FENCE_LINE = re.compile(r"^[ >]*(?:```|~~~)", re.MULTILINE)
_COMMAND = re.compile(r"^ {4}(?P<line>glora-search [^#\n]*)", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block, with the remark in the comment above it."""

    page: str
    number: int
    kind: str
    text: str
    note: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks(kind: str) -> list[Block]:
    """All blocks of a kind, in the order in which they are read."""
    return [
        block
        for page in PAGES
        for block in blocks_of(page.name, page.read_text())
        if block.kind == kind
    ]


def blocks_of(page: str, text: str) -> list[Block]:
    """All fenced blocks of a page."""
    return [
        Block(page, number, found["kind"], found["text"], found["note"] or "")
        for number, found in enumerate(_FENCE.finditer(text))
    ]


def untried(page: str, text: str) -> list[str]:
    """The fenced blocks of a page that no test below tries."""
    found = blocks_of(page, text)
    faults = [
        f"{block}: {block.kind or 'no language'}" for block in found if block.kind not in KINDS
    ]
    if len(_FENCE_LINE.findall(text)) != 2 * len(found):
        faults.append(f"{page}: a fence that is not understood")
    faults += [
        f"{page}: not in a fence: {line.strip()}"
        for line in _INDENTED.findall(_FENCE.sub("", text))
    ]
    return faults


def commands() -> list[tuple[str, list[str]]]:
    """(page, words) of every command line of glora-search."""
    return [
        (page.name, shlex.split(found["line"].partition(">")[0])[1:])
        for page in PAGES
        for found in _COMMAND.finditer(page.read_text())
    ]


def test_there_are_examples() -> None:
    assert len(PAGES) >= 12
    assert len(blocks("python")) >= 6
    assert len(blocks("toml")) >= 4
    assert len(commands()) >= 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_tried(page: Path) -> None:
    assert untried(page.name, page.read_text()) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```\nls\n```\n", ["p-0: no language"]),
        ("```python\n1\n```\n\n```\nls\n```\n", ["p-1: no language"]),
        ("```bash\nls\n```\n", ["p-0: bash"]),
        ("``` python\n1\n```\n", ["p: a fence that is not understood"]),
        ("  ```python\n  1\n  ```\n", ["p: a fence that is not understood"]),
        ("~~~python\n1\n~~~\n", ["p: a fence that is not understood"]),
        ("    import os\n", ["p: not in a fence: import os"]),
        ("    [search]\n    population = 8\n", ["p: not in a fence: [search]"]),
        ("<!-- continues -->\n```python\n1\n```\n\n```toml\n```\n", []),
    ],
)
def test_a_block_that_nothing_tries_is_found(text: str, told: list[str]) -> None:
    assert untried("p", text) == told


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the examples name: a study file, the export of a finished study, an
    image.
    """
    folder = tmp_path_factory.mktemp("docs")
    with contextlib.chdir(folder):
        finished = load_study_file(write_study(folder))
        launch(finished, storage="sqlite:///glora-search.db")
        for directory, trial in {"my-vit": None, "my-birds": 0, "my-flowers": 1}.items():
            formats = ["onnx", "pt2"] if directory == "my-vit" else []
            storage = "sqlite:///glora-search.db"
            export("tiny", Path(directory), trial=trial, formats=formats, storage=storage)
        Path("photos").mkdir()
        Image.linear_gradient("L").resize((30, 20)).save("photos/photo.png")
        write_study(folder, study={"name": "tiny", "directory": str(folder / "examples")})
        yield folder


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(
    block: Block, workplace: Path, namespaces: dict[str, dict[str, object]]
) -> None:
    """Each in a namespace of its own, but for one that continues the block before it."""
    variables = namespaces.get(block.page, {}) if block.note == "continues" else {}
    if block.note == "given: a backbone and images":
        variables = given()
    namespaces[block.page] = variables
    with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as stack:
        text = block.text
        if block.note == "given: a server":
            text = text.replace(ADDRESS, stack.enter_context(small_study(workplace / str(block))))
        exec(compile(text, f"{block.page}, block {block.number}", "exec"), variables)


@contextlib.contextmanager
def small_study(folder: Path) -> Iterator[str]:
    """The address of a server, in a folder with a study file that it accepts."""
    (folder / "data").mkdir(parents=True)
    file = write_study(folder / "data").rename(folder / "study.toml")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("directory")))
    settings = ServerSettings(
        storage=f"sqlite:///{folder / 'studies.db'}",
        root=folder / "runs",
        data_roots=(folder / "data",),
    )
    settings.root.mkdir()
    with serving_forks(settings) as (address, _), contextlib.chdir(folder):
        yield address


def given() -> dict[str, object]:
    """What a reader has before a block that is too short to make it: the backbone of the study."""
    architecture = Architecture(MODEL, 3, ARGS)
    backbone = load_checkpoint(architecture, Path("backbone.safetensors"))
    return {"backbone": backbone, "images": torch.randn(3, 1, 8, 8)}


@pytest.fixture(scope="module")
def namespaces() -> dict[str, dict[str, object]]:
    """Page to the variables of its last block."""
    return {}


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_is_a_study_file(block: Block, tmp_path: Path) -> None:
    """A whole one, or sections that fit into one."""
    table = tomllib.loads(block.text)
    if block.note == "sections of a study file":
        table = {**study_table(tmp_path), **table}
    parse_study(table, origin=str(block))


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda value: str(value)[:60])
def test_command_lines_are_understood(page: str, words: list[str]) -> None:
    """Verbs, arguments and options exist; nothing is run."""
    command, verb, rest = cli, "glora-search", words
    if rest[:1] == ["--server"]:
        command = click.Group(commands=remote_verbs.VERBS)
        rest = rest[2:]
    while isinstance(command, click.Group) and rest[:1] != ["--help"]:
        verb, *rest = rest
        command = command.commands[verb]
    with contextlib.suppress(click.exceptions.Exit):  # --help
        command.make_context(verb, rest)


def test_the_table_of_pages_is_complete() -> None:
    """Every page is in the README's table and in the navigation."""
    readme, navigation = (ROOT / "README.md").read_text(), (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"{page.relative_to(ROOT / 'docs')}" in navigation
        assert page.name == "index.md" or f"(docs/{page.name})" in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
