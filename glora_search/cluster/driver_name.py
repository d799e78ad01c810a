"""What Ray calls a driver.

Ray keeps the command line of every driver, and shows it on its dashboard and to every other driver.
Among its words may be a database's URL with the password.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

NAME: Final = "glora-search"


@contextmanager
def plain_driver_name() -> Iterator[None]:
    """A driver that joins Ray within the block is called `glora-search`, without its words.

    There is no public way to say so; a test asks Ray what it keeps.
    """
    from ray._private import utils

    original = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: NAME
    try:
        yield
    finally:
        utils.get_entrypoint_name = original
