"""Storing and opening candidates of 240 genes: this project, Optuna's own calls, the raw driver.

    python tests/benchmarks/bench_storage.py [--url postgresql://user@host/name] [--opening 10000]

The default is a temporary SQLite file. On a PostgreSQL server a database of its own is created
beside the one named, and dropped at the end.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import uuid
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

import optuna
import sqlalchemy as sa
from measuring import in_turns, progress, ratios, report, spread
from optuna.distributions import CategoricalDistribution, distribution_to_json
from scratch_database import scratch_database

from glora_search.recording import Database, StudyRecord
from glora_search.recording.trial_codec import encode
from glora_search.study.objectives import BY_LOSS
from glora_search.study.outcomes import Candidate, Outcome
from search_spaces import LayerSpec, SearchSpace, load_preset

_NAMES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_SPACE = SearchSpace(
    [LayerSpec(f"blocks.{k}.{name}", 768, 768, bias=True) for k in range(12) for name in _NAMES],
    load_preset("mixed").choices,
)
_BATCH = 50


def main() -> None:
    """Measure on one database, and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", help="database or server; by default a temporary SQLite file")
    parser.add_argument("--rounds", type=int, default=7, help="how often each rival writes")
    parser.add_argument(
        "--opening", type=int, default=10_000, help="candidates of the study opened"
    )
    parser.add_argument(
        "--rival-trials", type=int, default=100, help="trials that load_study reads"
    )
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with scratch_database(options.url) as url:
        writing = _writing(url, options.rounds)
        opening = _opening(url, options.opening, options.rival_trials)
        kind = sa.make_url(url).get_backend_name()
    report("storage", {"database": kind, "genes": len(_SPACE.genes), **writing, **opening})


def _writing(url: str, rounds: int) -> dict[str, Any]:
    """Milliseconds a candidate, and ratios to the raw driver that inserts rows made beforehand."""
    generations = count()
    sizes = {
        "ours": _BATCH,
        "raw_driver": _BATCH,
        "ours_public_calls": 2,
        "optuna_add_trial": 2,
        "optuna_ask_suggest_tell": 1,
    }
    with Database(url) as database, Database(url, known_schemas=()) as slow:
        studies = {name: _new_study(slow if "public" in name else database) for name in sizes}
        raw = _RawDriver(url, studies["raw_driver"])
        batches = [_batch(next(generations)) for _ in range(3 * (rounds + 1))]
        ready = [raw.rows(batch) for batch in batches[: rounds + 1]]  # these do not count
        guests = {
            name: optuna.load_study(study_name=studies[name].name, storage=_for_optuna(url))
            for name in sizes
            if name.startswith("optuna")
        }

        def flush(name: str) -> None:
            studies[name].flush(batches.pop()[: sizes[name]])

        with studies["ours"].hold(), studies["ours_public_calls"].hold():
            seconds = in_turns(
                {
                    "ours": partial(flush, "ours"),
                    "raw_driver": lambda: raw.insert(*ready.pop()),
                    "ours_public_calls": partial(flush, "ours_public_calls"),
                    "optuna_add_trial": partial(_add_trials, guests["optuna_add_trial"], 2),
                    "optuna_ask_suggest_tell": partial(_ask, guests["optuna_ask_suggest_tell"]),
                },
                rounds=rounds,
            )
        raw.close()
    a_candidate = {name: [s / sizes[name] for s in times] for name, times in seconds.items()}
    return {
        "write_ms": {name: spread([1e3 * s for s in times]) for name, times in a_candidate.items()},
        "write_ratio_to_raw_driver": ratios(a_candidate, "raw_driver"),
    }


def _opening(url: str, n: int, n_rival: int) -> dict[str, Any]:
    """Seconds from nothing to the history of a study; Optuna on fewer trials, scaled up."""
    progress(f"writing a study of {n:,} candidates to open")
    with Database(url) as database:
        big, small = _new_study(database), _new_study(database)
        for record, size in ((big, n), (small, n_rival)):
            with record.hold():
                for generation in range(-(-size // _BATCH)):
                    record.flush(_batch(generation)[: size - generation * _BATCH])
    raw = _RawDriver(url, big)

    def ours() -> None:
        with Database.open(url, create=False) as database:
            assert len(database.open_study(big.name).history()) == n

    def theirs() -> None:
        study = optuna.load_study(study_name=small.name, storage=_for_optuna(url))
        assert len(study.trials) == n_rival

    def public() -> None:
        with Database.open(url, create=False, known_schemas=()) as database:
            assert len(database.open_study(small.name).history()) == n_rival

    seconds = in_turns(
        {"ours": ours, "rows": raw.fetch, "public": public, "theirs": theirs}, rounds=3
    )
    raw.close()
    extrapolated = {name: [s * n / n_rival for s in seconds[name]] for name in ("public", "theirs")}
    return {
        f"open_{n}_s": {
            "ours": spread(seconds["ours"]),
            "raw_driver_fetching_all_parameter_rows": spread(seconds["rows"]),
            f"ours_public_calls_extrapolated_from_{n_rival}": spread(extrapolated["public"]),
            f"optuna_load_study_extrapolated_from_{n_rival}": spread(extrapolated["theirs"]),
        },
        "open_ratio_of_load_study_to_ours": ratios(
            {"load_study": extrapolated["theirs"], "ours": seconds["ours"]}, "ours"
        )["load_study"],
    }


class _RawDriver:
    """Rows as they are, by the driver's quickest call for many: executemany, or COPY."""

    def __init__(self, url: str, record: StudyRecord) -> None:
        self._sqlite = url.startswith("sqlite")
        if self._sqlite:
            self._connection: Any = sqlite3.connect(sa.make_url(url).database or "")
            self._connection.execute("PRAGMA synchronous=EXTRA")
        else:
            import psycopg

            self._connection = psycopg.connect(url)
        mark = "?" if self._sqlite else "%s"
        found = self._connection.execute(
            f"SELECT study_id FROM studies WHERE study_name = {mark}", (record.name,)
        )
        self._study_id = found.fetchone()[0]
        self._keys = count(10**9)  # far from those that the database gives out
        self.close = self._connection.close

    def rows(self, outcomes: Sequence[Outcome]) -> tuple[list[Any], ...]:
        """Rows of the four tables, made beforehand: encoding is none of the driver's business."""
        trials, values, attributes, params = [], [], [], []
        now = datetime.now().isoformat(" ")
        for outcome in outcomes:
            key = next(self._keys)
            trials.append((key, key, self._study_id, "COMPLETE", now, now))
            values.append((key, 0, outcome.loss, "FINITE"))
            attributes += [(key, name, json.dumps(v)) for name, v in encode(outcome).items()]
            subnet = outcome.candidate.subnet.to_params()
            for gene in _SPACE.genes:
                text = distribution_to_json(CategoricalDistribution(gene.choices))
                choice = float(gene.choices.index(subnet[gene.name]))
                params.append((key, gene.name, choice, text))
        return trials, values, attributes, params

    def insert(self, *tables: list[Any]) -> None:
        """All of it in one transaction."""
        columns = (
            "trials (trial_id, number, study_id, state, datetime_start, datetime_complete)",
            "trial_values (trial_id, objective, value, value_type)",
            "trial_user_attributes (trial_id, key, value_json)",
            "trial_params (trial_id, param_name, param_value, distribution_json)",
        )
        for table, rows in zip(columns, tables, strict=True):
            if self._sqlite:
                marks = ", ".join("?" * len(rows[0]))
                self._connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
                continue
            with self._connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        self._connection.commit()

    def fetch(self) -> None:
        """Every parameter row of the study, put into nothing."""
        self._connection.execute(
            "SELECT p.trial_id, p.param_name, p.param_value FROM trial_params p "
            f"JOIN trials t ON t.trial_id = p.trial_id WHERE t.study_id = {self._study_id}"
        ).fetchall()
        self._connection.rollback()


def _add_trials(study: optuna.Study, n: int) -> None:
    distributions = {gene.name: CategoricalDistribution(gene.choices) for gene in _SPACE.genes}
    for outcome in _batch(0)[:n]:
        params = outcome.candidate.subnet.to_params()
        attributes = encode(outcome)
        trial = optuna.create_trial(
            value=outcome.loss, params=params, distributions=distributions, user_attrs=attributes
        )
        study.add_trial(trial)


def _ask(study: optuna.Study) -> None:
    trial = study.ask()
    for gene in _SPACE.genes:
        trial.suggest_categorical(gene.name, gene.choices)
    study.tell(trial, 0.5)


def _batch(generation: int) -> list[Outcome]:
    rng = random.Random(generation)
    return [
        Outcome(
            candidate=Candidate(
                generation=generation,
                index=index,
                operator="crossover",
                parents=(f"{rng.getrandbits(256):064x}", f"{rng.getrandbits(256):064x}"),
                subnet=(subnet := _SPACE.sample(rng)),
                n_params=_SPACE.n_params(subnet),
            ),
            loss=rng.random(),
            top1=rng.random(),
            eval_s=0.1,
            worker="bench:1",
        )
        for index in range(_BATCH)
    ]


def _new_study(database: Database) -> StudyRecord:
    name = f"bench-{uuid.uuid4().hex}"
    return database.create_study(name, space=_SPACE, objectives=BY_LOSS, attributes={})


def _for_optuna(url: str) -> str:
    return url.replace("postgresql:", "postgresql+psycopg:")


if __name__ == "__main__":
    main()
