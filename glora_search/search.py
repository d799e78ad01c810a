"""The loop that joins who proposes, who evaluates and who records. It holds no state of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from glora_search.errors import StorageError, TooManyFailuresError
from glora_search.evaluating import Evaluator
from glora_search.proposing import Proposer, SearchSettings
from glora_search.recording import StudyRecord
from glora_search.records import Candidate, Outcome

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the loop behaves; none of it changes what a search finds.

    Args:
        max_failures: Failed evaluations that are borne; one more ends the search.
        flush_every: Outcomes after which a batch is written.
        flush_s: Seconds after which a batch is written, full or not.
    """

    max_failures: int = 10
    flush_every: int = 25
    flush_s: float = 5.0


def run_search(
    record: StudyRecord,
    proposer: Proposer,
    evaluator: Evaluator,
    search: SearchSettings,
    loop: LoopSettings,
    *,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Evaluate all generations that the database does not hold yet.

    Generation g is proposed from the outcomes of the generations before it, so a study that was
    stopped anywhere goes on as if it had not been: what is recorded is not evaluated again, what
    was under way is proposed again. Interrupted in whatever way that lets Python run, it writes
    what has arrived.

    Args:
        record: An open study whose lease this process holds.
        proposer: Of the same space and seed as ever in this study.
        evaluator: Where candidates are evaluated.
        search: How many generations.
        loop: Failures and flushes.
        on_outcome: Told of each outcome, those from the database first.

    Returns:
        All outcomes of the study, sorted by generation and index.

    Raises:
        TooManyFailuresError: More than loop.max_failures evaluations failed; all are recorded.
        StorageError: The database holds another subnet where this seed proposes one.
    """
    history = record.history()
    recorded = {outcome.candidate.place: outcome for outcome in history}
    for outcome in history:
        if on_outcome is not None:
            on_outcome(outcome)
    for generation in range(search.generations + 1):
        if sum(place[0] == generation for place in recorded) == search.population:
            continue  # all there: some samplers take long to propose it again
        candidates = proposer.propose(generation, history)
        if not candidates:
            _log.info("generation %d has no new subnet: the search space is exhausted", generation)
            break
        missing = [c for c in candidates if not _is_recorded(c, recorded)]
        batch = _Batch(record, loop)
        try:
            for outcome in evaluator.evaluate(missing):
                batch.add(outcome)
                history.append(outcome)
                if on_outcome is not None:
                    on_outcome(outcome)
                _check_failures(history, loop.max_failures)
        finally:
            batch.flush()
    return sorted(history, key=lambda outcome: outcome.candidate.place)


class _Batch:
    """Outcomes that have arrived and are not written yet: what a SIGKILL may lose."""

    def __init__(self, record: StudyRecord, loop: LoopSettings) -> None:
        self._record, self._loop = record, loop
        self._outcomes: list[Outcome] = []
        self._since = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        waited_s = time.monotonic() - self._since
        if len(self._outcomes) >= self._loop.flush_every or waited_s >= self._loop.flush_s:
            self.flush()

    def flush(self) -> None:
        if self._outcomes:
            self._record.flush(self._outcomes)
        self._outcomes = []
        self._since = time.monotonic()


def _is_recorded(candidate: Candidate, recorded: dict[tuple[int, int], Outcome]) -> bool:
    outcome = recorded.get(candidate.place)
    if outcome is None:
        return False
    if outcome.candidate.subnet != candidate.subnet:
        raise StorageError(
            f"generation {candidate.generation}, index {candidate.index} holds subnet "
            f"{outcome.candidate.subnet.digest[:12]}, but this seed proposes "
            f"{candidate.subnet.digest[:12]}: the study was written with another seed, other "
            "settings or another version of glora-search"
        )
    return True


def _check_failures(history: list[Outcome], max_failures: int) -> None:
    failed = [outcome for outcome in history if outcome.failed]
    if len(failed) > max_failures:
        last = failed[-1]
        raise TooManyFailuresError(
            f"{len(failed)} evaluations failed, search.max_failures is {max_failures}; the last "
            f"one: {last.error_type}: {last.error}"
        )
