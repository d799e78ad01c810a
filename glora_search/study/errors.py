"""What the service raises. Every error is a GLoRASearchError and the fitting builtin as well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from search_spaces.errors import GLoRASearchError


def one_line(error: object, *, limit: int | None = None, end: bool = False) -> str:
    """The text of an error on one line.

    Args:
        error: An exception, or what is left of one: its text.
        limit: Characters to keep; None for all.
        end: Whether to keep the last characters, where a traceback says what happened.
    """
    text = " ".join(str(error).split())
    if limit is None:
        return text
    return text[max(0, len(text) - limit) :] if end else text[:limit]


@dataclass(frozen=True)
class Mistake:
    """One mistake of a study file.

    Args:
        key: Where it is, such as `search.population`.
        text: The key, the value received, and what is accepted.
    """

    key: str
    text: str


class StudyFileError(GLoRASearchError, ValueError):
    """A study file with unknown keys or wrong values; the message lists all of them.

    Attributes:
        mistakes: The same one by one, where they belong to keys.
    """

    def __init__(self, message: str, mistakes: Iterable[Mistake] = ()) -> None:
        super().__init__(message)
        self.mistakes = tuple(mistakes)

    @classmethod
    def of(cls, origin: str, mistakes: Iterable[Mistake]) -> StudyFileError:
        """The error that lists these mistakes, of which there is at least one."""
        mistakes = tuple(mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = [f"  {mistake.text}" for mistake in mistakes]
        return cls(f"{origin} has {count}:\n" + "\n".join(lines), mistakes)


class StudyNotFoundError(GLoRASearchError, KeyError):
    """No study of that name in the database."""

    __str__ = Exception.__str__  # a KeyError would quote its message


class SubnetNotFoundError(GLoRASearchError, LookupError):
    """No subnet of a study fits a request, or several do."""


class StudyExistsError(GLoRASearchError, ValueError):
    """A study of that name is in the database already."""


class StudyHeldError(GLoRASearchError, RuntimeError):
    """Another process drives the study; the message says which."""


class StudyNotRunningError(GLoRASearchError, RuntimeError):
    """A request needs a study that is running, and no process drives this one."""


class StudyFilesError(GLoRASearchError, OSError):
    """A study was deleted from the database, and its files could not be removed."""


class StorageError(GLoRASearchError, ConnectionError):
    """The database cannot be reached, or is not what it should be. Never holds a password."""


class DamagedStudyError(StorageError):
    """What is stored with one study cannot be read; the database is in order."""


class StorageUnavailableError(StorageError):
    """The database does not answer, or is locked: the same may succeed a while later."""


class FingerprintError(GLoRASearchError, ValueError):
    """Backbone weights, data or supernet are not those that the study was started with."""


class ClusterError(GLoRASearchError, RuntimeError):
    """Ray does not have what was asked for, or cannot be reached."""


class ArtifactError(GLoRASearchError, OSError):
    """What a study makes cannot be kept where `cluster.artifacts` says, or fetched from there."""


class TooManyFailuresError(GLoRASearchError, RuntimeError):
    """More evaluations failed than the study file allows."""


class ReportError(GLoRASearchError, OSError):
    """A report cannot be written where it was asked for."""
