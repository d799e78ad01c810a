"""Which images of the validation split a search sees, and on which its finalists are judged."""

from __future__ import annotations

from dataclasses import dataclass

from glora_search.stages.prepare import Materials
from supernet import Split
from supernet.data import hold_out


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchSplits:
    """The validation split as a search uses it.

    Args:
        seen: What the fitness is measured on.
        judged: What finalists are scored on: the part that is held out, or else the whole split.
        held_out: Images of that part; None where nothing is held out.
    """

    seen: Split
    judged: Split
    held_out: int | None = None


def search_splits(materials: Materials) -> SearchSplits:
    """The parts of the study's validation split; the same in every call."""
    share, val = materials.file.search.holdout, materials.val
    if not share:
        return SearchSplits(seen=val, judged=val)
    seen, held_out = hold_out(val, share, seed=materials.file.study.seed)
    return SearchSplits(seen=seen, judged=held_out, held_out=len(held_out))
