"""What one outcome becomes in Optuna's tables: a trial, its value, attributes and parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from optuna.distributions import CategoricalDistribution, distribution_to_json
from optuna.storages._rdb.models import TrialValueModel
from optuna.trial import TrialState

from glora_search.recording.trial_codec import encode
from glora_search.records import Fitness, Outcome
from search_spaces import SearchSpace

Columns: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class TrialRows:
    """The rows of one trial, without the keys that the database gives out.

    Args:
        trial: State and times, naive UTC as Optuna keeps them.
        values: One row, or none for a failure.
        attributes: One row a user attribute.
        params: One row a gene.
    """

    trial: Columns
    values: list[Columns]
    attributes: list[Columns]
    params: list[Columns]


class RowEncoder:
    """Encodes the outcomes of one study.

    Args:
        space: What the study's subnets are chosen from.
        fitness: What the study optimises.
    """

    def __init__(self, space: SearchSpace, fitness: Fitness) -> None:
        self._space = space
        self._fitness = fitness
        # A parameter row is the same in every trial that chose the same: made once a choice.
        self._param_rows: list[dict[str, Columns]] = []
        for gene in space.genes:
            text = distribution_to_json(CategoricalDistribution(gene.choices))
            self._param_rows.append(
                {
                    token: {
                        "param_name": gene.name,
                        "param_value": float(k),
                        "distribution_json": text,
                    }
                    for k, token in enumerate(gene.choices)
                }
            )

    def rows(self, outcome: Outcome) -> TrialRows:
        """The rows of `outcome`, which ended now.

        Raises:
            StorageError: The outcome holds numbers that cannot be recorded.
            InvalidConfigError: The subnet is not of the study's search space.
        """
        attributes = encode(outcome)
        genome = self._space.encode(outcome.candidate.subnet)
        value = self._fitness.score(outcome)
        now = datetime.now(UTC).replace(tzinfo=None)
        finite = TrialValueModel.TrialValueType.FINITE
        return TrialRows(
            trial={
                "state": TrialState.FAIL if outcome.failed else TrialState.COMPLETE,
                "datetime_start": now - timedelta(seconds=outcome.eval_s),
                "datetime_complete": now,
            },
            values=[]
            if value is None
            else [{"objective": 0, "value": value, "value_type": finite}],
            attributes=[{"key": k, "value_json": json.dumps(v)} for k, v in attributes.items()],
            params=[rows[token] for rows, token in zip(self._param_rows, genome, strict=True)],
        )
