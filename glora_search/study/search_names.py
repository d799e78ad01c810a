"""Names that the section [search] accepts, and that whoever proposes subnets goes by."""

from __future__ import annotations

from typing import Literal

SamplerName = Literal["evolution", "random", "tpe", "nsgaii"]
OperatorSet = Literal["local", "published"]
SearchMode = Literal["generational", "steady-state"]
WarmStart = Literal["none", "median-rank", "sensitivity", "spread"]
SurrogateName = Literal["none", "ridge", "trees"]
