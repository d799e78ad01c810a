"""Who may ask a server for what, and what a study file from a stranger may not name."""

from __future__ import annotations

import copy
import errno
import logging
import socket
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from pydantic import BaseModel
from server_cases import OWN, READ_TOKEN, TOKEN, keys_of, record, settings, storage
from tiny_study import study_table

from glora_search.recording import Database
from glora_search.server import admission
from glora_search.server.admission import admitted
from glora_search.server.app import make_app
from glora_search.server.headers import HEADERS
from glora_search.server.security import SAFE
from glora_search.server.serving import (
    ServeOptions,
    ServerError,
    listening_sockets,
    run_server,
)
from glora_search.study import path_keys
from glora_search.study.errors import StorageError, StudyFileError
from glora_search.study.study_file import StudyFile

API = "/api/v1"
TOML = {"Content-Type": "application/toml"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with Database(storage(tmp_path)) as database:
        record(database, "a", 1)
    with TestClient(make_app(settings(tmp_path)), base_url=OWN) as opened:
        yield opened


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[TestClient]:
    with Database(storage(tmp_path)) as database:
        record(database, "a", 1)
    app = make_app(settings(tmp_path, token=TOKEN, read_token=READ_TOKEN))
    with TestClient(app, base_url=OWN) as opened:
        yield opened


def test_every_route_asks_for_the_token_that_it_needs(guarded: TestClient) -> None:
    """Whatever the route: a new one is found in the application, and guarded like the others."""
    operations = 0
    read = {"Authorization": f"Bearer {READ_TOKEN}"}
    document = guarded.get(f"{API}/openapi.json", headers=read).json()
    for path, methods in document["paths"].items():
        for method in methods:
            url = path.format(name="zz", digest="0" * 8, file="x")
            operations += 1

            def ask(token: str | None, method: str = method, url: str = url) -> int:
                headers = {} if token is None else {"Authorization": f"Bearer {token}"}
                return guarded.request(method, url, headers=headers).status_code

            if url == f"{API}/health":
                assert ask(None) == 200
                continue
            assert ask(None) == 401, path
            assert ask("wrong-0123456789abcdef") == 401, path
            assert ask(TOKEN) not in (401, 403), path
            assert ask(READ_TOKEN) == 403 or method == "get", path
            assert ask(READ_TOKEN) != 403 or method != "get", path
    assert operations >= 20
    assert guarded.get(f"{API}/openapi.json").status_code == 401
    refused = guarded.get(f"{API}/studies")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert guarded.get(f"{API}/studies", headers={"Authorization": TOKEN}).status_code == 401


def test_every_page_asks_for_the_token_that_it_needs(guarded: TestClient) -> None:
    """Pages stand in no document and guard themselves, so a new one is found in the application.
    Without a token it leads to the login; a form needs the right to change, and comes from here.
    """
    read = {"Authorization": f"Bearer {READ_TOKEN}"}
    document = guarded.get(f"{API}/openapi.json", headers=read).json()
    documented = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
    routes = iter_route_contexts(guarded.app.routes)
    found = {(m, route.path) for route in routes for m in route.methods or ("GET",)}
    pages = found - documented
    harmless = {("POST", "/login"), ("POST", "/logout")}  # they change no study
    without_data = {("GET", "/login"), ("GET", "/static/{name}"), ("POST", "/login")}
    for method, path in sorted(pages):

        def ask(
            token: str | None, headers: dict[str, str], method: str = method, path: str = path
        ) -> int:
            bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
            url, headers = path.format(name="zz"), {**headers, **bearer}
            answer = guarded.request(method, url, headers=headers, follow_redirects=False)
            if answer.status_code == 303 and answer.headers["Location"].startswith("/login?"):
                return 401
            return answer.status_code

        own = {"Origin": OWN}
        for token in (None, "wrong-0123456789abcdef"):
            assert ask(token, own) == 401 or (method, path) in without_data, path
        assert ask(TOKEN, own) not in (401, 403) or (method, path) in without_data, path
        if method in SAFE:
            assert ask(READ_TOKEN, own) != 403, path
            continue
        for foreign in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert ask(TOKEN, foreign) == 403, path
        if (method, path) not in harmless:
            assert ask(TOKEN, {}) == 403, "each browser says where a form comes from"
            assert ask(READ_TOKEN, own) == 403, path
    assert len(pages) >= 15
    assert harmless | without_data <= pages


def test_a_token_is_never_told(
    guarded: TestClient, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither in logs nor in answers nor in the settings' own words."""
    caplog.set_level(logging.DEBUG)
    for token in (TOKEN, READ_TOKEN, f"{TOKEN}x"):
        headers = {"Authorization": f"Bearer {token}"}
        for path in (f"{API}/studies", f"{API}/studies/zz", f"{API}/nothing"):
            assert TOKEN not in guarded.get(path, headers=headers).text
    told = [caplog.text, *capfd.readouterr(), repr(guarded.app.state.settings)]
    assert not any(token in text for token in (TOKEN, READ_TOKEN) for text in told)


def test_a_name_that_is_not_the_servers_is_refused(client: TestClient) -> None:
    """DNS rebinding: a page's own name was pointed to the loopback."""
    for host in ("127.0.0.1:8484", "localhost:8484", "[::1]:8484", "LOCALHOST"):
        assert client.get(f"{API}/studies", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "evil.example:8484", "localhost.evil.example", "", "[", "a@b"):
        assert client.get(f"{API}/studies", headers={"Host": host}).status_code == 421, host


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8485"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_sites_change_nothing(client: TestClient, headers: dict[str, str]) -> None:
    for method, path in (
        ("POST", "/studies/a/resume"),
        ("POST", "/studies"),
        ("DELETE", "/studies/a?confirm=a"),
    ):
        assert client.request(method, API + path, headers=headers).status_code == 403
    assert client.get(f"{API}/studies/a").status_code == 200


def test_own_pages_may(client: TestClient) -> None:
    headers = {"Origin": OWN, "Sec-Fetch-Site": "same-origin"}
    answer = client.delete(f"{API}/studies/a?confirm=a", headers=headers)
    assert answer.status_code == 204


def test_a_body_is_toml_or_json_and_small(client: TestClient, tmp_path: Path) -> None:
    """A form of another site can send neither; and nobody fills the memory."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        headers = {"Content-Type": kind}
        answer = client.post(f"{API}/studies", content=b"a = 1", headers=headers)
        assert answer.status_code == 415, kind
    most = settings(tmp_path).max_body_bytes
    headers = {"Content-Type": "application/toml"}
    told = client.post(f"{API}/studies", content=b"#" * (most + 1), headers=headers)
    assert told.status_code == 413

    def pieces() -> Iterator[bytes]:  # without a Content-Length
        for _ in range(most // 1000 + 2):
            yield b"#" * 1000

    assert client.post(f"{API}/studies", content=pieces(), headers=headers).status_code == 413
    as_json = {"Content-Type": "application/json"}  # that a framework reads before the route
    answer = client.post(f"{API}/studies/a/resume", content=pieces(), headers=as_json)
    assert answer.status_code == 413


def test_an_origin_that_is_no_address_is_refused(client: TestClient) -> None:
    for origin in ("http://[", "null", "http://evil.example"):
        refused = client.post(f"{API}/studies/a/stop", headers={"Origin": origin})
        assert refused.status_code == 403


def test_a_small_document_cannot_stop_the_server(client: TestClient) -> None:
    """The parser's notes on a dotted key grow with the square of its parts, and so would fill the
    memory; a look for headers that tries each space would take hours.
    """
    key = ".".join(["a"] * 20_000)
    documents = [
        *(".".join([name] * 20_000) + " = 1" for name in ("a", '"a.b"', "'a' ", r'"\""')),
        f"# it's a comment\n{key} = 1",
        # what stands in strings of any kind hides nothing that comes after them
        *(f"x = {{y = {text}, {key} = 1}}" for text in ('"""a"b"""', "'''a'b'''", r'"\\"')),
        f'x = """\n" """\n{key} = 1',
    ]
    for document in documents:
        told = client.post(f"{API}/studies/validate", content=document, headers=TOML)
        assert (told.status_code, "nested too deeply" in told.json()["detail"]) == (422, True)
    for quotes in ('"', "'", '\\"', '"""', "'\"", '"" '):
        told = client.post(f"{API}/studies/validate", content=quotes * 50_000, headers=TOML)
        assert told.status_code == 422
    spaces = 'x = """\n[' + " " * 50_000 + '\n"""\n[ study ] # one\nname = 1'
    told = client.post(f"{API}/studies/validate", content=spaces, headers=TOML)
    lines = {each["key"]: each["line"] for each in told.json()["mistakes"]}
    assert lines["study.name"] == 5


def test_who_logs_in_comes_back_to_where_they_were(guarded: TestClient) -> None:
    sent = guarded.get("/compare?study=a&study=b", follow_redirects=False)
    assert sent.status_code == 303
    form = {"token": TOKEN, "next": parse_qs(urlsplit(sent.headers["location"]).query)["next"][0]}
    own = {"Origin": str(guarded.base_url)}
    back = guarded.post("/login", data=form, headers=own, follow_redirects=False)
    assert back.headers["location"] == "/compare?study=a&study=b"


def test_lists_of_numbers_are_no_dotted_keys(client: TestClient) -> None:
    document = f"x = [{'1.5, ' * 200}]\ny = '{'a.' * 200}'"
    told = client.post(f"{API}/studies/validate", content=document, headers=TOML)
    assert "nested too deeply" not in told.text


def test_all_answers_have_the_headers(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also refusals, and what nobody thought of."""
    app = client.app
    monkeypatch.setattr(app.state.service, "status", lambda _name: 1 / 0)
    quiet = TestClient(app, base_url=OWN, raise_server_exceptions=False)
    answers = {
        quiet.get(f"{API}/studies"): 200,
        quiet.get(f"{API}/studies/a"): 500,
        quiet.get("/nothing"): 404,
        quiet.post(f"{API}/studies", headers={"Origin": "http://evil.example"}): 403,
        quiet.get(f"{API}/studies", headers={"Host": "evil.example"}): 421,
    }
    for answer, status in answers.items():
        assert answer.status_code == status
        assert answer.headers.items() >= {k.lower(): v for k, v in HEADERS.items()}.items()
        assert "access-control-allow-origin" not in answer.headers
        assert "division" not in answer.text
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_other_machines_are_let_in_with_a_token_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOKEN", "READ_TOKEN", "TOKEN_FILE", "READ_TOKEN_FILE"):
        monkeypatch.delenv(f"GLORA_SEARCH_SERVER_{name}", raising=False)

    def options(host: str = "0.0.0.0", **changes: Any) -> ServeOptions:
        given = {"port": 1, "root": tmp_path / "runs", "storage": storage(tmp_path)}
        return ServeOptions(host=host, **{**given, **changes})

    with pytest.raises(ServerError, match="--token-file"):
        options().settings()
    assert options("127.0.0.1").settings().token is None
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o644)
    with pytest.raises(ServerError, match="chmod 600"):
        options(token_file=file).settings()
    with monkeypatch.context() as patch:  # a container's secrets, which Compose mounts like that
        patch.setattr("glora_search.server.serving._MOUNTED", tmp_path)
        assert options(token_file=file).settings().token == TOKEN
        file.chmod(0o666)
        with pytest.raises(ServerError, match="chmod 600"):
            options(token_file=file).settings()
    file.chmod(0o600)
    assert options(token_file=file).settings().token == TOKEN
    shared = options("127.0.0.1", token_file=file).settings()  # where others log in
    with TestClient(make_app(shared), base_url=OWN) as client:
        assert client.get("/api/v1/studies").status_code == 401
    monkeypatch.setenv("GLORA_SEARCH_SERVER_TOKEN", "short")
    with pytest.raises(ServerError, match="at least 16") as caught:
        options().settings()
    assert "short" not in str(caught.value)
    monkeypatch.setenv("GLORA_SEARCH_SERVER_TOKEN_FILE", str(file))
    assert options().settings().token == TOKEN
    monkeypatch.setenv("GLORA_SEARCH_SERVER_READ_TOKEN", TOKEN)
    with pytest.raises(ServerError, match="the same"):
        options().settings()


def test_a_cluster_needs_a_database_that_it_reaches(tmp_path: Path) -> None:
    """Told when the server starts, and not when the first study does."""
    given = {"host": "127.0.0.1", "port": 1, "root": tmp_path / "runs"}
    with pytest.raises(StorageError, match="a job runs on the cluster"):
        ServeOptions(**given, storage=storage(tmp_path), address="http://head:8265").settings()
    url = "postgresql://me:secret@db/studies"
    with pytest.raises(StorageError, match=r"PGPASSFILE") as caught:
        ServeOptions(**given, storage=url, address="http://head:8265").settings()
    assert "secret" not in str(caught.value)
    with pytest.raises(ServerError, match="8265"):
        ServeOptions(**given, address="ray://head:10001").settings()


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base install has the verb, and says what it lacks."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ServerError, match=r"uvicorn.*glora-search\[server\]"):
        run_server(settings(tmp_path))


def test_the_document_says_which_routes_need_a_token(guarded: TestClient) -> None:
    """All but those that are answered to whoever asks."""
    bearer = {"Authorization": f"Bearer {READ_TOKEN}"}
    document = guarded.get(f"{API}/openapi.json", headers=bearer).json()
    (scheme,) = document["components"]["securitySchemes"]
    assert document["components"]["securitySchemes"][scheme]["scheme"] == "bearer"
    exempt = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            url = path.format(name="a", digest="0" * 8, file="x")
            refused = guarded.request(method, url).status_code == 401
            assert refused == (operation.get("security") == [{scheme: []}]), (method, path)
            exempt += [] if refused else [path]
    assert exempt == [f"{API}/health"]


def test_the_document_lists_what_clusters_and_studies_refuse(client: TestClient) -> None:
    """502 where a route asks the cluster, 409 wherever a route reads or changes a study."""
    paths = client.get(f"{API}/openapi.json").json()["paths"]
    answers = {
        (method, path): set(operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    study = f"{API}/studies/{{name}}"
    assert {asked for asked, statuses in answers.items() if "502" in statuses} == {
        ("post", f"{API}/studies"),
        ("post", f"{study}/start"),
        ("post", f"{study}/resume"),
        ("post", f"{study}/stop"),
        ("get", f"{study}/logs"),
    }
    of_studies = [statuses for (_, path), statuses in answers.items() if path.startswith(study)]
    assert of_studies
    assert all({"404", "409"} <= statuses for statuses in of_studies)


def test_a_port_in_use_is_told_before_the_server_says_that_it_serves(tmp_path: Path) -> None:
    """By an error of ours, which the verb tells in one line: which port, and what to do."""
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"--port {port}: Address already in use.*another"):
            run_server(settings(tmp_path, port=port), lambda: told.append("serving"))
    assert not told


def test_a_server_listens_at_every_address_of_its_host() -> None:
    """As `localhost`, which is two on most machines: a browser may take either."""

    def is_here(family: int, address: Any) -> bool:
        with socket.socket(family) as tried:
            return tried.connect_ex(address) != errno.EADDRNOTAVAIL

    known = socket.getaddrinfo("localhost", 9, type=socket.SOCK_STREAM)
    here = {address[0] for family, *_, address in known if is_here(family, address)}
    sockets = listening_sockets("localhost", 0)
    listening = {each.getsockname()[0] for each in sockets}
    for each in sockets:
        with socket.socket(each.family) as reader:
            reader.connect(each.getsockname())
        each.close()
    assert listening == here


def test_answers_are_not_held_back() -> None:
    """Until the reader has acknowledged their headers: each would take 40 ms more."""
    for listener in listening_sockets("localhost", 0):
        with listener, socket.socket(listener.family) as reader:
            reader.connect(listener.getsockname())
            connection, _ = listener.accept()
            with connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Study files of strangers


@pytest.fixture
def table(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "backbone.safetensors").touch()  # nothing here reads it
    found = study_table(tmp_path)
    del found["study"]["directory"]
    (tmp_path / "data").mkdir()
    (tmp_path / "backbone.safetensors").rename(tmp_path / "data" / "backbone.safetensors")
    found["backbone"]["checkpoint"] = "backbone.safetensors"
    return found


def test_a_study_reads_below_the_data_roots_and_writes_below_the_root(
    table: dict[str, Any], tmp_path: Path
) -> None:
    allowed = settings(tmp_path, data_roots=(tmp_path / "data",), artifacts=("s3://mine/x",))
    table["export"] = {"directory": "best"}
    table["cluster"]["artifacts"] = "s3://mine/x/y"
    found = admitted(table, allowed)
    assert found["study"]["directory"] == str(allowed.root)
    assert found["backbone"]["checkpoint"] == str(tmp_path / "data" / "backbone.safetensors")
    assert found["export"]["directory"] == str(allowed.root / "tiny" / "best")


HOSTILE: list[tuple[str, Any]] = [
    ("study.directory", "/tmp"),
    ("study.directory", "../elsewhere"),
    ("study.name", "supernets"),
    ("study.name", "../x"),
    ("backbone.checkpoint", "/etc/passwd"),
    ("backbone.checkpoint", "../secret"),
    ("backbone.checkpoint", "link/secret"),
    ("backbone.checkpoint", "~/.ssh/id_rsa"),
    ("backbone.checkpoint", "a\x00b"),
    ("supernet.checkpoint", "/etc/passwd"),
    ("backbone.model", "local-dir:/etc"),
    ("backbone.model", "hf-hub:evil/model"),
    ("backbone.args.checkpoint_path", "x.pth"),
    ("backbone.args.pretrained_cfg", {"file": "/etc/passwd"}),
    ("backbone.args.cache_dir", "x"),
    ("backbone.args.img_size", "/etc/passwd"),
    ("backbone.pretrain", {"data": {"source": "folder", "root": "/etc"}}),
    ("data", {"source": "folder", "root": "/etc"}),
    ("data", {"source": "folder", "root": ".", "train": "../../etc"}),
    ("data", {"source": "vtab", "root": ".", "task": "/etc"}),
    ("data", {"source": "timm", "name": "wds/x", "train_split": "x"}),
    ("data", {"source": "timm", "name": "hfds//etc"}),
    ("data", {"source": "timm", "name": "torch/x", "train_split": "pipe:touch /tmp/x"}),
    ("cluster.address", "http://169.254.169.254"),
    ("cluster.address", "auto"),
    ("cluster.artifacts", "/etc"),
    ("cluster.artifacts", "s3://mine/x/../y"),
    ("cluster.artifacts", "s3://mine/xyz"),
    ("export.directory", "/tmp/x"),
    ("export.directory", "../other/export"),
    ("export.directory", "."),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE)
def test_a_study_cannot_name_what_is_not_its_own(
    table: dict[str, Any], tmp_path: Path, key: str, value: Any
) -> None:
    allowed = settings(tmp_path, data_roots=(tmp_path / "data",), artifacts=("s3://mine/x",))
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "data" / "link").symlink_to(tmp_path)
    *sections, last = key.split(".")
    target = table = copy.deepcopy(table)
    if key == "backbone.pretrain":
        del table["backbone"]["checkpoint"]
    for section in sections:
        target = target.setdefault(section, {})
    target[last] = value
    with pytest.raises(StudyFileError) as caught:
        admitted(table, allowed)
    named = keys_of([vars(mistake) for mistake in caught.value.mistakes])
    assert any(f"{found}.".startswith(f"{key}.") for found in named), named


def _texts(kind: type[BaseModel], place: str = "") -> Iterator[tuple[str, bool]]:
    """Each key of a section that holds a text or a path, and whether it is a path."""
    for name, field in kind.model_fields.items():
        key = f"{place}{name}"
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _texts(part, f"{key}.")
            elif part in (str, Path):
                yield key, part is Path


def _parts(annotation: Any) -> Iterator[Any]:
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal or not inner:
        yield annotation
        return
    for each in inner:
        yield from _parts(each)


def test_every_key_that_could_be_a_path_is_known() -> None:
    """A new key of a study file that holds a path or a free text has to be decided on here."""
    found = set(_texts(StudyFile))
    paths = {key for key, is_path in found if is_path}
    assert paths <= {*path_keys.READ, *path_keys.WRITTEN}
    data = {
        f"{section}.{key}"
        for section in ("data", "backbone.pretrain.data")
        for key in (*admission.NAMES, *admission.SPLITS)
    }
    decided = {
        *(*path_keys.READ, *path_keys.WRITTEN, *admission.MACHINES, *admission.FREE, *data),
        *("backbone.model", "backbone.args", "space.choices"),
    }
    assert {key for key, _ in found} <= decided
    assert len(found) > 15
