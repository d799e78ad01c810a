"""What holds for the whole test session."""

import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small networks are fastest on one thread, and sums are added up in one order."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
