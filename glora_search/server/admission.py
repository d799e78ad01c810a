"""Checks study files that users send: they must not name files, commands or machines of others.

`glora_search.study.path_keys` lists every key of a study file that is a path. The lists in this
module name every key that becomes a part of a path, and what it may contain. A test compares all
lists with the sections of a study file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from glora_search.operations.served_exports import FOLDER
from glora_search.server.documents import read_overrides
from glora_search.server.settings import ServerSettings
from glora_search.study import path_keys
from glora_search.study.errors import Mistake, StudyFileError
from glora_search.study.reading import check_overrides, parse_study
from glora_search.study.toml_text import value_text

MACHINES: Final = ("cluster.address",)

NAMES: Final = ("task", "train", "val", "test", "dataset", "domain", "name")
"""Keys of [data] that are parts of paths, or names that timm looks up."""

SPLITS: Final = ("train_split", "val_split", "test_split")
"""Keys of [data] that timm takes apart."""

FREE: Final = (
    *("study.name", "space.preset", "space.patterns", "supernet.device", "search.objectives"),
)
"""Texts with checks of their own, which name no file."""

OWN_FOLDERS: Final = ("supernets", "backbones")
"""Names of folders in a root that are no study's."""

_DATA: Final = ("data", "backbone.pretrain.data")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-/]{0,199}")
_SPLIT: Final = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}(\[[0-9:%]{0,30}\])?)?")
_MODEL: Final = re.compile(r"[A-Za-z0-9_.\-]{1,200}")
_WORD: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_ARGUMENT: Final = re.compile(r"(?!checkpoint|pretrained|cache|features)[a-z][a-z0-9_]{0,63}")
_TIMM_SOURCES: Final = ("torch", "hfds", "hfids", "folder", "")
"""Those that read neither shell commands nor URLs out of a study file, as webdataset would."""


def admitted(table: Mapping[str, Any], settings: ServerSettings) -> dict[str, Any]:
    """A study file that may run here: its paths absolute, its directory the server's.

    Args:
        table: The study file as nested dictionaries.
        settings: What the server allows.

    Raises:
        StudyFileError: All mistakes of the study file, and all that it may not have.
    """
    own: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in table.items()
    }
    mistakes = list(_refusals(own, settings))
    if isinstance(own.setdefault("study", {}), dict):
        own["study"]["directory"] = str(settings.root)
    try:
        parse_study(own, origin="the study")
    except StudyFileError as error:
        named = {mistake.key for mistake in mistakes}
        mistakes = [m for m in error.mistakes if m.key not in named] + mistakes
    if mistakes:
        raise StudyFileError.of("the study", mistakes)
    return own


def admitted_overrides(
    overrides: Sequence[str], study: str, settings: ServerSettings
) -> tuple[str, ...]:
    """Overrides of a study that is resumed here: their paths absolute.

    Args:
        overrides: `section.key=value`, as `resume` accepts them.
        study: The study's name.
        settings: What the server allows.

    Raises:
        StudyFileError: One that a resume does not accept, or that names what is not the study's.
    """
    check_overrides(overrides)
    table = {"study": {"name": study}, **read_overrides(overrides)}
    if mistakes := list(_refusals(table, settings)):
        raise StudyFileError.of("the resumed study", mistakes)
    del table["study"]
    return tuple(
        f"{section}.{key}={value_text(value)}"
        for section, values in table.items()
        for key, value in values.items()
    )


def _refusals(table: dict[str, Any], settings: ServerSettings) -> Iterator[Mistake]:
    name = _get(table, "study.name")
    if name in OWN_FOLDERS:
        yield _mistake("study.name", name, "the server keeps a folder of that name")
    directory = _get(table, "study.directory")
    if directory is not None and directory != str(settings.root):
        yield _mistake("study.directory", directory, "the server decides; leave it out")
    for key in path_keys.READ:
        yield from _read(table, key, settings)
    yield from _exported(table, settings, name)
    yield from _artifacts(table, settings)
    address = _get(table, "cluster.address")
    if address is not None:
        if address != settings.address:
            yield _mistake("cluster.address", address, "the server decides; leave it out")
        table["cluster"].pop("address")
    yield from _model(table)
    for section in _DATA:
        yield from _names(table, section)


def _read(table: dict[str, Any], key: str, settings: ServerSettings) -> Iterator[Mistake]:
    given = _get(table, key)
    if given is None:
        return
    places = (*settings.data_roots, settings.root)
    path = _resolved(given, places[0])
    if path is None or not any(path.is_relative_to(place.resolve()) for place in places):
        allowed = "a path in a folder that --data-root names, without '..'"
        yield _mistake(key, given, f"not one of the server's data; accepted: {allowed}")
    else:
        _set(table, key, str(path))


def _exported(table: dict[str, Any], settings: ServerSettings, name: object) -> Iterator[Mistake]:
    given = _get(table, "export.directory")
    if given is None:
        return
    own = settings.root.resolve() / str(name)
    path = _resolved(given, own)
    theirs = path is not None and path != own and path.is_relative_to(own)
    if path is None or not theirs or path.relative_to(own).parts[0] == FOLDER:
        yield _mistake("export.directory", given, "accepted: a name in the study's own folder")
    else:
        _set(table, "export.directory", str(path))


def _artifacts(table: dict[str, Any], settings: ServerSettings) -> Iterator[Mistake]:
    given = _get(table, "cluster.artifacts")
    if given is None:
        return
    known = isinstance(given, str) and ".." not in given and "%" not in given
    if not known or not any(f"{given}/".startswith(f"{p}/") for p in settings.artifacts):
        allowed = ", ".join(settings.artifacts) or "none; leave it out"
        yield _mistake("cluster.artifacts", given, f"accepted: {allowed}")


def _model(table: dict[str, Any]) -> Iterator[Mistake]:
    model = _get(table, "backbone.model")
    if isinstance(model, str) and not _MODEL.fullmatch(model):
        yield _mistake("backbone.model", model, "accepted: a name of timm's, without ':' and '/'")
    arguments = _get(table, "backbone.args")
    for key, value in (arguments if isinstance(arguments, Mapping) else {}).items():
        if not _ARGUMENT.fullmatch(key):
            yield _mistake(f"backbone.args.{key}", value, "a server does not accept this argument")
        elif not _is_plain(value):
            accepted = "accepted: numbers, true, false, lists of them, and single words"
            yield _mistake(f"backbone.args.{key}", value, accepted)


def _names(table: dict[str, Any], section: str) -> Iterator[Mistake]:
    data = _get(table, section)
    if not isinstance(data, Mapping):
        return
    for key in NAMES:
        value = data.get(key)
        if isinstance(value, str) and not (_NAME.fullmatch(value) and _stays(value)):
            yield _mistake(f"{section}.{key}", value, "accepted: a name, without '..' and '//'")
    for key in SPLITS:
        value = data.get(key)
        if isinstance(value, str) and not (_SPLIT.fullmatch(value) and _stays(value)):
            yield _mistake(f"{section}.{key}", value, 'accepted: such as "train" or "train[:80%]"')
    if data.get("source") == "timm":
        kind = str(data.get("name", "")).lower().partition("/")[0]
        if kind not in _TIMM_SOURCES:
            accepted = "accepted here: torch/NAME, hfds/NAME, hfids/NAME, folder"
            yield _mistake(f"{section}.name", data.get("name"), accepted)


def _stays(name: str) -> bool:
    return ".." not in name and "//" not in name


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return bool(_WORD.fullmatch(value))
    if isinstance(value, list):
        return all(isinstance(item, bool | int | float) for item in value)
    return value is None or isinstance(value, bool | int | float)


def _resolved(given: object, base: Path) -> Path | None:
    """The path with symbolic links followed; None for what is no path or climbs."""
    if not isinstance(given, str) or not given or not given.isprintable() or len(given) > 1000:
        return None
    path = Path(given)
    if ".." in path.parts or given.startswith("~"):
        return None
    try:
        return (base / path).resolve()
    except (OSError, RuntimeError, ValueError):
        return None


def _mistake(key: str, value: object, why: str) -> Mistake:
    shown = repr(value)
    return Mistake(key, f"{key} = {shown if len(shown) <= 60 else shown[:59] + '…'}: {why}")


def _get(table: Mapping[str, Any], key: str) -> Any:
    value: Any = table
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _set(table: dict[str, Any], key: str, value: str) -> None:
    *path, last = key.split(".")
    for part in path:
        table[part] = dict(table[part])  # the request's own tables stay as they are
        table = table[part]
    table[last] = value
