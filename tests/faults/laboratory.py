"""What a fault is measured with: the program, the run that nobody disturbed, and the verdict."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from program import Program

Sections: TypeAlias = dict[str, dict[str, Any]]


class NotHereError(Exception):
    """The fault cannot be injected on this machine; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a study.

    Args:
        injected: How many faults.
        survived: After how many of them it went on, by itself or by `resume`.
        reported: Candidates that the database showed at some time before the end.
        lost: Of these, how many are not there at the end, or are otherwise.
        duplicated: Trials at a place (generation, index) that another trial has.
        same: Whether all outcomes and the exported weights are those of an undisturbed run.
        seconds: How long it all took.
        told: What the program said, where it ended.
    """

    injected: int
    survived: int
    reported: int
    lost: int
    duplicated: int
    same: bool
    seconds: float
    told: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing went wrong that should not have."""
        return (
            self.injected == self.survived > 0
            and not (self.lost or self.duplicated)
            and (self.same)
        )


class Laboratory:
    """Makes programs and judges them.

    Args:
        folder: For all files.
        full: As many and as long faults as the table is made of; else a short version.
        seed: Of whatever is random here.
    """

    def __init__(self, folder: Path, *, full: bool, seed: int = 0) -> None:
        self._folder, self.full, self._seed = folder, full, seed
        self._undisturbed: dict[str, tuple[list[Any], bytes]] = {}
        self._made = 0

    @property
    def sections(self) -> Sections:
        """What the study of a fault differs in from the tiny study: long enough to be disturbed."""
        length = 20 if self.full else 8
        return {
            "supernet": {"epochs": length},
            "search": {"generations": length, "flush_every": 3, "flush_s": 0.2},
        }

    @property
    def n_subnets(self) -> int:
        """How many a study of these sections evaluates."""
        return 8 * (1 + int(self.sections["search"]["generations"]))

    def random(self, name: str) -> random.Random:
        """A generator for the moments of one fault."""
        return random.Random(f"{self._seed}/{name}")

    def folder(self, name: str) -> Path:
        """A new one."""
        self._made += 1
        path = self._folder / f"{self._made}-{name}"
        path.mkdir(parents=True)
        return path

    def program(
        self,
        name: str,
        sections: Sections,
        *,
        storage: str | None = None,
        fault: dict[str, Any] | None = None,
    ) -> Program:
        """A study in a folder of its own."""
        return Program(self.folder(name), sections, storage=storage, fault=fault)

    def undisturbed(
        self, sections: Sections, fault: dict[str, Any] | None = None
    ) -> tuple[list[Any], bytes]:
        """Outcomes and exported weights of a run in one process that nobody disturbs.

        Args:
            sections: Of the study; where it runs and where it writes is left out.
            fault: Only of subnets, not of processes.
        """
        plain = {k: dict(v) for k, v in sections.items() if k not in ("cluster", "export")}
        plain.get("study", {}).pop("directory", None)
        key = json.dumps([plain, fault], sort_keys=True)
        if key not in self._undisturbed:
            program = self.program("undisturbed", plain, fault=fault)
            program.launch().succeed()
            self._undisturbed[key] = _sorted(program.recorded()), _weights(program)
        return self._undisturbed[key]

    def judge(
        self,
        program: Program,
        expected: tuple[list[Any], bytes],
        reported: set[tuple[Any, ...]],
        *,
        injected: int,
        survived: int,
        since: float,
        told: str = "",
    ) -> Verdict:
        """The verdict on a study that is complete."""
        final = program.recorded()
        places = [outcome[:2] for outcome in final]
        return Verdict(
            injected=injected,
            survived=survived,
            reported=len(reported),
            lost=len(reported - set(final)),
            duplicated=len(places) - len(set(places)),
            same=(_sorted(final), _weights(program)) == expected,
            seconds=round(time.monotonic() - since, 1),
            told=told,
        )


def _sorted(outcomes: list[tuple[Any, ...]]) -> list[Any]:
    return sorted(outcomes, key=lambda outcome: outcome[:2])


def _weights(program: Program) -> bytes:
    return (program.export / "model.safetensors").read_bytes()


Fault: TypeAlias = Callable[[Laboratory], Verdict]
