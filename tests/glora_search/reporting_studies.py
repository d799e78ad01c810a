"""Studies for the tests of `glora_search.reporting`: really recorded, of synthetic outcomes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from glora_search.recording import Database, StudyRecord
from glora_search.study.objectives import BY_LOSS, Objectives
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import LayerSpec, SearchSpace, SubnetConfig

CHOICES = {
    "A": ("lora_4", "lora_2", "vector", "constant", "none"),
    "B": ("lora_4", "lora_2", "vector", "constant", "none"),
    "C": ("lora_2", "vector", "none"),
    "D": ("vector", "constant", "none"),
    "E": ("vector", "constant", "none"),
}

VIT = SearchSpace(
    [
        LayerSpec(f"blocks.{block}.{kind}", i, o, bias=True)
        for block in range(4)
        for kind, i, o in (
            ("attn.qkv", 8, 24),
            ("attn.proj", 8, 8),
            ("mlp.fc1", 8, 32),
            ("mlp.fc2", 32, 8),
        )
    ],
    CHOICES,
)

SWIN = SearchSpace(
    [
        LayerSpec("layers.0.blocks.0.attn.qkv", 8, 24, bias=True),
        LayerSpec("layers.0.blocks.1.attn.qkv", 8, 24, bias=True),
        LayerSpec("layers.1.downsample.reduction", 32, 16, bias=False, can_add_bias=False),
        LayerSpec("layers.1.blocks.0.attn.qkv", 16, 48, bias=True),
        LayerSpec("layers.1.blocks.0.attn.proj", 16, 16, bias=True),
    ],
    CHOICES,
)

ONE_LAYER = SearchSpace([LayerSpec("fc", 6, 5, bias=False)], CHOICES)

HOSTILE = '</script><script>alert("x")</script><img src="http://example.org/a.png"> & \udc80 \u00e9'


def outcome(
    number: int,
    *,
    space: SearchSpace = VIT,
    per_generation: int = 10,
    subnet: SubnetConfig | None = None,
    n_params: int | None = None,
    loss: float | None = None,
    top1: float | None = None,
    operator: str | None = None,
    error_type: str | None = None,
    error: str | None = None,
) -> Outcome:
    """The outcome at a place; what is not given is drawn, the same for the same number."""
    rng = random.Random(number)
    generation, index = divmod(number, per_generation)
    chosen = subnet or space.sample(rng)
    candidate = Candidate(
        generation=generation,
        index=index,
        operator=operator
        or ("random", "mutation", "crossover")[0 if not generation else 1 + index % 2],
        parents=(),
        subnet=chosen,
        n_params=space.n_params(chosen) if n_params is None else n_params,
    )
    failed = error_type is not None
    drawn = 0.4 + rng.random() / (1 + generation)
    return Outcome(
        candidate=candidate,
        loss=None if failed else (drawn if loss is None else loss),
        top1=None if failed else (round(200 * (1 - drawn / 2)) / 200 if top1 is None else top1),
        eval_s=0.25,
        worker=f"node:{number % 2}",
        error_type=error_type,
        error=error,
    )


def outcomes(number: int, *, space: SearchSpace = VIT, per_generation: int = 10) -> list[Outcome]:
    """The first outcomes of a study."""
    return [outcome(k, space=space, per_generation=per_generation) for k in range(number)]


@contextmanager
def recorded(
    folder: Path,
    found: Sequence[Outcome] = (),
    *,
    space: SearchSpace = VIT,
    objectives: Objectives = BY_LOSS,
    attributes: Mapping[str, Any] | None = None,
) -> Iterator[StudyRecord]:
    """A study in an SQLite file of its own that holds `found`."""
    with Database.open(f"sqlite:///{folder / 'studies.db'}", create=True) as database:
        record = database.create_study(
            "sample", space=space, objectives=objectives, attributes=attributes or {}
        )
        if found:
            with record.hold():
                record.flush(found)
        yield record


class Page(HTMLParser):
    """A page as a browser's parser sees it: tags, visible text, styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words = ""
        self._inside = ""
        self.feed(text)
        self.close()
        self.words = " ".join(self.words.split())

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag in ("td", "th", "p", "li", "h1", "h2", "h3", "dt", "dd"):
            self.words += " "

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside == "style":
            self.styles.append(data)
        else:
            self.words += data

    def ids(self) -> set[str]:
        """The anchors and other names in the page."""
        return {attributes["id"] or "" for _, attributes in self.tags if "id" in attributes}

    def figures(self) -> list[str]:
        """The names of the places for figures, in the order of the page."""
        return [
            attributes["id"] or ""
            for _, attributes in self.tags
            if attributes.get("class") == "plotly-graph-div"
        ]
