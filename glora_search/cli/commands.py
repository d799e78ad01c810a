"""The command line: its verbs, and what becomes of errors. Results go to stdout, progress and logs
to stderr.

Exit status: 0; 1, it failed, with one clear line; 2, usage or a wrong study file; 130, interrupted
and resumable. What is slow to import (torch, timm, ray, optuna) is imported by the verb that needs
it.
"""

from __future__ import annotations

import logging
import sys

import click

from glora_search.cli import (
    bench_verbs,
    job_verbs,
    predict_verb,
    remote_verbs,
    result_verbs,
    server_verbs,
    study_verbs,
)
from glora_search.cli.output import tell
from search_spaces.errors import GLoRASearchError


class _Verbs(click.Group):
    """The verbs that run here, or with --server those of a server."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names for the help."""
        return sorted(self._known(ctx))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of that name."""
        verb = self._known(ctx).get(cmd_name)
        if verb is None and cmd_name in self.commands:
            known = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"{cmd_name} does not go with --server; there are {known}")
        return verb

    def _known(self, ctx: click.Context) -> dict[str, click.Command]:
        if ctx.params.get("server") is None:
            return dict(self.commands)
        return {str(verb.name): verb for verb in remote_verbs.VERBS}


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  glora-search demo                               see the whole path on handwritten digits
  glora-search example vtab-vit-b16 > study.toml  a commented study file to start from
  glora-search launch study.toml                  train, search, export
  glora-search status                             what is in the database
""",
)
@click.version_option(package_name="glora-search")
@click.option("-v", "--verbose", is_flag=True, help="Log what is going on to stderr.")
@click.option(
    "--server",
    metavar="URL",
    help="Send the command to the server at URL (see `glora-search serve`). Works for launch, "
    "start, resume, stop, status, logs, report, export and delete.",
)
@click.pass_context
def cli(ctx: click.Context, verbose: bool, server: str | None) -> None:
    """Search per-layer GLoRA configurations of a vision transformer, and export the best as a plain
    ViT.
    """
    ctx.obj = server
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if not verbose:  # timm and others tell much on the way
        logging.getLogger().setLevel(logging.ERROR)
        for name in ("glora_search", "supernet"):
            logging.getLogger(name).setLevel(logging.WARNING)


for verb in (
    *study_verbs.VERBS,
    *result_verbs.VERBS,
    *predict_verb.VERBS,
    *bench_verbs.VERBS,
    *job_verbs.VERBS,
    *server_verbs.VERBS,
):
    cli.add_command(verb)


def main() -> None:
    """The console script."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stopped:
        sys.exit(stopped.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        tell("interrupted")
        sys.exit(130)
    except GLoRASearchError as error:
        from glora_search.study.errors import StudyFileError

        tell(f"error: {error}")
        sys.exit(2 if isinstance(error, StudyFileError) else 1)


if __name__ == "__main__":
    main()
