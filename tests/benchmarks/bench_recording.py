"""Writing and reading trials of 240 genes: this project's two stores, in one run.

    python tests/benchmarks/bench_recording.py [DATABASE_URL]

Without a URL it uses a temporary SQLite file. Prints one JSON line: milliseconds a trial
(median and the two quartiles), the ratios between the stores, and what it ran on.
"""

from __future__ import annotations

import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable

import optuna
import sqlalchemy as sa

from glora_search.recording import Database, StudyRecord
from glora_search.recording.database import KNOWN_SCHEMAS
from glora_search.records import Candidate, Fitness, Outcome
from search_spaces import LayerSpec, SearchSpace, load_preset

_LAYERS = [LayerSpec(f"blocks.{k}", 768, 768, bias=True) for k in range(48)]
_SPACE = SearchSpace(_LAYERS, load_preset("mixed").choices)
_WARM_UP, _ROUNDS = 1, 7


def _batch(generation: int, size: int) -> list[Outcome]:
    rng = random.Random(generation)
    return [
        Outcome(
            candidate=Candidate(
                generation=generation,
                index=index,
                operator="random",
                parents=(),
                subnet=(subnet := _SPACE.sample(rng)),
                n_params=_SPACE.n_params(subnet),
            ),
            loss=rng.random(),
            top1=rng.random(),
            eval_s=0.1,
            worker="bench:1",
        )
        for index in range(size)
    ]


def _timed(action: Callable[[], object], trials: int) -> float:
    """Milliseconds a trial."""
    begin = time.perf_counter()
    action()
    return (time.perf_counter() - begin) / trials * 1e3


def _spread(samples: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(samples[_WARM_UP:], n=4)
    return {"median": round(median, 3), "q1": round(low, 3), "q3": round(high, 3)}


def _writing(record: StudyRecord, size: int) -> list[float]:
    samples = []
    with record.hold():
        for generation in range(_WARM_UP + _ROUNDS):
            batch = _batch(generation, size)
            samples.append(_timed(lambda batch=batch: record.flush(batch), size))
    return samples


def main(url: str) -> None:
    """Run both stores on `url` and print the figures."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    figures: dict[str, object] = {}
    medians: dict[str, float] = {}
    for store, schemas, size in (("tables", KNOWN_SCHEMAS, 50), ("public", frozenset(), 2)):
        with Database(url, known_schemas=schemas) as database:
            record = database.create_study(
                f"bench-{uuid.uuid4().hex}", space=_SPACE, fitness=Fitness.LOSS, attributes={}
            )
            name, trials = record.name, size * (_WARM_UP + _ROUNDS)
            figures[f"write_{store}_ms"] = written = _spread(_writing(record, size))
        read = []
        for _ in range(_WARM_UP + _ROUNDS):
            # Opened anew each time: Optuna remembers the trials that it has read.
            with Database(url, known_schemas=schemas) as database:
                record = database.open_study(name)
                read.append(_timed(record.history, trials))
        figures[f"read_{store}_ms"] = _spread(read)
        medians |= {f"write_{store}": written["median"], f"read_{store}": _spread(read)["median"]}
    for what in ("write", "read"):
        ratio = medians[f"{what}_public"] / medians[f"{what}_tables"]
        figures[f"{what}_ratio"] = round(ratio, 1)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    figures |= {
        "genes": len(_SPACE.genes),
        "database": sa.make_url(url).get_backend_name(),
        "machine": f"{platform.machine()}, {platform.system()} {platform.release()}",
        "versions": {
            "python": platform.python_version(),
            "optuna": optuna.__version__,
            "sqlalchemy": sa.__version__,
        },
        "commit": commit.stdout.strip(),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(f"sqlite:///{folder}/bench.db")
