"""The loops that join proposer, evaluator and recorder. They hold no state of their own.

There are two: one goes generation by generation; the steady one makes each candidate when a worker
is free.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from glora_search.evaluating import Evaluator
from glora_search.proposing import Proposer, SearchSettings, SteadyStateProposer
from glora_search.recording import StudyRecord
from glora_search.recording.batch_writer import BatchWriter
from glora_search.study.errors import StorageError, TooManyFailuresError
from glora_search.study.outcomes import Candidate, Outcome

_log = logging.getLogger(__name__)

# Batches that may wait in a steady-state search whose database is slower than its workers.
_BACKLOG: Final = 10


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How the loop behaves; none of it changes what a search finds.

    Args:
        max_failures: Failed evaluations at which the search ends.
        flush_every: Outcomes after which a batch is handed to the writer.
        flush_s: Seconds after which a batch is handed to the writer, full or not; looked at as
            outcomes arrive.
    """

    max_failures: int = 10
    flush_every: int = 50
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
    stopped anywhere continues as if it had not been stopped: recorded candidates are not evaluated
    again, and unfinished ones are proposed again. Any interruption that lets Python run writes the
    outcomes that have arrived.

    A batch is written while the next candidates are proposed and evaluated. A SIGKILL loses at most
    that one batch and what has arrived since (see `BatchWriter`); both are evaluated again.

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
        TooManyFailuresError: loop.max_failures evaluations failed; all are recorded.
        StorageError: The database holds another subnet where this seed proposes one, or a batch
            could not be written: raised when the next outcome arrives, and once what has arrived
            was offered to the database again.
        StudyHeldError: The lease was lost; as above.
    """
    with _taking(record, loop, on_outcome) as taken:
        recorded = {outcome.candidate.place: outcome for outcome in taken.history}
        n_recorded = Counter(generation for generation, _ in recorded)
        for generation in range(search.generations + 1):
            if n_recorded[generation] == search.population:
                continue  # all there: some samplers take long to propose it again
            candidates = proposer.propose(generation, taken.history)
            if not candidates:
                _log.info("generation %d has no new subnet: the space is exhausted", generation)
                break
            missing = [c for c in candidates if not _is_recorded(c, recorded)]
            for outcome in evaluator.evaluate(missing):
                taken.take(outcome)
            taken.writer.offer()
    return sorted(taken.history, key=lambda outcome: outcome.candidate.place)


def run_steady_search(
    record: StudyRecord,
    proposer: SteadyStateProposer,
    evaluator: Evaluator,
    loop: LoopSettings,
    *,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Evaluate all candidates that the database does not hold yet, each made for a free worker.

    No worker waits for another. In return the search is not a function of its seed: see
    `glora_search.proposing.steady_state`. A search that was stopped continues from the recorded
    outcomes. Candidates that were being evaluated are lost, and new ones get their numbers. If the
    database is slower than the workers, batches grow to ten times loop.flush_every before workers
    have to wait, and a SIGKILL can lose that many outcomes. Everything else, errors included, is as
    in `run_search`.

    Args:
        record: An open study whose lease this process holds.
        proposer: Of the same space, settings and seed as ever in this study.
        evaluator: Where candidates are evaluated.
        loop: Failures and flushes.
        on_outcome: Told of each outcome, those from the database first.

    Returns:
        All outcomes of the study, sorted by generation and index.
    """
    with _taking(record, loop, on_outcome, hold_up_at=_BACKLOG * loop.flush_every) as taken:
        children = proposer.children(taken.history)
        for outcome in evaluator.evaluate(children):
            children.add(outcome)
            taken.take(outcome)
    return sorted(taken.history, key=lambda outcome: outcome.candidate.place)


@dataclass(frozen=True, eq=False)
class _Taken:
    """The outcomes of a study, from this process and from earlier ones.

    Args:
        history: All outcomes.
        failed: Those that failed.
        writer: Makes them durable.
        max_failures: As in `LoopSettings`.
        on_outcome: Told of each.
    """

    history: list[Outcome]
    failed: list[Outcome]
    writer: BatchWriter
    max_failures: int
    on_outcome: Callable[[Outcome], None] | None

    def take(self, outcome: Outcome) -> None:
        """Record an outcome that has arrived.

        Raises:
            TooManyFailuresError: Now there are too many.
        """
        self.writer.add(outcome)
        self.history.append(outcome)
        if self.on_outcome is not None:
            self.on_outcome(outcome)
        if outcome.failed:
            self.failed.append(outcome)
        _check_failures(self.failed, self.max_failures)


@contextmanager
def _taking(
    record: StudyRecord,
    loop: LoopSettings,
    on_outcome: Callable[[Outcome], None] | None,
    hold_up_at: int | None = None,
) -> Iterator[_Taken]:
    """The recorded outcomes and a writer for new ones; the end of the block writes everything."""
    history = record.history()
    if on_outcome is not None:
        for outcome in history:
            on_outcome(outcome)
    failed = [outcome for outcome in history if outcome.failed]
    with BatchWriter(
        record.flush,
        flush_every=loop.flush_every,
        flush_s=loop.flush_s,
        hold_up_at=hold_up_at,
    ) as writer:
        yield _Taken(history, failed, writer, loop.max_failures, on_outcome)


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


def _check_failures(failed: list[Outcome], max_failures: int) -> None:
    if len(failed) >= max_failures:
        last = failed[-1]
        raise TooManyFailuresError(
            f"{len(failed)} evaluations failed, search.max_failures is {max_failures}; the last "
            f"one: {last.error_type}: {last.error}"
        )
