"""What a study costs as it grows: bytes in the database, memory of the driver, seconds to open.

    python tests/benchmarks/bench_scale.py [--sizes 1000 10000] [--full] [--url postgresql://...]

Candidates of 240 genes, as an evolution makes them: each has a parent or two, whose digests it
carries. A study of each size is written, its bytes are counted as the database counts them (tables
with their indexes), and it is opened in a process of its own, as a resume does: seconds, bytes of
history (what is alive afterwards, by tracemalloc in a second process, because that slows reading
down), and the largest resident set. --full adds 100,000 candidates; 25 million rows take a while.
Prints one JSON line: the figures of each size, and the slope between the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from measuring import progress, report
from scratch_database import scratch_database

from glora_search.proposing import SearchSettings, SteadyStateProposer
from glora_search.recording import Database
from glora_search.study.objectives import BY_LOSS
from glora_search.study.outcomes import Outcome
from search_spaces import LayerSpec, SearchSpace, load_preset

_NAMES = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
_SPACE = SearchSpace(
    [LayerSpec(f"blocks.{k}.{name}", 768, 768, bias=True) for k in range(12) for name in _NAMES],
    load_preset("mixed").choices,
)
_BATCH = 500  # a transaction; what is measured here does not depend on it


def main() -> None:
    """Measure on one database, and print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", help="database or server; by default a temporary SQLite file")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--full", action="store_true", help="100,000 candidates as well")
    parser.add_argument(
        "--open", nargs=3, metavar=("URL", "NAME", "TRACED"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.open:
        url, name, traced = options.open
        sys.stdout.write(json.dumps(_opened(url, name, traced=traced == "yes")))
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sizes = sorted({*options.sizes, *([100_000] if options.full else [])})
    figures = []
    for size in sizes:
        with scratch_database(options.url) as url:
            figures.append(_figures(url, size))
            kind = sa.make_url(url).get_backend_name()
        progress(str(figures[-1]))
    report(
        "scale",
        {
            "database": kind,
            "genes": len(_SPACE.genes),
            "by": figures,
            "slope_a_candidate": _slopes(figures[0], figures[-1]) if len(sizes) > 1 else None,
        },
    )


def _figures(url: str, size: int) -> dict[str, Any]:
    """What a study of `size` candidates costs."""
    name = f"bench-{uuid.uuid4().hex}"
    with Database(url) as database:
        record = database.create_study(name, space=_SPACE, objectives=BY_LOSS, attributes={})
        before = _bytes_stored(url)
        begin, batch = time.perf_counter(), list[Outcome]()
        with record.hold():
            for outcome in _outcomes(size):
                batch.append(outcome)
                if len(batch) == _BATCH:
                    record.flush(batch)
                    batch.clear()
            record.flush(batch)
        written_s = time.perf_counter() - begin
    stored = _bytes_stored(url) - before
    plain, traced = (_in_a_process(url, name, flag) for flag in ("no", "yes"))
    return {
        "candidates": size,
        "proposed_and_written_s": round(written_s, 1),
        "database_bytes": stored,
        "database_bytes_a_candidate": round(stored / size),
        "open_s": round(plain["open_s"], 2),
        "history_bytes": traced["history_bytes"],
        "history_bytes_a_candidate": round(traced["history_bytes"] / size),
        "steady_state_bytes": traced["steady_state_bytes"],
        "peak_rss_bytes": plain["peak_rss_bytes"],
        "rss_bytes_without_a_study": plain["rss_bytes_before"],
    }


def _slopes(small: dict[str, Any], large: dict[str, Any]) -> dict[str, float]:
    """What one more candidate costs."""
    more = large["candidates"] - small["candidates"]
    names = ("database_bytes", "history_bytes", "peak_rss_bytes", "open_s")
    return {name: float(f"{(large[name] - small[name]) / more:.4g}") for name in names}


def _outcomes(n: int) -> Iterator[Outcome]:
    """Outcomes of an evolution in a landscape of chance, as they would arrive."""
    population = 50
    settings = SearchSettings(
        mode="steady-state", population=population, generations=-(-n // population) - 1
    )
    children = SteadyStateProposer(_SPACE, settings, 0).children([])
    rng = random.Random(0)
    for number, child in zip(range(n), children, strict=False):
        loss = round(rng.random() - 1e-6 * number, 6)  # there are always new parents
        outcome = Outcome(
            candidate=child,
            loss=abs(loss),
            top1=rng.randrange(200) / 200,
            eval_s=0.1 * rng.random(),
            worker=f"node-{number % 25}:{10_000 + number % 200}",
        )
        children.add(outcome)
        yield outcome


def _bytes_stored(url: str) -> int:
    """Of all tables with their indexes."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            pages, free, size = (
                connection.exec_driver_sql(f"PRAGMA {what}").scalar_one()
                for what in ("page_count", "freelist_count", "page_size")
            )
            found = (pages - free) * size
        else:
            found = connection.exec_driver_sql(
                "SELECT pg_database_size(current_database())"
            ).scalar_one()
    engine.dispose()
    return int(found)


def _in_a_process(url: str, name: str, traced: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--open", url, name, traced]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _opened(url: str, name: str, *, traced: bool) -> dict[str, Any]:
    """Open a study as a resume does; what it took."""
    import gc
    import tracemalloc

    # Everything is imported, and the space has its tables, before anything is counted.
    with Database.open(url, create=False) as database:
        record = database.open_study(name)
        record.tally()
        before = _resident("VmRSS")
        if traced:
            tracemalloc.start()
        begin = time.perf_counter()
        history = record.history()
        open_s = time.perf_counter() - begin
        found = {
            "open_s": open_s,
            "rss_bytes_before": before,
            "peak_rss_bytes": _resident("VmHWM"),
        }
        if traced:
            gc.collect()
            found["history_bytes"] = tracemalloc.get_traced_memory()[0]
            children = SteadyStateProposer(
                record.space, SearchSettings(mode="steady-state", generations=10**6), 0
            ).children(history)
            gc.collect()
            found["steady_state_bytes"] = (
                tracemalloc.get_traced_memory()[0] - found["history_bytes"]
            )
            next(children)
    return found


def _resident(which: str) -> int:
    """Bytes of this process that are in memory, now or at the most, as Linux tells them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [ln for ln in lines if ln.startswith(f"{which}:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
