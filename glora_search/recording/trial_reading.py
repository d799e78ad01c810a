"""Reads the trials of a study from Optuna's tables: whole, or without their parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

import sqlalchemy as sa
from optuna.storages._rdb import models

from glora_search.recording.connection import Connection
from glora_search.recording.genome_rows import GenomeRows
from glora_search.recording.stored_subnets import StoredSubnet
from glora_search.recording.tallies import ENDED, marked
from glora_search.recording.trial_codec import KEYS, check_digest, decode
from glora_search.study.errors import StorageError
from glora_search.study.outcomes import Outcome
from search_spaces import SubnetConfig

_TRIALS: Final[sa.Table] = models.TrialModel.__table__
_ATTRIBUTES: Final[sa.Table] = models.TrialUserAttributeModel.__table__
_TRIALS_A_FETCH: Final = 500  # each is some 7 kB of text


class TrialReader:
    """The trials of one study. Safe to use from several threads.

    Args:
        connection: The open database.
        study_id: Optuna's key of the study.
        name: The study's name, for messages.
        genomes: Reads the parameters.
    """

    def __init__(
        self, connection: Connection, study_id: int, *, name: str, genomes: GenomeRows
    ) -> None:
        self._connection = connection
        self._study_id = study_id
        self._name = name
        self._genomes = genomes
        # Number and key of the last trial that was read. Later trials have higher keys, which are
        # indexed; numbers are not.
        self._last_read = (0, 0)

    def trials(self, since: int = 0) -> dict[int, Outcome]:
        """As `StudyStore.trials` tells it."""
        return self._read(
            self._whole_rows, since, lambda _, genome, __: self._genomes.subnet(genome)
        )

    def outlines(self, since: int = 0) -> dict[int, Outcome]:
        """As `StudyStore.outlines` tells it."""

        def subnet(key: int, _: str | None, attributes: Mapping[str, Any]) -> SubnetConfig:
            if "digest" not in attributes:
                raise StorageError("it lacks the user attribute 'digest'")
            return StoredSubnet(str(attributes["digest"]), key=key, read=self._subnets)

        return self._read(self._outline_rows, since, subnet)

    @cached_property
    def _whole_rows(self) -> sa.Select[Any]:
        return self._rows(self._genomes.column())

    @cached_property
    def _outline_rows(self) -> sa.Select[Any]:  # built once: that takes longer than to ask for news
        return self._rows(sa.null())

    def _rows(self, genome: sa.ColumnElement[Any]) -> sa.Select[Any]:
        """Key, number, attributes and genome of each trial, from a number and from a key on."""
        return sa.select(_TRIALS.c.trial_id, _TRIALS.c.number, _attributes(), genome).where(
            _TRIALS.c.study_id == self._study_id,
            _TRIALS.c.state.in_(ENDED),
            _TRIALS.c.number >= sa.bindparam("since"),
            _TRIALS.c.trial_id >= sa.bindparam("after"),
            marked(),
        )

    def _read(
        self,
        rows: sa.Select[Any],
        since: int,
        subnet: Callable[[int, str | None, Mapping[str, Any]], SubnetConfig],
    ) -> dict[int, Outcome]:
        """Outcomes by number.

        Args:
            rows: As from `_rows`.
            since: The lowest number.
            subnet: Makes a subnet of a trial's key, genome and attributes.
        """
        found, last = {}, self._last_read
        after = last[1] if since and since >= last[0] else 0
        with self._connection.reading() as c:
            c.execution_options(yield_per=_TRIALS_A_FETCH)
            for key, number, text, genome in c.execute(rows, {"since": since, "after": after}):
                with self._damaged(number):
                    attributes = json.loads(text)
                    found[number] = decode(attributes, subnet(key, genome, attributes))
                last = max(last, (number, key))
        self._last_read = last
        return dict(sorted(found.items()))

    def _subnets(self, digests: Mapping[int, str]) -> dict[int, SubnetConfig]:
        """Subnets by the keys of their trials, with the digests that were recorded."""
        query = sa.select(_TRIALS.c.trial_id, _TRIALS.c.number, self._genomes.column())
        keys, found = list(digests), {}
        with self._connection.reading() as c:
            for begin in range(0, len(keys), _TRIALS_A_FETCH):
                some = _TRIALS.c.trial_id.in_(keys[begin : begin + _TRIALS_A_FETCH])
                for key, number, genome in c.execute(query.where(some)):
                    with self._damaged(number):
                        found[key] = check_digest(self._genomes.subnet(genome), digests[key])
        if len(found) < len(digests):
            raise StorageError(
                f"study {self._name!r} has been deleted from {self._connection.shown}"
            )
        return found

    @contextmanager
    def _damaged(self, number: int) -> Iterator[None]:
        """Tell which trial it is that cannot be read."""
        try:
            yield
        except (StorageError, json.JSONDecodeError) as error:
            raise StorageError(
                f"study {self._name!r}, trial {number} is damaged: {error}"
            ) from error


def _attributes() -> sa.ScalarSelect[str]:
    """For a row of `trials`, those of its user attributes that are ours, as one JSON object."""
    members = sa.literal('"') + _ATTRIBUTES.c.key + '":' + _ATTRIBUTES.c.value_json
    return (
        sa.select("{" + sa.func.aggregate_strings(members, ",") + "}")
        .where(_ATTRIBUTES.c.trial_id == _TRIALS.c.trial_id, _ATTRIBUTES.c.key.in_(KEYS))
        .correlate(_TRIALS)
        .scalar_subquery()
    )
