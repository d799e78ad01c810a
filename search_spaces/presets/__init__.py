"""Search spaces that come with the package: one TOML file each, named after the preset."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from importlib import resources

from search_spaces.errors import InvalidConfigError


@dataclass(frozen=True)
class Preset:
    """A named set of choices.

    Args:
        name: The file's name without `.toml`.
        description: One sentence on what it is for.
        choices: Support tensor to tokens, as `SearchSpace` takes them.
    """

    name: str
    description: str
    choices: dict[str, list[str]]


def preset_names() -> list[str]:
    """The names of all presets, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load_preset(name: str) -> Preset:
    """The preset called `name`.

    Raises:
        InvalidConfigError: There is none of that name; the message lists all and the nearest.
    """
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidConfigError(f"no preset {name!r}; there are {', '.join(names)}{hint}")
    text = resources.files(__name__).joinpath(f"{name}.toml").read_text()
    return Preset(name=name, **tomllib.loads(text))
