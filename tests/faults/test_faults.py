"""Faults in whole runs of the program, in short; `run_faults.py` injects all of them, and more."""

from __future__ import annotations

import pytest
from laboratory import Laboratory, NotHereError
from run_faults import FAULTS

# One of each kind. What needs Ray or a server of its own takes its time: its pieces are tested in
# tests/glora_search, the whole by the command.
SHORT = (
    "driver_killed",
    "nan_candidates",
    "full_disk_checkpoint",
    "full_disk_export",
    "full_disk_database",
    "read_only_export",
    "truncated_supernet",
)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory(tmp_path_factory.mktemp("faults"), full=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost_and_the_winner_is_the_same(name: str, laboratory: Laboratory) -> None:
    try:
        verdict = FAULTS[name](laboratory)
    except NotHereError as reason:
        pytest.skip(str(reason))
    assert verdict.is_good, verdict
