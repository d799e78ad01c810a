"""Requests that nobody thought of: from the OpenAPI document by schemathesis, few and seeded.

`GLORA_SEARCH_FUZZ_EXAMPLES=250` makes thousands of them; docs/service.md is about what they must
not reach.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as examples
from server_cases import record, settings, storage

from glora_search.operations.running import ProcessRunner
from glora_search.recording import Database
from glora_search.server.app import make_app

HOST = {"Host": "127.0.0.1:8484"}
EXAMPLES = int(os.environ.get("GLORA_SEARCH_FUZZ_EXAMPLES", "4"))


@pytest.mark.slow
def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    """Whatever is asked, the answer is a result or a problem of the client's, as documented."""
    with Database(storage(tmp_path)) as database:
        record(database, "a")
    app = make_app(settings(tmp_path))
    app.state.service.runner = ProcessRunner(root=tmp_path / "none", storage="none")
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=HOST)
    tried: list[str] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(("/events", "/report")):
            continue  # the one does not end, the other draws

        @seed(7)
        @examples(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            answer = case.call(headers=HOST)
            tried.append(case.path)
            assert answer.status_code < 500, (case.method, case.formatted_path, answer.text)
            assert answer.status_code != 421, "it did not come as far as the routes"

        ask()
    assert len(set(tried)) >= 18
