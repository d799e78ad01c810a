"""Read a study file strictly: unknown keys and wrong values are errors, all of them at once.

TOML, with the sections of `study_file`. Relative paths are relative to the working directory; they
are made absolute, so that a study can be resumed from anywhere.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import pydantic
from pydantic import BaseModel

from glora_search.study.credentials import holds_password, scrubbed, without_password
from glora_search.study.data_sections import SOURCES
from glora_search.study.errors import Mistake, StudyFileError
from glora_search.study.place_sections import ClusterSection, ExportSection
from glora_search.study.presets import as_stored, with_preset
from glora_search.study.study_file import StudyFile
from glora_search.study.sweep_section import CHOICES, RANGE, SWEPT

RESUMABLE_KEYS: Final = (
    *(f"cluster.{name}" for name in ClusterSection.model_fields),
    *("search.max_failures", "search.flush_every", "search.flush_s"),
    *("supernet.device", "supernet.checkpoint_every_s"),
    *(f"supernet.{name}" for name in ("cpus_per_worker", "gpus_per_worker", "max_restarts")),
    *(f"export.{name}" for name in ExportSection.model_fields),
)
"""What may differ between a launch and its resume: none of it changes what a search finds."""


def load_study_file(path: Path, overrides: Iterable[str] = ()) -> StudyFile:
    """Read a study file.

    Args:
        path: A TOML file.
        overrides: `section.key=value`, the value in TOML (a bare word is taken as a string).

    Raises:
        StudyFileError: The file cannot be read, is not TOML, or has unknown keys or wrong values;
            the message has one line for each mistake.
    """
    table = read_study_table(path)
    apply_overrides(table, overrides)
    return parse_study(table, origin=str(path))


def read_study_table(path: Path) -> dict[str, Any]:
    """A study file as nested dictionaries, not checked yet.

    Raises:
        StudyFileError: The file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyFileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyFileError(f"{path} is not TOML: {error}") from error


def apply_overrides(table: dict[str, Any], overrides: Iterable[str]) -> None:
    """Set keys of a study's table, each given as `section.key=value`.

    Raises:
        StudyFileError: One that is not understood.
    """
    for override in overrides:
        _set(table, override)


def resumed_study(file: StudyFile, overrides: Iterable[str]) -> StudyFile:
    """A stored study with overrides of RESUMABLE_KEYS.

    Raises:
        StudyFileError: An override of another key, or a wrong value.
    """
    overrides = tuple(overrides)
    check_overrides(overrides)
    table = file.model_dump(mode="json")
    apply_overrides(table, overrides)
    return parse_study(table, origin="the resumed study")


def check_overrides(overrides: Iterable[str]) -> None:
    """Check overrides for `resume` as far as possible without the study.

    Raises:
        StudyFileError: One of a key that is not among RESUMABLE_KEYS, or with a password in a URL.
    """
    for override in overrides:
        key, _, value = (part.strip() for part in override.partition("="))
        if key not in RESUMABLE_KEYS:
            raise StudyFileError(
                f"{without_password(key)} cannot change when a study is resumed; "
                f"accepted: {', '.join(RESUMABLE_KEYS)}"
            )
        if "://" in value and holds_password(value):
            raise StudyFileError(f"{key} = {without_password(value)!r} holds a password")


def stored_study(document: Mapping[str, Any]) -> StudyFile:
    """The resolved study that is stored with a study in the database."""
    return parse_study(as_stored(document), origin="the study in the database")


def parse_study(table: Mapping[str, Any], *, origin: str) -> StudyFile:
    """Check a study given as nested mappings.

    Raises:
        StudyFileError: One line for each mistake: its key, the value received, what is accepted,
            and for an unknown key the nearest valid one.
    """
    try:
        # JSON semantics let a stored or written "path" string be a Path, an int be a float; else
        # strict.
        return StudyFile.model_validate_json(json.dumps(with_preset(table), default=str))
    except pydantic.ValidationError as error:
        mistakes = [_mistake(problem) for problem in error.errors(include_url=False)]
        raise StudyFileError.of(origin, mistakes) from None


def _set(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or len(path) < 2 or not all(path):
        raise StudyFileError(
            f"--set {without_password(override)!r} is not understood; expected section.key=value, "
            "such as search.generations=5"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise StudyFileError(f"--set {key.strip()}: {part!r} is a value, not a table")
    table[path[-1]] = value


def _mistake(problem: Mapping[str, Any]) -> Mistake:
    # Pydantic puts the chosen source, or the chosen form of a swept key, into the place.
    tags = {
        "data": SOURCES,
        **{k: {CHOICES, RANGE} for k in SWEPT},
    }
    place = [str(part) for part in problem["loc"]]
    place = [p for k, p in enumerate(place) if not (k and p in tags.get(place[k - 1], ()))]
    key = ".".join(place)
    if problem["type"] == "extra_forbidden":
        valid = sorted(_keys_at(problem["loc"][:-1]))
        near = difflib.get_close_matches(place[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"accepted: {', '.join(valid)}"
        return Mistake(key, f"{key} = {_shown(problem['input'])}: unknown key; {hint}")
    if problem["type"] == "missing":
        return Mistake(key, f"{key}: missing; this key is required")
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message[1:2].islower() else message
    return Mistake(key, f"{key} = {_shown(problem['input'])}: {message}")


def _shown(value: object, most: int = 60) -> str:
    if isinstance(value, str):
        text = json.dumps(without_password(value))
    else:
        text = scrubbed(json.dumps(value, default=str))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _keys_at(loc: Sequence[int | str]) -> set[str]:
    """The valid keys of the table at a place in the file."""
    kinds: list[type[BaseModel]] = [StudyFile]
    for part in loc:
        fields = [kind.model_fields[part] for kind in kinds if part in kind.model_fields]
        if fields:
            kinds = [kind for field in fields for kind in _sections_in(field.annotation)]
        else:  # the tag of a data source
            kinds = [k for k in kinds if _source_of(k) == part] or kinds
    return {name for kind in kinds for name in kind.model_fields}


def _source_of(kind: type[BaseModel]) -> str | None:
    field = kind.model_fields.get("source")
    return typing.get_args(field.annotation)[0] if field else None


def _sections_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        return [s for part in typing.get_args(annotation) for s in _sections_in(part)]
    return []
