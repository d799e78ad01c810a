"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Verb = TypeVar("Verb", bound=Callable[..., None])

storage = click.option(
    "--storage",
    metavar="URL",
    help="Database URL, such as sqlite:///studies.db or postgresql://user@host/name. "
    "[default: $GLORA_SEARCH_STORAGE, else sqlite:///glora-search.db]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
address = click.option(
    "--address",
    help="Ray to join: auto or ray://HOST:PORT; or http://HOST:8265, to run there as a job. "
    "[default: start one on this machine]",
)
check_paths = click.option(
    "--check-paths/--no-check-paths",
    default=True,
    help="For a job: whether what the study reads must be on this machine too (a shared file "
    "system). [default: check-paths]",
)
dashboard = click.option(
    "--address",
    required=True,
    metavar="http://HOST:8265",
    help="Dashboard of the cluster where the job runs.",
)
digest = click.option(
    "--digest", metavar="HEX", help="Instead: the beginning of the subnet's digest."
)
pick = click.option(
    "--pick",
    type=click.Choice(["knee", "loss", "top1"]),
    help="Instead: the best in val loss or val top-1; or the knee of the front of two objectives, "
    "from where less of one costs most of the other.",
)
max_params = click.option(
    "--max-params",
    type=click.IntRange(min=0),
    metavar="N",
    help="Of the subnets with at most N adapter parameters. It goes together with --pick.",
)


def overrides(of: str) -> Callable[[Verb], Verb]:
    """The option `--set`.

    Args:
        of: What it may override, for the help.
    """
    option: Any = click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE", help=f"Override {of}."
    )
    return option  # type: ignore[no-any-return]


def running(overridden: str) -> Callable[[Verb], Verb]:
    """The options of a verb that runs here, or as a job of a cluster.

    Args:
        overridden: What `--set` may override.
    """

    def with_options(verb: Verb) -> Verb:
        for option in (as_json, address, storage, overrides(overridden)):  # the last is shown first
            verb = option(verb)
        return verb

    return with_options
