"""What is exported: by the study's section [export], and by what is asked for besides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from recording_cases import SPACE, batch

from glora_search.recording import Database, StudyRecord
from glora_search.stages.choosing import Finetuning, Wanted, choose, wanted_by
from glora_search.study.finalists import ATTRIBUTE, Finalist, to_attribute
from glora_search.study.fronts import front
from glora_search.study.objectives import BY_LOSS, BY_LOSS_AND_PARAMS, Objectives
from glora_search.study.place_sections import ExportSection
from search_spaces import InvalidConfigError
from supernet.errors import ExportError

TUNED = ExportSection(finetune_epochs=5, finetune_lr=1e-3)
OF_SECTION = Finetuning(epochs=5, lr=1e-3)


@pytest.mark.parametrize(
    ("section", "asked", "expected"),
    [
        (ExportSection(), {}, Wanted()),
        (ExportSection(average=3), {}, Wanted(average=3)),
        (ExportSection(soup=4), {}, Wanted(soup=4)),
        (TUNED, {}, Wanted(finetuning=OF_SECTION)),
        # one that is asked for takes the place of the section's
        (ExportSection(average=3), {"average": 1}, Wanted()),
        (ExportSection(average=3), {"trial": 7}, Wanted(trial=7)),
        (ExportSection(average=3), {"digest": "ab"}, Wanted(digest="ab")),
        (
            ExportSection(soup=4),
            {"pick": "knee", "max_params": 9},
            Wanted(pick="knee", max_params=9),
        ),
        (ExportSection(average=3), {"soup": 4}, Wanted(soup=4)),
        (ExportSection(soup=4), {"average": 3}, Wanted(average=3)),
        (ExportSection(soup=4), {"soup": 0}, Wanted()),
        (TUNED, {"average": 3}, Wanted(average=3)),
        (TUNED, {"soup": 4}, Wanted(soup=4)),
        # a single one is trained on as the section says, unless it is asked otherwise
        (TUNED, {"trial": 7}, Wanted(trial=7, finetuning=OF_SECTION)),
        (TUNED, {"finetune_epochs": 0}, Wanted()),
        (TUNED, {"finetune_epochs": 9}, Wanted(finetuning=Finetuning(epochs=9, lr=1e-3))),
        (TUNED, {"finetune_lr": 0.1}, Wanted(finetuning=Finetuning(epochs=5, lr=0.1))),
        (
            ExportSection(average=3),
            {"finetune_epochs": 9},
            Wanted(finetuning=Finetuning(epochs=9, lr=3e-3)),
        ),
        (ExportSection(average=3), {"finetune_epochs": 0}, Wanted(average=3)),
        (
            TUNED,
            {"finetune_keep": "average"},
            Wanted(finetuning=Finetuning(epochs=5, lr=1e-3, keep="average")),
        ),
        (
            ExportSection(finetune_epochs=5, finetune_keep="average", finetune_runs=4),
            {"finetune_lr": 0.1},
            Wanted(finetuning=Finetuning(epochs=5, lr=0.1, keep="average", runs=4)),
        ),
        (
            ExportSection(finetune_epochs=5, finetune_keep="average", finetune_runs=4),
            {"finetune_keep": "best"},
            Wanted(finetuning=Finetuning(epochs=5, lr=3e-3)),
        ),
        # whatever it is, it can be calibrated
        (ExportSection(average=3, calibrate=True), {}, Wanted(average=3, calibrate=True)),
        (ExportSection(calibrate=True), {"trial": 7}, Wanted(trial=7, calibrate=True)),
        (ExportSection(calibrate=True), {"calibrate": False}, Wanted()),
        (ExportSection(), {"soup": 4, "calibrate": True}, Wanted(soup=4, calibrate=True)),
    ],
)
def test_what_is_wanted(section: ExportSection, asked: dict[str, Any], expected: Wanted) -> None:
    assert wanted_by(section, **asked) == expected


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"trial": 1, "average": 2}, "trial and average exclude each other"),
        ({"trial": 1, "soup": 2}, "trial and soup exclude each other"),
        ({"trial": 1, "pick": "knee"}, "trial and pick exclude each other"),
        ({"digest": "ab", "max_params": 2}, "digest and max_params exclude each other"),
        ({"max_params": 2, "average": 2}, "max_params and average exclude each other"),
        ({"average": 2, "soup": 2}, "average and soup exclude each other"),
        ({"average": 2, "finetune_epochs": 1}, "finetune_epochs and average exclude each other"),
        ({"soup": 2, "finetune_epochs": 1}, "finetune_epochs and soup exclude each other"),
        ({"finetune_lr": 0.1}, "finetune_lr needs finetune_epochs"),
        ({"finetune_keep": "best"}, "finetune_keep needs finetune_epochs"),
        ({"finetune_epochs": 1, "finetune_runs": 2}, "several runs are averaged"),
        ({"finetune_epochs": 1, "finetune_runs": 0}, "finetune_runs = 0; accepted: 1 and more"),
        ({"finetune_epochs": 1, "finetune_batch_size": -1}, "accepted: 1 and more"),
        ({"finetune_epochs": 1, "finetune_keep": "mean"}, "accepted: best, average"),
        ({"finetune_epochs": -1}, "accepted: epochs from 0 on"),
        ({"finetune_epochs": 1, "finetune_lr": 0.0}, "a rate above 0"),
        ({"finetune_epochs": 1, "finetune_lr": float("nan")}, "a rate above 0"),
    ],
)
def test_what_excludes_each_other_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ExportError, match=told):
        wanted_by(ExportSection(), **asked)


@contextmanager
def study(folder: Path, objectives: Objectives) -> Iterator[StudyRecord]:
    with Database(f"sqlite:///{folder / 'x.db'}") as database:
        record = database.create_study("s", space=SPACE, objectives=objectives, attributes={})
        with record.hold():
            record.flush(batch(0, 30))
        yield record


def test_what_is_picked_of_a_front(tmp_path: Path) -> None:
    """Knee, best loss and best top-1, of any size and of small ones; any subnet by its digest."""
    with study(tmp_path, BY_LOSS_AND_PARAMS) as record:
        trials = record.trials()
        numbers = front(trials, BY_LOSS_AND_PARAMS)
        fine = {n: o for n, o in trials.items() if not o.failed}

        def picked(**wanted: Any) -> int | None:
            return choose(record, trials, Wanted(**wanted)).trial

        winner = min(fine, key=lambda n: BY_LOSS.rank(fine[n]))
        assert picked() == picked(pick="loss") == winner == numbers[-1]
        assert fine[picked(pick="top1") or 0].top1 == max(o.top1 or 0 for o in fine.values())
        assert picked(pick="knee") in numbers
        most = fine[numbers[-2]].candidate.n_params
        assert picked(max_params=most) == numbers[-2]
        least = fine[numbers[0]].candidate.n_params
        assert picked(pick="knee", max_params=least) == numbers[0]
        assert picked(digest=fine[winner].candidate.subnet.digest[:12]) == winner
        with pytest.raises(ExportError, match=f"of at most {least - 1:,} parameters; the smallest"):
            picked(max_params=least - 1)
        with pytest.raises(ExportError, match="has 0 subnets whose digest begins with 'xyz'"):
            picked(digest="xyz")


def test_of_small_subnets_finalists_come_first_too(tmp_path: Path) -> None:
    """Their figures in float32, or on held-out images, count more than those of the search."""
    with study(tmp_path, BY_LOSS_AND_PARAMS) as record:
        trials = record.trials()
        second, first = front(trials, BY_LOSS_AND_PARAMS)[-2:]
        judged = [Finalist(trial=n, loss=0.1, top1=0.9) for n in (first, second)]
        with record.hold():
            record.set_attribute(ATTRIBUTE, to_attribute(judged))
        most = trials[second].candidate.n_params
        chosen = choose(record, trials, Wanted(max_params=most))
        assert (chosen.trial, chosen.final) == (second, judged[1])
        assert choose(record, trials, Wanted()).trial == first


def test_a_study_of_one_objective_has_no_knee(tmp_path: Path) -> None:
    with study(tmp_path, BY_LOSS) as record:
        trials = record.trials()
        with pytest.raises(InvalidConfigError, match="a front needs two objectives; got loss"):
            choose(record, trials, Wanted(pick="knee"))
        small = sorted(o.candidate.n_params for o in trials.values() if not o.failed)[10]
        chosen = choose(record, trials, Wanted(max_params=small))
        assert chosen.best.candidate.n_params <= small
