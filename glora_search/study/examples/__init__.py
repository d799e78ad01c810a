"""Study files that come with the package, commented, one for each way of using it."""

from __future__ import annotations

import difflib
from importlib import resources

import click


def example_names() -> list[str]:
    """The names of all examples, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load_example(name: str) -> str:
    """The text of an example.

    Raises:
        click.UsageError: There is none of that name.
    """
    names = example_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise click.UsageError(f"No example {name!r}; there are {', '.join(names)}.{hint}")
    return resources.files(__name__).joinpath(f"{name}.toml").read_text()
