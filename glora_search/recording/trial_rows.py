"""The rows of an outcome in Optuna's tables: a trial, its value and its attributes.

The rows of its parameters, by far the most, are made by `genome_rows`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from optuna.storages._rdb.models import TrialValueModel
from optuna.trial import TrialState

from glora_search.recording.trial_codec import encode
from glora_search.study.objectives import Objectives
from glora_search.study.outcomes import Outcome

Columns: TypeAlias = dict[str, Any]

# One statement writes the whole batch. Row by row PostgreSQL takes twice as long, and with SQLite
# another thread may take Python's global lock after each row.
_ATTRIBUTES_SQLITE: Final = """\
INSERT INTO trial_user_attributes (trial_id, "key", value_json)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
FROM json_each(:rows)
"""
_ATTRIBUTES_POSTGRESQL: Final = """\
INSERT INTO trial_user_attributes (trial_id, "key", value_json)
SELECT * FROM unnest(CAST(:ids AS int[]), CAST(:keys AS text[]), CAST(:texts AS text[]))
"""


@dataclass(frozen=True)
class TrialRows:
    """The rows of one trial, without the keys that the database assigns.

    Args:
        trial: State and times; the times are naive UTC, as in Optuna.
        values: One for each objective; empty for a failure.
        attributes: Key and JSON text of each user attribute.
    """

    trial: Columns
    values: list[Columns]
    attributes: list[tuple[str, str]]


def trial_rows(outcome: Outcome, objectives: Objectives) -> TrialRows:
    """The rows of `outcome`; its evaluation ends now.

    Args:
        outcome: What is to be recorded.
        objectives: What the study optimises.

    Raises:
        StorageError: The outcome holds a number that cannot be recorded.
    """
    attributes = encode(outcome)
    values = objectives.values(outcome) or ()
    now = datetime.now(UTC).replace(tzinfo=None)
    finite = TrialValueModel.TrialValueType.FINITE
    return TrialRows(
        trial={
            "state": TrialState.FAIL if outcome.failed else TrialState.COMPLETE,
            "datetime_start": now - timedelta(seconds=outcome.eval_s),
            "datetime_complete": now,
        },
        values=[
            {"objective": number, "value": value, "value_type": finite}
            for number, value in enumerate(values)
        ],
        attributes=[(key, json.dumps(value)) for key, value in attributes.items()],
    )


def insert_attributes(
    c: sa.Connection, rows: Sequence[tuple[int, str, str]], *, is_sqlite: bool
) -> None:
    """Insert user attributes of trials; each row is (key of the trial, key, JSON text)."""
    if is_sqlite:
        c.execute(sa.text(_ATTRIBUTES_SQLITE), {"rows": json.dumps(rows)})
        return
    ids, keys, texts = map(list, zip(*rows, strict=True))
    c.execute(sa.text(_ATTRIBUTES_POSTGRESQL), {"ids": ids, "keys": keys, "texts": texts})
