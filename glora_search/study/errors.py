"""What the service raises. Every error is a GLoRASearchError and the fitting builtin as well."""

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


class StudyFileError(GLoRASearchError, ValueError):
    """A study file with unknown keys or wrong values; the message lists all of them."""


class StudyNotFoundError(GLoRASearchError, KeyError):
    """No study of that name in the database."""

    __str__ = Exception.__str__  # a KeyError would quote its message


class StudyExistsError(GLoRASearchError, ValueError):
    """A study of that name is in the database already."""


class StudyHeldError(GLoRASearchError, RuntimeError):
    """Another process drives the study; the message says which."""


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
