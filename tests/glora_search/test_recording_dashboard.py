"""What is written shows in optuna-dashboard, asked through its own JSON interface."""

from __future__ import annotations

import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from recording_cases import SPACE, batch

from glora_search.recording import Database
from glora_search.recording.database import KNOWN_SCHEMAS
from glora_search.study.fronts import front
from glora_search.study.objectives import BY_LOSS_AND_PARAMS, BY_TOP1


def ask(application: Any, path: str) -> Any:
    """The JSON that a GET of `path` answers."""
    environment: dict[str, Any] = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
    setup_testing_defaults(environment)
    statuses: list[str] = []
    body = b"".join(application(environment, lambda status, *_: statuses.append(status)))
    assert statuses == ["200 OK"], body
    return json.loads(body)


@pytest.mark.slow
@pytest.mark.parametrize("schemas", [KNOWN_SCHEMAS, ()], ids=["tables", "public"])
def test_the_dashboard_shows_study_and_trials(database_url: str, schemas: frozenset[str]) -> None:
    with Database(database_url, known_schemas=schemas) as database:
        record = database.create_study(
            "shown", space=SPACE, objectives=BY_TOP1, attributes={"status": "running"}
        )
        with record.hold():
            record.flush(batch(0, 7))

    import optuna_dashboard  # slow: not for every process that collects

    application = optuna_dashboard.wsgi(database_url.replace("ql:", "ql+psycopg:"))
    (listed,) = ask(application, "/api/studies")["study_summaries"]
    assert listed["study_name"] == "shown"
    assert listed["directions"] == ["maximize"]

    detail = ask(application, f"/api/studies/{listed['study_id']}")
    assert detail["name"] == "shown"
    assert {"key": "status", "value": "running"} in detail["user_attrs"]
    assert [trial["state"] for trial in detail["trials"]] == ["Complete"] * 6 + ["Fail"]
    assert [trial["number"] for trial in detail["trials"]] == list(range(7))
    genes = [gene.name for gene in SPACE.genes]
    for trial, outcome in zip(detail["trials"], batch(0, 7), strict=True):
        params = outcome.candidate.subnet.to_params()
        shown = {p["name"]: p["param_external_value"] for p in trial["params"]}
        assert shown == {name: params[name] for name in genes}
        if not outcome.failed:
            assert trial["values"] == [outcome.top1]
    best = max(o.top1 for o in batch(0, 6))
    assert detail["best_trials"][0]["values"] == [best]
    assert [item["name"] for item in detail["union_search_space"]] == sorted(genes)


@pytest.mark.slow
def test_the_dashboard_shows_the_front_of_two_objectives(database_url: str) -> None:
    """The best trials of a study with two directions are its front."""
    with Database(database_url) as database:
        record = database.create_study(
            "two", space=SPACE, objectives=BY_LOSS_AND_PARAMS, attributes={}
        )
        with record.hold():
            record.flush(batch(0, 20))
        numbers = front(record.trials(), BY_LOSS_AND_PARAMS)

    import optuna_dashboard  # slow: not for every process that collects

    application = optuna_dashboard.wsgi(database_url.replace("ql:", "ql+psycopg:"))
    (listed,) = ask(application, "/api/studies")["study_summaries"]
    assert listed["directions"] == ["minimize", "minimize"]
    detail = ask(application, f"/api/studies/{listed['study_id']}")
    assert {trial["number"] for trial in detail["best_trials"]} == set(numbers)
    assert len(numbers) > 1
