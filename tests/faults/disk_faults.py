"""Disks that are full or read-only, and files that were cut short.

The disks are real file systems: a small tmpfs that is full, and grows afterwards; a bind mount that
is read-only, and is not afterwards. Both need the right to mount.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fork_server import Running, wait_until
from laboratory import Laboratory, NotHereError, Sections, Verdict
from program import Program

_NO_SPACE = ("No space left", "disk is full", "disk I/O error")
_READ_ONLY = ("Read-only file system", "readonly database", "unable to open database file")


def _mount(*words: str) -> None:
    ended = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise NotHereError(f"mounting is not allowed here: {ended.stderr.strip()}")


@contextmanager
def _small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A file system of that size at `folder`."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _grow(folder: Path) -> None:
    _mount("-o", "remount,size=64m", str(folder))


@contextmanager
def _read_only(folder: Path) -> Iterator[Path]:
    """`folder` as a read-only file system, during the block."""
    folder.mkdir(exist_ok=True)
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _go_on(program: Program) -> Running:
    """What a person would type next."""
    return program.resume() if program.exists() else program.launch()


def _full(lab: Laboratory, name: str, kib: int) -> Verdict:
    """Launched on a disk that gets full, and resumed when there is room."""
    where = lab.folder(name)
    with _small_disk(where / "disk", kib) as disk:
        sections, storage = _placed(lab, name, disk)
        expected, since = lab.undisturbed(sections), time.monotonic()
        program = lab.program(name, sections, storage=storage)
        with program.watched() as reported:
            told = program.launch().fail(*_NO_SPACE)
            reported.update(program.recorded())
        _grow(disk)
        with program.watched() as again:
            _go_on(program).succeed()
        return lab.judge(
            program, expected, reported | again, injected=1, survived=1, since=since, told=told
        )


def _placed(lab: Laboratory, name: str, disk: Path) -> tuple[Sections, str | None]:
    """What of a study lies on `disk`: its checkpoints, its export, or its database."""
    what = name.rsplit("_", 1)[-1]
    if what == "checkpoint":
        return {
            **lab.sections,
            "study": {"directory": str(disk / "runs")},
            **_export_beside(disk),
        }, None
    if what == "export":
        return {**lab.sections, "export": {"directory": str(disk / "export")}}, None
    return lab.sections, f"sqlite:///{disk / 'studies.db'}"


def _export_beside(disk: Path) -> Sections:
    return {"export": {"directory": str(disk.parent / "export")}}


def full_disk_checkpoint(lab: Laboratory) -> Verdict:
    """The disk gets full while training writes its checkpoint."""
    return _full(lab, "full_disk_checkpoint", 24)


def full_disk_export(lab: Laboratory) -> Verdict:
    """The disk gets full while the winner is exported."""
    return _full(lab, "full_disk_export", 24)


def full_disk_database(lab: Laboratory) -> Verdict:
    """The disk gets full while a batch is written into an SQLite file."""
    return _full(lab, "full_disk_database", 450)


def _launched_read_only(lab: Laboratory, name: str) -> Verdict:
    """Launched where nothing can be written, and again where it can."""
    place = lab.folder(name) / "disk"
    sections, storage = _placed(lab, name, place)
    expected, since = lab.undisturbed(sections), time.monotonic()
    program = lab.program(name, sections, storage=storage)
    with program.watched() as reported:
        with _read_only(place):
            told = program.launch().fail(*_READ_ONLY)
        _go_on(program).succeed()
    return lab.judge(program, expected, reported, injected=1, survived=1, since=since, told=told)


def read_only_checkpoint(lab: Laboratory) -> Verdict:
    """Training cannot write its checkpoint."""
    return _launched_read_only(lab, "read_only_checkpoint")


def read_only_export(lab: Laboratory) -> Verdict:
    """The winner cannot be exported."""
    return _launched_read_only(lab, "read_only_export")


def read_only_database(lab: Laboratory) -> Verdict:
    """The SQLite file cannot be made."""
    return _launched_read_only(lab, "read_only_database")


def truncated_checkpoint(lab: Laboratory) -> Verdict:
    """The driver is killed while it trains, and the checkpoint is cut short."""
    sections: Sections = {**lab.sections, "supernet": {"epochs": 300}}
    expected, since = lab.undisturbed(sections), time.monotonic()
    program = lab.program("truncated", sections)
    running = program.launch()
    wait_until(lambda: bool(_files(program, "*.training.safetensors")), running)
    running.kill()
    _truncate(*_files(program, "*.training.safetensors"))
    return _resumed(lab, program, expected, since)


def truncated_supernet(lab: Laboratory) -> Verdict:
    """The driver is killed while it searches, and the trained supernet is cut short."""
    expected, since = lab.undisturbed(lab.sections), time.monotonic()
    program = lab.program("truncated", lab.sections, fault={"sleep_s": 0.02})
    running = program.launch()
    wait_until(lambda: len(program.recorded()) > 10, running)
    running.kill()
    _truncate(*_files(program, "*.safetensors"))
    return _resumed(lab, program, expected, since)


def _files(program: Program, pattern: str) -> list[Path]:
    return list((program.folder / "runs" / "supernets").glob(pattern))


def _truncate(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _resumed(
    lab: Laboratory, program: Program, expected: tuple[list[object], bytes], since: float
) -> Verdict:
    reported = set(program.recorded())
    with program.watched() as again:
        running = program.resume()
        running.succeed()
    told = [line for line in running.errors.splitlines() if "damaged" in line]
    return lab.judge(
        program,
        expected,
        reported | again,
        injected=1,
        survived=int(bool(told)),
        since=since,
        told=" ".join(told),
    )
