"""The root of every error that this project raises, and the errors of the search space itself.

The root lives in the lowest package so that `except GLoRASearchError` catches what any of the three
packages raises. Each child also inherits the builtin that fits, so that code which knows nothing of
this project still catches it (`except ValueError`).
"""


class GLoRASearchError(Exception):
    """Root of all errors raised on purpose by `search_spaces`, `supernet` and `glora_search`."""


class InvalidConfigError(GLoRASearchError, ValueError):
    """A token, a layer configuration, a subnet or a search space that is not legal."""


class InfeasibleLimitError(GLoRASearchError, ValueError):
    """No subnet of the search space meets the parameter limits."""
