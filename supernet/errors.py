"""What the network package raises. Every error is a GLoRASearchError and the fitting builtin as
well.
"""

from search_spaces.errors import GLoRASearchError


class BackboneError(GLoRASearchError, ValueError):
    """A backbone that cannot be built, or whose layers cannot be adapted."""


class DataError(GLoRASearchError, ValueError):
    """A data set that is missing, mislabelled or undecodable; names the file and the line."""


class CheckpointError(GLoRASearchError, ValueError):
    """A checkpoint that is missing, truncated, or of another network, recipe or data set."""


class TrainingDivergedError(GLoRASearchError, ArithmeticError):
    """The training loss is no longer finite; names the step and the last good checkpoint."""


class ExportError(GLoRASearchError, OSError):
    """An export cannot be written, or does not reproduce the subnet."""


class MergeError(GLoRASearchError, TypeError):
    """A method whose network cannot be written as a plain one of the backbone's architecture."""


class AdapterError(GLoRASearchError, ValueError):
    """A bank of adapters is asked for a task that it does not have, or has already."""
