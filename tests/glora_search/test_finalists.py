"""Finalists: who is scored again, who wins, and that every command says the same of it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reporting_studies import outcome, outcomes, recorded
from tiny_study import found, study

from glora_search.cli.study_tables import search_output, study_output
from glora_search.operations.exporting import export
from glora_search.operations.launching import SearchResult, launch, resume
from glora_search.operations.status import list_studies, study_status
from glora_search.recording import Database
from glora_search.reporting.snapshot import take_snapshot
from glora_search.reporting.summary import summary_sentences
from glora_search.stages import searching as search_stage
from glora_search.study.finalists import (
    Finalist,
    Scores,
    best_trials,
    from_attributes,
    score_finalists,
    to_attribute,
    winner_of,
)
from glora_search.study.objectives import BY_LOSS, BY_TOP1, Objectives
from glora_search.study.outcomes import Outcome
from search_spaces import SubnetConfig
from supernet import Evaluation, evaluate_subnets


def scoring(trials: dict[int, Outcome], table: dict[int, Any]) -> Any:
    """Figures by trial number, in an order of their own."""
    numbers = {o.candidate.subnet: number for number, o in trials.items()}

    def score(subnets: Sequence[SubnetConfig]) -> Scores:
        results = [(k, measured(table[numbers[subnet]])) for k, subnet in enumerate(subnets)]
        return random.Random(1).sample(results, len(results))

    return score


def measured(found: Any) -> Any:
    """Loss and top-1 as an evaluation, whose calibrated loss is half of its top-1."""
    if isinstance(found, Exception):
        return found
    loss, top1 = found
    return Evaluation(loss=loss, top1=top1, n_images=1, eval_s=0.1, calibrated_loss=top1 / 2)


TRIALS = dict(
    enumerate(
        [
            outcome(0, loss=0.5, top1=0.8),
            outcome(1, loss=0.4, top1=0.8),
            outcome(2, error_type="ValueError", error="no"),
            outcome(3, loss=0.45, top1=0.9),
            outcome(4, loss=0.7, top1=0.9),
        ]
    )
)
EXACT = {0: (0.39, 0.7), 1: (0.41, 0.8), 3: (0.42, 0.8), 4: (0.1, 1.0)}


def test_the_best_are_scored_and_the_best_of_these_wins() -> None:
    """A trial that was not among the best in the search stays out, whatever it would score."""
    finalists = score_finalists(TRIALS, BY_LOSS, 3, scoring(TRIALS, EXACT))
    assert [(f.trial, f.loss, f.top1) for f in finalists] == [
        (0, 0.39, 0.7),
        (1, 0.41, 0.8),
        (3, 0.42, 0.8),
    ]
    assert winner_of(TRIALS, BY_LOSS, finalists) == 0
    calibrated = {n: replace(o, calibrated_loss=o.loss) for n, o in TRIALS.items()}
    objectives = Objectives.of("calibrated-loss")
    by_calibrated = score_finalists(calibrated, objectives, 3, scoring(TRIALS, EXACT))
    assert [(f.trial, f.calibrated_loss) for f in by_calibrated] == [(0, 0.35), (1, 0.4), (3, 0.4)]
    by_top1 = score_finalists(TRIALS, BY_TOP1, 3, scoring(TRIALS, EXACT))
    assert [f.trial for f in by_top1] == [4, 1, 3], "ties by loss"


def test_fewer_trials_than_finalists() -> None:
    assert len(score_finalists(TRIALS, BY_LOSS, 10, scoring(TRIALS, EXACT))) == 4
    assert score_finalists({}, BY_LOSS, 10, scoring({}, {})) == []


def test_without_finalists_the_best_of_the_search_wins() -> None:
    assert winner_of(TRIALS, BY_LOSS, []) == 1
    assert winner_of(TRIALS, BY_TOP1, []) == 3
    assert winner_of({2: TRIALS[2]}, BY_LOSS, []) is None


def test_a_finalist_that_fails_comes_last() -> None:
    table = {**EXACT, 1: ArithmeticError("not finite")}
    finalists = score_finalists(TRIALS, BY_LOSS, 2, scoring(TRIALS, table))
    assert finalists[1] == Finalist(trial=1, loss=None, top1=None)
    assert winner_of(TRIALS, BY_LOSS, finalists) == 3
    everyone_failed = [finalists[1]]
    assert winner_of(TRIALS, BY_LOSS, everyone_failed) == 1


def test_the_best_trials_are_ranked_as_the_winner_is() -> None:
    """Finalists come first, and what failed, in the search or in float32, is left out."""
    assert best_trials(TRIALS, BY_LOSS, []) == [1, 3, 0, 4]
    assert best_trials(TRIALS, BY_TOP1, []) == [3, 4, 1, 0]
    finalists = score_finalists(TRIALS, BY_LOSS, 3, scoring(TRIALS, EXACT))
    assert best_trials(TRIALS, BY_LOSS, finalists) == [0, 1, 3, 4]
    table = {**EXACT, 1: ArithmeticError("not finite")}
    finalists = score_finalists(TRIALS, BY_LOSS, 2, scoring(TRIALS, table))
    assert best_trials(TRIALS, BY_LOSS, finalists) == [3, 0, 4]


def test_finalists_of_held_out_images_say_so() -> None:
    """Those that failed there as well; and what older versions stored still reads."""
    table = {**EXACT, 1: ArithmeticError("not finite")}
    finalists = score_finalists(TRIALS, BY_LOSS, 3, scoring(TRIALS, table), held_out=40)
    assert [f.held_out for f in finalists] == [40, 40, 40]
    stored = {"finalists": [{"trial": 3, "loss": 0.1, "top1": 0.5}]}
    assert from_attributes(stored) == [Finalist(trial=3, loss=0.1, top1=0.5)]


def test_finalists_survive_the_database(tmp_path: Path) -> None:
    finalists = [Finalist(trial=3, loss=0.1, top1=0.5), Finalist(trial=1, loss=None, top1=None)]
    with recorded(tmp_path, outcomes(5)) as record:
        record.set_attribute("finalists", json.loads(json.dumps(to_attribute(finalists))))
        assert from_attributes(record.attributes) == finalists
    assert from_attributes({}) == []


def test_a_report_names_the_winner_of_the_finalists(tmp_path: Path) -> None:
    """With both of its numbers."""
    with recorded(tmp_path, outcomes(30)) as record:
        best = take_snapshot(record).ranking
        winner = best[3]
        exact = [Finalist(trial=winner, loss=0.1234, top1=0.5)]
        record.set_attribute("finalists", to_attribute(exact))
        snapshot = take_snapshot(record)
        told = " ".join(summary_sentences(snapshot))
    assert snapshot.winner == winner
    assert f"The winner is trial {winner}," in told
    assert "bf16" in told
    assert "0.1234" in told


def test_a_report_tells_what_was_held_out(tmp_path: Path) -> None:
    with recorded(tmp_path, outcomes(30)) as record:
        winner = take_snapshot(record).ranking[3]
        judged = [Finalist(trial=winner, loss=0.1234, top1=0.5, held_out=40)]
        record.set_attribute("finalists", to_attribute(judged))
        told = " ".join(summary_sentences(take_snapshot(record)))
    assert "scored again on 40 val images that it had not seen, the winner is the best" in told
    assert "bf16" not in told


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, 3, "x", [None], [{}], [{"trial": "1"}], {"a": 1}])
def test_a_report_bears_any_attribute(tmp_path: Path, value: Any) -> None:
    """Anybody may write to a database."""
    with recorded(tmp_path, outcomes(5)) as record:
        record.set_attribute("finalists", value)
        snapshot = take_snapshot(record)
    assert snapshot.winner == snapshot.ranking[0]


# A whole study in bf16, on the CPU


HALF: dict[str, Any] = {"search": {"precision": "bf16", "finalists": 6}}


def storage(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


def launched(folder: Path, **sections: dict[str, Any]) -> SearchResult:
    folder.mkdir(exist_ok=True)
    return launch(study(folder, **sections), storage=storage(folder))


@pytest.fixture(scope="module")
def in_bf16(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SearchResult]:
    folder = tmp_path_factory.mktemp("bf16")
    return folder, launched(folder, **HALF)


def finalists_of(folder: Path) -> list[Finalist]:
    with Database.open(storage(folder), create=False) as database:
        return from_attributes(database.open_study("tiny").attributes)


@pytest.mark.slow
def test_the_best_of_a_search_in_bf16_are_scored_in_float32(
    in_bf16: tuple[Path, SearchResult],
) -> None:
    folder, result = in_bf16
    finalists = finalists_of(folder)
    with Database.open(storage(folder), create=False) as database:
        trials = database.open_study("tiny").trials()
        assert database.open_study("tiny").attributes["precision"] == "bf16"
    best = sorted(trials, key=lambda number: BY_LOSS.rank(trials[number]))[:6]
    assert {f.trial for f in finalists} == set(best)
    subnets = [trials[f.trial].candidate.subnet for f in finalists]
    exact = evaluate_subnets(result.supernet, subnets, result.materials.val)
    assert [(f.loss, f.top1) for f in finalists] == [(e.loss, e.top1) for e in exact]
    assert [f.loss for f in finalists] == sorted(e.loss for e in exact)
    assert any(trials[f.trial].loss != f.loss for f in finalists), "bf16 was not measured"
    assert result.winner.candidate == trials[finalists[0].trial].candidate
    assert result.export.trial == finalists[0].trial


@pytest.mark.slow
def test_the_export_says_which_precision_each_number_has(
    in_bf16: tuple[Path, SearchResult],
) -> None:
    folder, result = in_bf16
    first = finalists_of(folder)[0]
    told = json.loads((result.export.directory / "subnet.json").read_text())
    n = len(result.materials.val)
    assert told["val"] == {
        "loss": first.loss,
        "top1": first.top1,
        "n_images": n,
        "precision": "fp32",
    }
    assert told["val_in_search"] == {
        "loss": result.winner.loss,
        "top1": result.winner.top1,
        "n_images": n,
        "precision": "bf16",
    }
    assert told["test"]["precision"] == "fp32"


@pytest.mark.slow
def test_every_command_names_the_same_winner(
    in_bf16: tuple[Path, SearchResult], tmp_path: Path
) -> None:
    folder, result = in_bf16
    first = finalists_of(folder)[0]
    again = export("tiny", tmp_path / "again", storage=storage(folder))
    assert again.trial == first.trial
    assert again.val.loss == first.loss
    status = study_output(study_status("tiny", storage(folder)))
    assert status.document["best"]["trial"] == first.trial
    assert status.document["finalists"][0]["loss"] == first.loss
    assert any("in fp32" in line and f"{first.loss:.4f}" in line for line in status.lines)
    shown = search_output(result)
    assert shown.rows[0][0] == f"trial {first.trial}"
    assert shown.rows[0][2] == f"{first.loss:.4f}"
    assert list_studies(storage(folder)).studies[0].best == first.loss


@pytest.mark.slow
def test_another_trial_keeps_the_numbers_of_the_search(
    in_bf16: tuple[Path, SearchResult], tmp_path: Path
) -> None:
    folder, _ = in_bf16
    finalists = {f.trial for f in finalists_of(folder)}
    other = next(number for number in range(24) if number not in finalists)
    exported = export("tiny", tmp_path / "other", trial=other, storage=storage(folder))
    assert exported.val.precision == "bf16"
    assert exported.val.loss == exported.outcome.loss
    assert exported.val_in_search is None


@pytest.mark.slow
def test_a_search_in_float32_is_as_it_was(tmp_path: Path) -> None:
    """No second scoring, and the best of the search wins."""
    result = launched(tmp_path)
    assert finalists_of(tmp_path) == []
    best = min(result.outcomes, key=BY_LOSS.rank)
    assert result.winner == best
    assert result.export.val.loss == best.loss
    assert result.export.val.precision == "fp32"
    assert result.export.val_in_search is None


@pytest.mark.slow
def test_none_are_scored_where_none_are_asked_for(tmp_path: Path) -> None:
    result = launched(tmp_path, search={"precision": "bf16", "finalists": 0})
    assert finalists_of(tmp_path) == []
    assert result.winner == min(result.outcomes, key=BY_LOSS.rank)
    assert result.export.val.precision == "bf16"


@pytest.mark.slow
def test_a_crash_before_the_end_of_the_scoring_is_made_up_for(
    tmp_path: Path, in_bf16: tuple[Path, SearchResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search is over, the finalists are not recorded yet: they are scored again, and alike."""
    folder, undisturbed = in_bf16

    def interrupted(*_arguments: Any, **_named: Any) -> list[Finalist]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search_stage, "score_finalists", interrupted)
        with pytest.raises(KeyboardInterrupt):
            launched(tmp_path, **HALF)
    assert finalists_of(tmp_path) == []
    result = resume("tiny", storage=storage(tmp_path))
    assert finalists_of(tmp_path) == finalists_of(folder)
    assert found(result.outcomes) == found(undisturbed.outcomes)
    assert result.winner.candidate == undisturbed.winner.candidate
    mine = result.export.directory / "model.safetensors"
    theirs = undisturbed.export.directory / "model.safetensors"
    assert mine.read_bytes() == theirs.read_bytes()
    # What is recorded is not scored once more.
    monkeypatch.setattr(search_stage, "score_finalists", interrupted)
    assert resume("tiny", storage=storage(tmp_path)).winner == result.winner
