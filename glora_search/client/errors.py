"""Answers that are problems, as errors: the same classes as where the study runs here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from glora_search.study.errors import (
    ArtifactError,
    ClusterError,
    DamagedStudyError,
    Mistake,
    StorageError,
    StorageUnavailableError,
    StudyExistsError,
    StudyFileError,
    StudyFilesError,
    StudyHeldError,
    StudyNotFoundError,
    StudyNotRunningError,
    SubnetNotFoundError,
)
from search_spaces.errors import GLoRASearchError

_KINDS: Final[dict[str, type[GLoRASearchError]]] = {
    "artifact": ArtifactError,
    "cluster": ClusterError,
    "damaged-study": DamagedStudyError,
    "storage": StorageError,
    "storage-unavailable": StorageUnavailableError,
    "study-exists": StudyExistsError,
    "study-files": StudyFilesError,
    "study-held": StudyHeldError,
    "study-not-found": StudyNotFoundError,
    "study-not-running": StudyNotRunningError,
    "subnet-not-found": SubnetNotFoundError,
}


class ServiceError(GLoRASearchError, RuntimeError):
    """The server refuses a request: no token, no such file, or something else.

    Attributes:
        status: Of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerUnavailableError(GLoRASearchError, ConnectionError):
    """No server answers."""


def error_of(status: int, document: Mapping[str, Any]) -> GLoRASearchError:
    """The error that a problem stands for.

    Args:
        status: Of the answer.
        document: The problem; empty where the answer is none.
    """
    kind = str(document.get("type", "")).rpartition(":")[2]
    detail = str(document.get("detail") or f"the server answered with status {status}")
    if kind == "study-file":
        told = document.get("mistakes") or []
        lines = {m["key"]: m.get("line") for m in told}
        if any(lines.values()):
            where = ", ".join(f"{key}: line {line}" for key, line in lines.items() if line)
            detail = f"{detail}\n({where})"
        return StudyFileError(detail, [Mistake(m["key"], m["detail"]) for m in told])
    found = _KINDS.get(kind)
    return ServiceError(detail, status) if found is None else found(detail)
