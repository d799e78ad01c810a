"""Artifacts: what a study makes outlives the disk of whoever drove it."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec.config
import pytest
from file_server import PASSWORD, READER, USER, file_server
from fsspec.core import url_to_fs
from tiny_study import found, study, study_table

from glora_search import export, launch, resume
from glora_search.cli.study_tables import study_output
from glora_search.cluster.artifacts import Artifacts
from glora_search.operations.launching import SearchResult
from glora_search.operations.status import study_status
from glora_search.recording import Database
from glora_search.stages import trained_once as cached_training
from glora_search.stages import training as supernet_stage
from glora_search.stages.progress import Bar, Silent
from glora_search.study.errors import ArtifactError, StudyFileError
from glora_search.study.reading import parse_study
from supernet.export import FILES


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server."""
    with file_server(tmp_path_factory.mktemp("served")) as url:
        yield url


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that fsspec has read from the environment and its files."""
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": USER, "password": PASSWORD})


@pytest.fixture(params=["path", "file", "memory", "ftp"])
def place(request: pytest.FixtureRequest, tmp_path: Path, served: str) -> str:
    """A folder that is not there yet, on different file systems."""
    deep = f"{request.node.originalname}/deep"
    return {
        "path": f"{tmp_path}/{deep}",
        "file": f"file://{tmp_path}/{deep}",
        "memory": f"memory://{deep}",
        "ftp": f"{served}/{deep}",
    }[request.param]


def names_in(place: str) -> list[str]:
    """Every file below a folder."""
    files, root = url_to_fs(place, skip_instance_cache=True)
    return sorted(path.removeprefix(root).lstrip("/") for path in files.find(root))


# --- the folder ---


@pytest.mark.slow
def test_it_holds_what_was_put_there(place: str, tmp_path: Path) -> None:
    """Against a dictionary, through many calls; and nothing else is ever left, there or here."""
    artifacts, held = Artifacts(url=place), {}
    names, rng = ["supernets/a.safetensors", "supernets/b", "study/export/c"], random.Random(0)
    local = tmp_path / "local"
    local.mkdir()
    seen = set()
    for _ in range(60):
        name, content = rng.choice(names), rng.randbytes(rng.choice([0, 1, 100_000]))
        (local / "sent").write_bytes(content)
        step = rng.choice(["put", "put_missing", "remove", "fetch"])
        seen.add((step, name in held))
        if step == "put":
            artifacts.put(local / "sent", name)
            held[name] = content
        elif step == "put_missing":
            artifacts.put_missing(local / "sent", name)
            held.setdefault(name, content)
        elif step == "remove":
            artifacts.remove(name)
            held.pop(name, None)
        else:
            (local / "back").write_bytes(b"before")
            assert artifacts.fetch(name, local / "back") == (name in held)
            assert (local / "back").read_bytes() == held.get(name, b"before")
        assert artifacts.has(name) == (name in held)
        assert names_in(place) == sorted(held)
    assert len(seen) == 8, "something has not been tried"
    assert {path.name for path in local.iterdir()} == {"sent", "back"}


def test_the_check_leaves_nothing(place: str) -> None:
    Artifacts(url=place).check()
    assert names_in(place) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ["path", "ftp"], indirect=True)
def test_readers_see_a_file_whole(place: str, tmp_path: Path) -> None:
    """While it is replaced over and over, by others of many chunks."""
    artifacts, size, wrong = Artifacts(url=place), 2_000_000, []
    sent = tmp_path / "sent"
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            if artifacts.fetch("a", tmp_path / "back"):
                content = (tmp_path / "back").read_bytes()
                if len(content) != size or content.count(content[:1]) != size:
                    wrong.append(len(content))

    reader = threading.Thread(target=read)
    reader.start()
    for letter in b"abcdefghijkl":
        sent.write_bytes(bytes([letter]) * size)
        artifacts.put(sent, "a")
    ended.set()
    reader.join()
    assert wrong == []


def test_a_folder_is_there_with_its_last_file(place: str, tmp_path: Path) -> None:
    artifacts, here, back = Artifacts(url=place), tmp_path / "here", tmp_path / "back"
    here.mkdir()
    for name in FILES:
        (here / name).write_text(f"{name} of ours")
    artifacts.put(here / FILES[0], f"x/export/{FILES[0]}")  # it stopped half-way
    assert not artifacts.fetch_folder("x/export", back, FILES)
    artifacts.put_folder(here, "x/export", FILES)
    artifacts.put_folder(here, "x/export", FILES)  # again, which changes nothing
    back.mkdir()
    assert artifacts.fetch_folder("x/export", back, FILES)
    assert {p.name: p.read_text() for p in back.iterdir()} == {n: f"{n} of ours" for n in FILES}
    assert not artifacts.fetch_folder("x/export", back, FILES), "it would replace what is there"
    (here / FILES[-1]).write_text("of another study")
    with pytest.raises(ArtifactError, match="another study"):
        artifacts.put_folder(here, "x/export", FILES)
    assert not list(tmp_path.glob(".*"))


def test_who_may_only_read(served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export needs to fetch, and puts nothing."""
    (tmp_path / "sent").write_text("x")
    Artifacts(url=f"{served}/read").put(tmp_path / "sent", "a")
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": READER, "password": PASSWORD})
    reading = Artifacts(url=f"{served}/read", read_only=True)
    assert reading.fetch("a", tmp_path / "back")
    reading.put(tmp_path / "sent", "b")
    reading.remove("a")
    assert names_in(f"{served}/read") == ["a"]
    with pytest.raises(ArtifactError, match=r"cannot write .*550"):
        Artifacts(url=f"{served}/read").check()


def test_nothing_is_kept_without_a_place(tmp_path: Path) -> None:
    nowhere = Artifacts(url=None)
    nowhere.check()
    (tmp_path / "sent").write_text("x")
    nowhere.put(tmp_path / "sent", "a")
    nowhere.remove("a")
    assert not nowhere.has("a")
    assert not nowhere.fetch("a", tmp_path / "back")
    assert nowhere.at("a") is None


# --- what is wrong with it ---


def failing(url: str) -> str:
    with pytest.raises(ArtifactError) as caught:
        Artifacts(url=url).check()
    message = str(caught.value)
    assert "\n" not in message
    assert PASSWORD not in message
    return message


def test_one_clear_line(tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    assert "Protocol not known: sss" in failing("sss://bucket")
    assert "s3fs" in failing("s3://bucket/x"), "s3fs is not among the tests' packages"
    assert "file/x" in failing(f"{tmp_path}/file/x")
    assert "refused" in failing("ftp://127.0.0.1:1/x")
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": USER, "password": "wrong"})
    assert "530" in failing(f"{served}/x")


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:{}@bucket/x",
        "ftp://ada:{}/more@host/x",
        "ftp://ada%3A{}@host",
        "ada://:{}@host",
        "s3://bucket/x?secret={}",
        "simplecache::ftp://ada:{}@host",
    ],
)
def test_no_password_in_the_url(tmp_path: Path, url: str) -> None:
    """It would stand in the database; the refusal says where it goes, and does not repeat it."""
    table = study_table(tmp_path, cluster={"artifacts": url.format(PASSWORD)})
    with pytest.raises(StudyFileError, match="AWS_ACCESS_KEY_ID") as caught:
        parse_study(table, origin="x")
    if "?" not in url:
        assert PASSWORD not in str(caught.value)
        with pytest.raises(ArtifactError) as refused:
            Artifacts(url=url.format(PASSWORD))
        assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("s3://bucket/folder/", "s3://bucket/folder"),
        ("abfs://container@account.dfs.core.windows.net/x", None),
        ("sftp://ada@host/x", None),
        ("/shared/me@home:x/a", None),
        ("file:///shared", None),
    ],
)
def test_what_is_accepted(tmp_path: Path, given: str, resolved: str | None) -> None:
    table = study_table(tmp_path, cluster={"artifacts": given})
    assert parse_study(table, origin="x").cluster.artifacts == (resolved or given)


def test_a_path_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = study_table(tmp_path, cluster={"artifacts": "kept/here"})
    assert parse_study(table, origin="x").cluster.artifacts == str(tmp_path / "kept" / "here")


# --- a whole study ---


class StopsAfter(Silent):
    """Interrupts a training as it is told of an epoch; None for never. Remembers all of them."""

    def __init__(self, epoch: int | None = None) -> None:
        self.epoch, self.epochs, self.notes = epoch, list[int](), list[str]()

    @contextlib.contextmanager
    def bar(self, what: str, total: int) -> Iterator[Bar]:
        yield _Training(self) if what.startswith("training") else self

    def note(self, text: str) -> None:
        self.notes.append(text)


class _Training:
    def __init__(self, outer: StopsAfter) -> None:
        self.outer = outer

    def update(self, done: int, note: str = "", *, total: int | None = None) -> None:
        self.outer.epochs.append(done)
        if self.outer.epochs.count(self.outer.epoch or 0):
            raise KeyboardInterrupt


def launch_at(folder: Path, artifacts: str | None, **options: Any) -> SearchResult:
    folder.mkdir(exist_ok=True)
    file = study(folder, cluster={"artifacts": artifacts, "workers": 0})
    return launch(file, storage=storage(folder), **options)


def storage(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return launch_at(tmp_path_factory.mktemp("undisturbed"), None)


def same(first: SearchResult, second: SearchResult) -> bool:
    weights = [r.export.directory / "model.safetensors" for r in (first, second)]
    return (
        found(first.outcomes) == found(second.outcomes)
        and weights[0].read_bytes() == weights[1].read_bytes()
    )


@pytest.mark.slow
def test_the_directory_is_lost_after_the_search(
    tmp_path: Path, served: str, undisturbed: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resume and export fetch what they need; nothing trains, and nothing is exported, again."""
    url = f"{served}/after"
    first = launch_at(tmp_path, url)
    assert same(first, undisturbed)
    weights = (first.export.directory / "model.safetensors").read_bytes()
    (supernet,) = [n for n in names_in(url) if n.startswith("supernets/")]
    assert names_in(url) == sorted([supernet, *(f"tiny/export/{name}" for name in FILES)])

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("it trains, or exports, again")

    monkeypatch.setattr(supernet_stage, "train_supernet", never)
    monkeypatch.setattr("glora_search.operations.launching.export_chosen", never)
    shutil.rmtree(tmp_path / "runs")
    progress = StopsAfter()
    second = resume("tiny", storage=storage(tmp_path), progress=progress)
    assert [note for note in progress.notes if note.startswith("fetched")] == [
        f"fetched {url}/{supernet}",
        f"fetched {url}/tiny/export",
    ]
    assert second.export == first.export
    assert (second.export.directory / "model.safetensors").read_bytes() == weights

    shutil.rmtree(tmp_path / "runs")
    monkeypatch.setitem(fsspec.config.conf, "ftp", {"username": READER, "password": PASSWORD})
    exported = export("tiny", tmp_path / "mine", storage=storage(tmp_path))
    assert (exported.directory / "model.safetensors").read_bytes() == weights

    status = study_status("tiny", storage(tmp_path))
    assert status.supernet == f"{url}/{supernet}"
    assert f"kept      {url}/tiny/export" in study_output(status).lines


@pytest.mark.slow
def test_the_directory_is_lost_while_the_supernet_trains(
    tmp_path: Path, undisturbed: SearchResult
) -> None:
    """Training goes on from the checkpoint that had been put, on the way to the same winner."""
    url = f"memory://{tmp_path.name}"
    with pytest.raises(KeyboardInterrupt):
        launch_at(tmp_path, url, progress=StopsAfter(3))
    (checkpoint,) = names_in(url)
    assert checkpoint.endswith(".training.safetensors")
    shutil.rmtree(tmp_path / "runs")
    progress = StopsAfter()
    result = resume("tiny", storage=storage(tmp_path), progress=progress)
    assert f"fetched {url}/{checkpoint}" in progress.notes
    assert 1 < progress.epochs[0] <= 4
    assert same(result, undisturbed)
    assert checkpoint not in names_in(url), "a finished training leaves no checkpoint"


def test_checkpoints_are_put_in_a_tenth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow connection does not hold up a training that checkpoints at every epoch."""
    now_s, putting_s = 0.0, 0.0

    class Slow(Artifacts):
        def put(self, file: Path, name: str) -> None:
            nonlocal now_s, putting_s
            now_s, putting_s = now_s + 7, putting_s + 7

    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    file = tmp_path / "x.training.safetensors"
    put_now_and_then = cached_training._NowAndThen(Slow(url="memory://x"), file)
    for epoch in range(1000):
        if epoch % 2:
            file.unlink(missing_ok=True)
            file.write_text(str(epoch))
        now_s += 1
        put_now_and_then()
    assert 0.08 * now_s < putting_s < 0.1 * now_s + 7


@pytest.mark.slow
def test_a_damaged_artifact_is_made_again(tmp_path: Path, undisturbed: SearchResult) -> None:
    """A supernet that was cut short on its way is not taken."""
    place = tmp_path / "kept"
    launch_at(tmp_path, str(place))
    (supernet,) = (place / "supernets").iterdir()
    size = supernet.stat().st_size
    supernet.write_bytes(supernet.read_bytes()[:-100])
    shutil.rmtree(tmp_path / "runs")
    assert same(resume("tiny", storage=storage(tmp_path)), undisturbed)
    assert supernet.stat().st_size == size


@pytest.mark.slow
def test_a_place_that_goes_away_is_an_error_at_the_end_alone(
    tmp_path: Path, undisturbed: SearchResult, caplog: pytest.LogCaptureFixture
) -> None:
    """The search goes on without it; then `resume` puts what is missing, elsewhere if told so."""
    place, elsewhere = tmp_path / "kept", f"memory://{tmp_path.name}"

    class Unplugs(StopsAfter):
        @contextlib.contextmanager
        def bar(self, what: str, total: int) -> Iterator[Bar]:
            if what.startswith("training"):
                shutil.rmtree(place)
                place.write_text("no folder")
            with super().bar(what, total) as bar:
                yield bar

    with pytest.raises(ArtifactError, match=r"cannot (look for|write)"):
        launch_at(tmp_path, str(place), progress=Unplugs())
    assert "going on" in caplog.text
    with Database.open(storage(tmp_path), create=False) as database:
        record = database.open_study("tiny")
        assert found(record.history()) == found(undisturbed.outcomes)
        assert record.attributes["status"] == "exporting"
    settings = [f"cluster.artifacts={elsewhere}"]
    result = resume("tiny", storage=storage(tmp_path), overrides=settings)
    assert same(result, undisturbed)
    assert len(names_in(elsewhere)) == 5


@pytest.mark.slow
def test_what_is_wrong_is_told_before_anything_slow(tmp_path: Path, served: str) -> None:
    with pytest.raises(ArtifactError, match="Protocol not known"):
        launch_at(tmp_path, "sss://bucket")
    launch_at(tmp_path / "one", f"{served}/same")
    with pytest.raises(ArtifactError, match="an export of another study of this name"):
        launch_at(tmp_path / "two", f"{served}/same")
    for folder in (tmp_path, tmp_path / "two"):
        assert not (folder / "runs").exists()
        assert not (folder / "studies.db").exists()
