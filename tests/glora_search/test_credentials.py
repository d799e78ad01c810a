"""A password in a URL is shown nowhere: no error, log, result, report, trial, job or traceback.

Every password here holds the same mark, which survives whatever it is encoded with: where the mark
is, the password, or a piece of it, has got out.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import traceback
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import write_study

from glora_search.cli import commands as cli
from glora_search.cli.watching import study_so_far
from glora_search.cluster.reaching import check_reachable
from glora_search.cluster.submitting import resume_submission
from glora_search.recording import Database
from glora_search.recording.storage_url import parse_url
from glora_search.study.credentials import scrubbed
from glora_search.study.errors import ClusterError, StorageError, StudyFileError

MARK = "Zq7Zq7"
ENCODED = {
    "userinfo": "postgresql://ada:{}@127.0.0.1:{port}/studies",
    "option": "postgresql://ada@127.0.0.1:{port}/studies?password={}",
    "option without a user": "postgresql://127.0.0.1:{port}/studies?user=ada&password={}",
    "key's password": "postgresql://ada@127.0.0.1:{port}/studies?sslpassword={}",
    "password twice": "postgresql://ada:{}@127.0.0.1:{port}/studies?password={}",
    "empty name": "postgresql://:{}@127.0.0.1:{port}/studies",
    "other driver": "postgresql+psycopg2://ada:{}@127.0.0.1:{port}/studies",
    "other database": "mysql://ada:{}@127.0.0.1:{port}/studies",
}
UNENCODED = {
    **ENCODED,
    "no scheme": "ada:{}@127.0.0.1:{port}/studies",
    "no host": "postgresql://ada:{}",
    "no host but a name": "postgresql://ada:{}/studies",
    "scheme in the middle": "ada:{}@postgresql://127.0.0.1:{port}/studies",
}


def everything_told(error: BaseException) -> str:
    """What a program could print of an error: whole tracebacks, with all that led to it."""
    chain: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        if (one := left.pop()) is not None and one not in chain:
            chain.append(one)
            left += [one.__cause__, None if one.__suppress_context__ else one.__context__]
    told = "".join(traceback.format_exception(error))
    return "\n".join([told, *map(str, chain), *map(repr, chain), repr(vars(error))])


@pytest.fixture(scope="module")
def closed_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_ODD = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.mark.parametrize("form", ENCODED)
@settings(deadline=None, derandomize=True, max_examples=8)
@given(before=_ODD, after=_ODD)
def test_no_encoded_password_is_told(form: str, closed_port: int, before: str, after: str) -> None:
    """Any characters at all, as RFC 3986 wants them written; nobody answers."""
    secret = urllib.parse.quote(f"{before}{MARK}{after}", safe="")
    url = ENCODED[form].replace("{}", secret).replace("{port}", str(closed_port))
    assert MARK not in _told_of(url)
    with pytest.raises(StorageError) as caught:
        Database.open(url, False)
    assert MARK not in everything_told(caught.value)


@pytest.mark.parametrize("form", UNENCODED)
def test_no_password_is_told_that_was_not_encoded(form: str, closed_port: int) -> None:
    """What somebody types who never heard of percent signs; it spills into other parts of the URL.

    One thing cannot be told apart: `postgresql://ada:@x` may be a password without a host.
    """
    odd = ":/?#%&=+ []{}'\"\\ä" + ("" if form.startswith("no host") else "@")
    for character in odd:
        for secret in (f"{character}{MARK}", f"{MARK}{character}", f"{MARK}{character}{MARK}"):
            url = UNENCODED[form].replace("{}", secret).replace("{port}", str(closed_port))
            assert MARK not in _told_of(url)


def _told_of(url: str) -> str:
    """What is shown of a URL, or the error where it is not accepted."""
    try:
        parsed = parse_url(url)
    except StorageError as error:
        return everything_told(error)
    return f"{parsed.shown} {parsed!r} {parsed}"


# --- a whole study ---


@pytest.fixture
def guarded_url(database_url: str) -> str:
    """A database of the server, whose URL holds passwords with odd characters in two places.

    A server that does not ask for one takes any.
    """
    url = sa.make_url(database_url)
    if url.password or "password" in url.query:
        pytest.skip("the server asks for a password of its own")
    url = url.set(password=f"@{MARK} /{{}}%").update_query_dict({"sslpassword": f"&{MARK}"})
    return url.render_as_string(hide_password=False)


@pytest.mark.postgres
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_whole_study_tells_no_password(
    guarded_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every verb, with all logs of all libraries; then every file, and every table."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    write_study(tmp_path)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["glora-search", "-v", *words, "--storage", guarded_url])
        try:
            cli.main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    assert run("launch", "study.toml") == 0
    assert run("launch", "study.toml") == 1  # it is there
    assert run("status") == 0
    assert run("status", "--json") == 0
    assert run("status", "tiny", "--json") == 0
    assert run("status", "tinny") == 1
    assert run("resume", "tiny") == 0
    assert run("export", "tiny", "--trial", "3", "--out", "three") == 0
    assert run("report", "tiny") == 0
    how = study_so_far("tiny", guarded_url)  # after an interruption
    assert "resume tiny --storage" in how
    assert MARK not in how

    shown = capsys.readouterr()
    assert "tiny" in shown.out
    assert MARK not in shown.out + shown.err
    assert len(caplog.records) > 10
    assert MARK not in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"tiny.html", "subnet.json", "model.safetensors"} <= {path.name for path in files}
    assert [path for path in files if MARK.encode() in path.read_bytes()] == []
    assert not any(MARK in row for row in _rows(guarded_url))


def _rows(url: str) -> Iterator[str]:
    """Every row of every table."""
    engine = sa.create_engine(parse_url(url).url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            for row in connection.exec_driver_sql(f'SELECT * FROM "{table}"'):
                yield repr(tuple(row))


# --- addresses of Ray, and of artifacts ---

_HOSTS = [f"ada:{MARK}@127.0.0.1:{{port}}", f"{MARK}@127.0.0.1:{{port}}", f"a:{MARK}/b@x:{{port}}"]
_ADDRESSES = [f"{scheme}{host}" for scheme in ("http://", "ray://", "") for host in _HOSTS]


@pytest.mark.parametrize("address", _ADDRESSES)
def test_no_password_of_an_address_is_told(
    address: str,
    closed_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ray knows of none, so that it is a mistake; each verb says so, and repeats nothing of it."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    address = address.format(port=closed_port)
    write_study(tmp_path)
    for words in (
        ["launch", "study.toml", "--address", address],
        ["launch", "study.toml", "--set", f"cluster.address={address}"],
        ["launch", "study.toml", "--set", address],
        ["resume", "tiny", "--storage", "cluster", "--address", address],
        ["status", "--address", address],
        ["logs", "x", "--address", address],
        ["stop", "x", "--address", address],
    ):
        monkeypatch.setattr(sys, "argv", ["glora-search", "-v", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        assert ended.value.code in (1, 2), words
        assert "error: " in shown.err
        assert MARK not in shown.out + shown.err + caplog.text, words


def test_no_password_of_an_address_in_the_environment_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"ray://ada:{MARK}@127.0.0.1:1")
    for address in ("auto", f"ray://ada:{MARK}@127.0.0.1:1", f"{MARK}@127.0.0.1:1"):
        with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN_PATH") as caught:
            check_reachable(address)
        assert MARK not in everything_told(caught.value)


def test_no_password_goes_to_the_dashboard() -> None:
    """A job's command is shown there; without the study at hand its overrides are looked at."""
    for override in (
        f"cluster.artifacts=s3://key:{MARK}@bucket",
        f'cluster.artifacts="s3://key:{MARK}@bucket"',
        f"cluster.address=ray://ada:{MARK}@head:1",
        f"ftp://ada:{MARK}@head",
    ):
        with pytest.raises(StudyFileError) as caught:
            resume_submission("tiny", [override], "postgresql://me@db/studies")
        assert MARK not in everything_told(caught.value)


def test_what_a_message_is_scrubbed_of() -> None:
    """A user and a password of a URL; an account that is named has to be read."""
    text = f"403: robot@project.example may not write; ftp://ada:{MARK}@host/x: refused"
    assert scrubbed(text) == "403: robot@project.example may not write; ftp://***@host/x: refused"


_JOBS = """
import json, sys
from glora_search.cluster.connection import WorkerPool, connect, ray
connect(None, WorkerPool(workers=1))
from ray._private.worker import global_worker
jobs = global_worker.gcs_client.get_all_job_info().values()
print(json.dumps([str(job) for job in jobs]))
ray.shutdown()
"""


@pytest.mark.slow
def test_ray_is_not_told_the_command_line() -> None:
    """Ray keeps it of every driver, and shows it on its dashboard and to every other driver."""
    url = f"postgresql://ada:{MARK}@127.0.0.1/studies"
    ran = subprocess.run(
        [sys.executable, "-c", _JOBS, "launch", "--storage", url],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    (job,) = json.loads(ran.stdout)
    assert "glora-search" in job
    assert MARK not in job
