"""What is exported: by the study's section [export], and by what is asked for besides."""

from __future__ import annotations

from typing import Any

import pytest

from glora_search.stages.choosing import Finetuning, Wanted, wanted_by
from glora_search.study.place_sections import ExportSection
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
    ],
)
def test_what_is_wanted(section: ExportSection, asked: dict[str, Any], expected: Wanted) -> None:
    assert wanted_by(section, **asked) == expected


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"trial": 1, "average": 2}, "trial and average exclude each other"),
        ({"trial": 1, "soup": 2}, "trial and soup exclude each other"),
        ({"average": 2, "soup": 2}, "average and soup exclude each other"),
        ({"average": 2, "finetune_epochs": 1}, "finetune_epochs and average exclude each other"),
        ({"soup": 2, "finetune_epochs": 1}, "finetune_epochs and soup exclude each other"),
        ({"finetune_lr": 0.1}, "finetune_lr needs finetune_epochs"),
        ({"finetune_epochs": -1}, "accepted: epochs from 0 on"),
        ({"finetune_epochs": 1, "finetune_lr": 0.0}, "a rate above 0"),
        ({"finetune_epochs": 1, "finetune_lr": float("nan")}, "a rate above 0"),
    ],
)
def test_what_excludes_each_other_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ExportError, match=told):
        wanted_by(ExportSection(), **asked)
