"""Studies that a server creates, starts, stops and deletes. All of their state is in the database.

Created: there is a service record with the study file. Starting: somebody has claimed that record.
From then on the study's own record and lease say how it stands, as for every other study.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from glora_search.operations.running import LOG, Runner
from glora_search.operations.served_exports import is_exporting
from glora_search.operations.status import DatabaseStatus, ListedStudy, StudyStatus, listed_studies
from glora_search.recording import Database, Holder, ServiceRecord, StudyRecord
from glora_search.study.errors import (
    DamagedStudyError,
    StudyExistsError,
    StudyFilesError,
    StudyHeldError,
    StudyNotFoundError,
    StudyNotRunningError,
    one_line,
)
from glora_search.study.reading import parse_study, resumed_study, stored_study
from search_spaces import GLoRASearchError, LayerSpec, SearchSpace

CREATED: Final = "created"
STARTING: Final = "starting"

_TABLE: Final = "table"
_NO_SPACE: Final = SearchSpace(  # nothing is chosen from it, but every record has one
    [LayerSpec("none", 1, 1, bias=True)], dict.fromkeys("ABCDE", ("none",))
)


def create_study(database: Database, table: dict[str, Any], runner: Runner | None = None) -> str:
    """Keep a study file, so that any server can start it; returns the study's name.

    Args:
        database: Where to keep it.
        table: The study file as nested dictionaries, its paths absolute.
        runner: Start it there at once; if that fails, nothing is kept.

    Raises:
        StudyFileError: It has mistakes.
        StudyExistsError: There is a study of that name.
        ClusterError: It cannot be started.
    """
    name = parse_study(table, origin="the study").study.name
    if _record(database, name) is not None:
        raise StudyExistsError(f"study {name!r} exists already; choose another study.name")
    database.create_service(
        name, space=_NO_SPACE, attributes={_TABLE: table, "created": time.time()}
    )
    if runner is not None:
        try:
            start_study(database, name, runner)
        except GLoRASearchError:
            database.delete(name)
            raise
    return name


def start_study(database: Database, name: str, runner: Runner) -> None:
    """Launch a study that was created.

    Raises:
        StudyNotFoundError: It was not.
        StudyExistsError: It was launched already.
        StudyHeldError: It is being started.
    """
    service = database.services().get(name)
    if _record(database, name) is not None:
        raise StudyExistsError(f"study {name!r} was started already; resume it instead")
    if service is None:
        database.open_study(name)  # raises, and tells what there is
        return
    with service.claim() as claim:
        pid = runner.launch(name, service.attributes[_TABLE])
        claim.keep() if pid is None else claim.hand_over(pid)


def resume_study(
    database: Database, name: str, runner: Runner, overrides: Sequence[str] = ()
) -> None:
    """Go on with a study that was launched, by a server or not.

    Args:
        database: Where it is.
        name: The study.
        runner: Where it will run.
        overrides: As in `glora_search.resume`.

    Raises:
        StudyFileError: An override that a resume does not accept.
        StudyNotFoundError: It was not.
        StudyHeldError: It is driven by a process, or is being started.
    """
    service, record = database.services().get(name), _record(database, name)
    if record is None:
        if service is not None:
            raise StudyNotRunningError(f"study {name!r} was not started yet; start it instead")
        database.open_study(name)  # raises, and tells what there is
        return
    if (holder := record.holder) is not None:
        raise StudyHeldError(f"study {name!r} runs already: {holder} drives it")
    if overrides:
        resumed_study(stored_study(record.attributes.get("study") or {}), overrides)
    if service is None:
        service = database.create_service(name, space=_NO_SPACE, attributes={})
    with service.claim() as claim:
        pid = runner.resume(name, overrides)
        claim.keep() if pid is None else claim.hand_over(pid)


def stop_study(database: Database, name: str, address: str | None) -> Holder | None:
    """Interrupt a study as Ctrl-C would; it can be resumed.

    Args:
        database: Where it is.
        name: The study.
        address: Dashboard of the cluster on which it may run as a job.

    Returns:
        The process that was interrupted; None for a job.

    Raises:
        StudyNotFoundError: There is none of that name.
        StudyNotRunningError: No process drives it.
        StudyHeldError: A process drives it that cannot be reached from here.
    """
    service, record = database.services().get(name), _record(database, name)
    if record is None and service is None:
        database.open_study(name)  # raises, and tells what there is
    holder = (record.holder if record else None) or (service.starter if service else None)
    if holder is None:
        raise StudyNotRunningError(f"study {name!r} does not run")
    if holder.is_here and ServiceRecord.is_driver(holder):
        _interrupt(holder, name)
        return holder
    if address is None and holder.is_here:
        raise StudyHeldError(f"study {name!r} is just being started; stop it in a moment")
    if address is None:
        raise StudyHeldError(
            f"study {name!r} is driven by {holder}, which cannot be reached from here; "
            "stop it on that machine"
        )
    from glora_search.operations.jobs import running_job, stop_job

    if running_job(name, address) is None:
        if service is not None and not ServiceRecord.is_driver(holder):
            service.drop_claim()
            raise StudyNotRunningError(f"study {name!r} does not run: its job has ended")
        raise StudyHeldError(
            f"study {name!r} is driven by {holder}, which is no job of this cluster that runs; "
            "stop it on that machine"
        )
    began = record is not None and record.holder is not None
    stop_job(name, address, wait=not began)  # one that only starts ends at once
    if service is not None:
        service.drop_claim()
    return None


def delete_study(database: Database, name: str, root: Path | None) -> None:
    """Delete a study from the database, and its folder below `root` where that is given.

    Raises:
        StudyNotFoundError: There is none of that name.
        StudyHeldError: It runs, or is being started; or an export is made in its folder.
        StudyFilesError: The study is deleted, and its folder is not.
    """
    service = database.services().get(name)
    if service is None:
        with suppress(DamagedStudyError):  # such a study can still be deleted
            database.open_study(name)  # raises where there is none, and tells what there is
    if service is not None and (starter := service.starter) is not None:
        raise StudyHeldError(f"study {name!r} is being started by {starter}; stop it first")
    if root is not None and is_exporting(root, name):
        raise StudyHeldError(f"an export of study {name!r} is being made; wait for its end")
    database.delete(name)
    folder = None if root is None else root / name
    if folder is not None and folder.is_dir() and not folder.is_symlink():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise StudyFilesError(
                f"study {name!r} is deleted from the database, but its folder cannot be removed: "
                f"{one_line(error)}; remove it by hand"
            ) from error


def served_studies(database: Database) -> DatabaseStatus:
    """All studies and sweeps, and the studies that were created and not launched yet, last."""
    found = listed_studies(database)
    known = {study.study: study for study in found.studies}
    for name, service in database.services().items():
        starter = service.starter
        if name not in known:
            known[name] = _unlaunched(service, starter)
        elif starter is not None and known[name].held_by is None:
            known[name] = replace(known[name], held_by=str(starter))
    return replace(found, studies=tuple(known.values()))


def unlaunched_status(database: Database, name: str) -> StudyStatus:
    """How a study stands that was created and not launched yet.

    Raises:
        StudyNotFoundError: There is none of that name.
    """
    service = database.services().get(name)
    if service is None:
        raise StudyNotFoundError(f"no study {name!r} in {database.shown}")
    starter = service.starter
    listed = _unlaunched(service, starter)
    search = parse_study(service.attributes[_TABLE], origin="the study").search
    return StudyStatus(
        study=name,
        status=listed.status,
        planned=search.population * (search.generations + 1),
        mode=search.mode,
        fitness=f"val {search.fitness}",
        held_by=listed.held_by,
        held_since=None if starter is None else starter.since,
        best=None,
        evaluated=0,
        failed=0,
        finalists=(),
        generations=(),
        supernet=None,
        export=None,
    )


def starter_of(database: Database, name: str) -> Holder | None:
    """The process that is starting a study; None where there is none."""
    service = database.services().get(name)
    return None if service is None else service.starter


def table_of(database: Database, name: str) -> dict[str, Any] | None:
    """The study file of a study that was created by a server; None where there is none."""
    service = database.services().get(name)
    return None if service is None else service.attributes.get(_TABLE)


def log_of(root: Path, name: str) -> Path:
    """Where the processes of a study write, whether there is such a file or not."""
    return root / name / LOG


def _unlaunched(service: ServiceRecord, starter: Holder | None) -> ListedStudy:
    table = service.attributes.get(_TABLE) or {}
    search = table.get("search", {})
    return ListedStudy(
        study=service.study,
        status=CREATED if starter is None else STARTING,
        fitness=f"val {search.get('fitness', 'loss')}",
        held_by=None if starter is None else str(starter),
    )


def _interrupt(holder: Holder, name: str) -> None:
    try:
        os.kill(holder.pid, signal.SIGINT)
    except ProcessLookupError:
        raise StudyNotRunningError(f"study {name!r} does not run any more") from None
    except PermissionError:
        raise StudyHeldError(
            f"study {name!r} is driven by {holder}, a process of another user; stop it as that user"
        ) from None


def _record(database: Database, name: str) -> StudyRecord | None:
    try:
        return database.open_study(name)
    except StudyNotFoundError:
        return None
