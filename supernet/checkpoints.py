"""Checkpoints: named tensors and string metadata in one safetensors file, written whole or not at
all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from supernet.errors import CheckpointError


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `path` under a temporary name beside it, flush it to disk, and rename it.

    Raises:
        CheckpointError: The file cannot be written; what stood at `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask has it; safetensors lets only its owner read
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata=dict(metadata),
        )
        temporary.chmod(mode)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {str(path)!r}: {error}") from error
    finally:
        with suppress(OSError):  # where the path cannot be, there is nothing to clean up
            temporary.unlink()


def load_checkpoint(
    path: Path, expected: Mapping[str, str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata of a file that `save_checkpoint` wrote.

    Args:
        path: The file.
        expected: Metadata that must be found with these values.

    Raises:
        CheckpointError: The file is missing or damaged, or its metadata is not what is expected;
            the message names each entry that differs.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            check_metadata(path, metadata, expected or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{str(path)!r} is damaged or no checkpoint ({error}); delete it to start over"
        ) from error
    return tensors, metadata


def set_aside_if_damaged(path: Path) -> Path | None:
    """Rename a file that was cut short, or is no checkpoint, so that it can be made anew.

    A power cut can leave such a file in spite of what `save_checkpoint` does. This checks the
    header, and that the file is as long as the header says.

    Returns:
        Where the damaged file is now; None where there was none.

    Raises:
        CheckpointError: The file cannot be read or renamed.
    """
    if not path.is_file():
        return None
    try:
        try:
            if path.stat().st_size:  # nothing cannot be mapped into memory
                with safe_open(path, framework="pt"):
                    return None
        except SafetensorError:
            pass
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error}") from error
    return aside


def check_metadata(path: Path, metadata: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Raise CheckpointError naming every entry of `expected` that `metadata` holds otherwise."""
    differing = [name for name, value in expected.items() if metadata.get(name) != value]
    if differing:
        told = "; ".join(
            f"{name}: {_short(metadata.get(name, 'absent'))} there, {_short(expected[name])} here"
            for name in differing
        )
        raise CheckpointError(f"{str(path)!r} was made from something else ({told})")


def check_shapes(
    what: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise CheckpointError unless `what` holds tensors of the expected names and shapes."""
    wrong = sorted(n for n in {**expected, **found} if expected.get(n) != found.get(n))
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{what} is of another network: {len(wrong)} tensors differ, such as {first!r} "
            f"(here {expected.get(first, 'absent')}, in {what} {found.get(first, 'absent')})"
        )


def _short(value: str) -> str:
    return value if len(value) <= 40 else f"{value[:12]}…"
