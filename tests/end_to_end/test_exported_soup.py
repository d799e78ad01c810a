"""A soup of the best subnets, from a study file to a network of timm."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tiny_study import N_SUBNETS, study

from glora_search.cli.study_tables import search_output, study_output
from glora_search.operations.exporting import export
from glora_search.operations.launching import SearchResult, launch, resume
from glora_search.operations.status import study_status
from glora_search.recording import Database
from search_spaces import SubnetConfig
from supernet import evaluate_model
from supernet.errors import ExportError
from supernet.export import FILES
from supernet.soup import greedy_soup

pytestmark = pytest.mark.slow
CANDIDATES = 6


@dataclass(frozen=True)
class Launched:
    """A finished study whose file asks for a soup."""

    folder: Path
    result: SearchResult

    @property
    def storage(self) -> str:
        return f"sqlite:///{self.folder / 'studies.db'}"

    def best(self, n: int) -> dict[int, SubnetConfig]:
        """The best by val loss."""
        with Database.open(self.storage, create=False) as database:
            trials = database.open_study("tiny").trials()
        ranked = sorted(trials, key=lambda k: (trials[k].loss, trials[k].candidate.n_params, k))
        return {k: trials[k].candidate.subnet for k in ranked[:n]}


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    folder = tmp_path_factory.mktemp("soup")
    file = study(folder, export={"soup": CANDIDATES})
    return Launched(folder, launch(file, storage=f"sqlite:///{folder / 'studies.db'}"))


def check(launched: Launched, directory: Path, n: int) -> dict[str, Any]:
    """Who was kept, weights and figures of a soup of `n` candidates; its record."""
    result, best = launched.result, launched.best(n)
    val, batch_size = result.materials.val, result.materials.file.search.batch_size
    kept = greedy_soup(result.supernet, list(best.values()), val, batch_size=batch_size)
    record: dict[str, Any] = json.loads((directory / "subnet.json").read_text())
    numbers = {subnet.digest: number for number, subnet in best.items()}
    assert record["average_of"] == [
        {"trial": numbers[s.digest], "digest": s.digest, "weight": 1 / len(kept)} for s in kept
    ]
    assert record["soup_of"] == [
        {"trial": number, "digest": subnet.digest} for number, subnet in best.items()
    ]
    model: Any = timm.create_model(f"local-dir:{directory}", pretrained=True)
    expected = result.supernet.merge_average(kept).state_dict()
    assert all(torch.equal(tensor, expected[k]) for k, tensor in model.state_dict().items())
    measured = evaluate_model(model, val, batch_size=batch_size)
    assert (record["val"]["loss"], record["val"]["top1"]) == (measured.loss, measured.top1)
    first = result.supernet.merge(next(iter(best.values())))
    assert measured.loss <= evaluate_model(first, val, batch_size=batch_size).loss
    assert record["largest_logit_difference_val"] < 1e-4
    return record


def test_a_launch_exports_the_soup_that_its_file_asks_for(launched: Launched) -> None:
    result, exported = launched.result, launched.result.export
    record = check(launched, exported.directory, CANDIDATES)
    assert exported.trial is None
    assert exported.soup_of == tuple(launched.best(CANDIDATES))
    assert exported.average_of == tuple(one["trial"] for one in record["average_of"])
    what = f"soup of {len(exported.average_of)} of {CANDIDATES} subnets"
    shown = search_output(result)
    assert (shown.columns[0], shown.rows[0][0]) == ("export", what)
    status = study_output(study_status("tiny", launched.storage))
    assert f"exported  {exported.directory}  ({what})" in status.lines


def test_an_export_takes_the_key_or_another_number(launched: Launched, tmp_path: Path) -> None:
    """A second one is the same, byte for byte; more candidates are never worse."""
    again = export("tiny", tmp_path / "again", storage=launched.storage)
    there = launched.result.export.directory
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (there / name).read_bytes()
    more = export("tiny", tmp_path / "more", soup=N_SUBNETS, storage=launched.storage)
    check(launched, tmp_path / "more", N_SUBNETS)
    assert more.val.loss <= again.val.loss
    with pytest.raises(ExportError, match="cannot make a soup of 25 subnets"):
        export("tiny", tmp_path / "x", soup=N_SUBNETS + 1, storage=launched.storage)


def test_a_resume_tells_soups_and_averages_apart(launched: Launched) -> None:
    """An average of the same subnets is not the soup of them."""
    again = resume("tiny", storage=launched.storage)
    assert again.export.summary() == launched.result.export.summary()
    averaged = ["export.soup=0", f"export.average={CANDIDATES}"]
    for overrides in (["export.soup=2"], ["export.soup=0"], averaged):
        with pytest.raises(ExportError, match="not an empty directory"):
            resume("tiny", overrides=overrides, storage=launched.storage)
