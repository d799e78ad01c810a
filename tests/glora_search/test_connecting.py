"""Joining a cluster whose head is busy."""

from __future__ import annotations

from typing import Any

import pytest
from ray._raylet import AuthenticationMode, get_authentication_mode

from glora_search.cluster import connection

ENDED_EARLY = """Initialization failure from server:
Traceback (most recent call last):
  File "ray/util/client/server/proxier.py", line 396, in start_specific_server
    cmd = psutil_proc.cmdline()
psutil.ZombieProcess: PID still exists but it's a zombie (pid=17094)
"""
"""What a client was told by the head of a busy machine. A server that is killed as it starts gives
a text with the same first line, after the minute for which Ray waits."""

ENDED_LATER = """Request can't be sent because the Ray client has already been disconnected.
    details = "Attempted to reconnect a session that has already been cleaned up"
"""
"""The same, where the server is killed once it listens and before it has answered."""


def _failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *, times: int) -> list[None]:
    """Have `ray.init` fail so many times; what it returns grows by each call."""
    calls: list[None] = []

    def init(**options: Any) -> None:
        calls.append(None)
        if len(calls) <= times:
            raise error

    monkeypatch.setattr(connection.ray, "init", init)
    return calls


def test_the_next_cluster_is_joined_as_if_it_were_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`ray.init` switches this process to tokens where it starts a cluster, and leaves it so; a
    cluster without tokens that is joined next could then not start a single actor.
    """
    monkeypatch.setattr(connection.ray, "init", lambda **options: connection.set_auth_mode("token"))
    connection._init({})
    assert get_authentication_mode() == AuthenticationMode.TOKEN
    connection.disconnect()
    assert get_authentication_mode() == AuthenticationMode.DISABLED


def test_a_client_whose_server_ended_early_tries_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next server comes up as a rule, and a warning tells why it took longer."""
    calls = _failing(monkeypatch, ConnectionAbortedError(ENDED_EARLY), times=2)
    connection._init({"address": "ray://head:10001"})
    assert len(calls) == 3
    assert caplog.text.count("trying again") == 2


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (ConnectionAbortedError(ENDED_EARLY), 5),
        (ConnectionError(ENDED_LATER), 5),
        (ConnectionError("ray client connection timeout"), 1),
        (ValueError("unknown address"), 1),
    ],
)
def test_what_does_not_pass_is_raised(
    error: Exception, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five tries, or at once where trying again would not help."""
    made = _failing(monkeypatch, error, times=99)
    with pytest.raises(type(error)):
        connection._init({})
    assert len(made) == calls
