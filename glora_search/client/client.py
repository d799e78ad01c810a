"""The client: each route below /api/v1 as a method, each problem as an error of this project."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import quote

from glora_search.client.answers import Export, ExportFile, Outcome, Readiness, Status
from glora_search.client.downloads import download
from glora_search.client.errors import ServerUnavailableError, error_of
from glora_search.client.events import Event, read_events
from glora_search.study.errors import ArtifactError
from glora_search.study.picking import Pick

try:
    import httpx
except ImportError as error:  # pragma: no cover - the development environment has it
    raise ServerUnavailableError(
        "the client needs httpx, which is not installed; install it with: "
        "pip install 'glora-search[server]'"
    ) from error

_PREFIX: Final = "/api/v1"
_RETRY_S: Final = 1.0
_SILENCE_S: Final = 60.0  # the server says something every 15 s


class Client:
    """A server, as seen from Python. Safe to use from several threads.

    Args:
        url: Such as `http://127.0.0.1:8484`.
        token: What the server asks for; None for one that asks for none.
        timeout_s: For an answer to begin.

    Raises:
        ServerUnavailableError: Every method: nobody answers there.
        StudyNotFoundError, StudyHeldError, ...: Every method: as where a study runs here.
        ServiceError: Every method: the server refuses for another reason.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout_s: float = 30.0) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._url = url.rstrip("/")
        try:
            self._http = httpx.Client(base_url=self._url, headers=headers, timeout=timeout_s)
        except httpx.InvalidURL as error:
            raise ServerUnavailableError(f"{url!r} is no address of a server: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def validate(self, study: str | Path | Mapping[str, Any]) -> dict[str, Any]:
        """A study file, resolved, with the default of every key that is absent.

        Args:
            study: A `Path` of a TOML file, TOML as a string, or nested mappings.

        Raises:
            StudyFileError: All its mistakes.
        """
        resolved: dict[str, Any] = self._send_study("/studies/validate", study)["resolved"]
        return resolved

    def create(self, study: str | Path | Mapping[str, Any], *, start: bool = False) -> str:
        """Create a study, and start it if asked to; returns its name. `study` as in `validate`."""
        path = "/studies?start=true" if start else "/studies"
        return str(self._send_study(path, study)["study"])

    def start(self, name: str) -> None:
        """Launch a study that was created."""
        self._json("POST", _path(name, "start"))

    def resume(self, name: str, *, overrides: Iterable[str] = ()) -> None:
        """Go on with a study where it stopped; `overrides` as in `glora_search.resume`."""
        changes = list(overrides)
        body: dict[str, Any] = {"json": {"overrides": changes}} if changes else {}
        self._json("POST", _path(name, "resume"), **body)

    def stop(self, name: str) -> None:
        """Interrupt a study; it ends soon after, and can be resumed."""
        self._json("POST", _path(name, "stop"))

    def delete(self, name: str, *, files: bool = False) -> None:
        """Delete a study that does not run, and with `files` its folder on the server."""
        query = {"confirm": name, "files": "delete" if files else "keep"}
        with self._answer("DELETE", _path(name), params=query):
            pass

    def studies(
        self, *, status: str | None = None, running: bool | None = None, contains: str = ""
    ) -> Iterator[dict[str, Any]]:
        """All studies, the oldest first.

        Args:
            status: Only those of this status.
            running: Only those that run, or that do not.
            contains: Only those with this in their name.
        """
        wanted = {"status": status, "running": running, "contains": contains}
        filters = {key: value for key, value in wanted.items() if value is not None}
        following: int | None = 0
        while following is not None:
            page = self._json("GET", "/studies", params={**filters, "offset": following})
            yield from page["studies"]
            following = page["next"]

    def status(self, name: str) -> Status:
        """How far a study is."""
        return cast(Status, self._json("GET", _path(name)))

    def outcomes(self, name: str, *, since: int = 0) -> Iterator[Outcome]:
        """The outcomes of a study in the order of recording, from a number on."""
        more = True
        while more:
            query = {"since": since, "limit": 1000}
            page = self._json("GET", _path(name, "outcomes"), params=query)
            yield from page["outcomes"]
            since, more = page["next"], page["more"]

    def history(self, name: str) -> dict[str, Any]:
        """The best of each generation, and each outcome that was better than all before."""
        return self._json("GET", _path(name, "history"))

    def front(self, name: str, *, measure: str = "loss") -> list[Outcome]:
        """The Pareto front of a measure and the number of parameters.

        Args:
            name: The study.
            measure: `loss`, `top1` or `calibrated-loss`.
        """
        answer = self._json("GET", _path(name, "front"), params={"measure": measure})
        found: list[Outcome] = answer["outcomes"]
        return found

    def winner(self, name: str) -> dict[str, Any]:
        """The best subnet so far, with its configuration."""
        return self._json("GET", _path(name, "winner"))

    def subnet(self, name: str, digest: str) -> dict[str, Any]:
        """A subnet by its digest, with its configuration."""
        return self._json("GET", _path(name, "subnets", digest))

    def logs(self, name: str, *, tail: int = 100_000) -> str:
        """The end of the log of a study: at most `tail` bytes."""
        with self._answer("GET", _path(name, "logs"), params={"tail": tail}) as answer:
            answer.read()
            return answer.text

    def events(self, name: str, *, since: int = 0, last_id: str = "") -> Iterator[Event]:
        """What happens to a study, until it is deleted.

        A connection that breaks is made anew, and nothing is missed.

        Args:
            name: The study.
            since: The number of the first outcome.
            last_id: The `id` of the last event that is known already, in the place of `since`.
        """
        reached = False
        while True:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            try:
                timeout = httpx.Timeout(_SILENCE_S)
                with self._answer(
                    "GET",
                    _path(name, "events"),
                    params={"since": since},
                    headers=headers,
                    timeout=timeout,
                ) as answer:
                    reached = True
                    for event in read_events(answer.iter_lines(), last_id):
                        last_id = event.id
                        yield event
                        if event.kind == "gone":
                            return
            except ServerUnavailableError:
                if not reached:
                    raise
            time.sleep(_RETRY_S)

    def wait(self, name: str) -> Status:
        """Wait until nobody drives a study any more; returns its status."""
        for event in self.events(name):
            if event.kind == "gone":
                break
            if event.kind == "state" and not event.data["running"]:
                break
        return self.status(name)

    def exports(self, name: str) -> list[Export]:
        """The exports of a study that were asked for by `begin_export`, and how they stand."""
        found: list[Export] = self._json("GET", _path(name, "exports"))["exports"]
        return found

    def begin_export(
        self,
        name: str,
        *,
        digest: str | None = None,
        pick: Pick | None = None,
        max_params: int | None = None,
    ) -> Export:
        """Let the server make the export of a subnet; returns which one it is, and how it stands.

        Args:
            name: The study.
            digest: As in `glora_search.export`.
            pick: Likewise.
            max_params: Likewise.
        """
        wanted = {"digest": digest, "pick": pick, "max_params": max_params}
        query = {key: value for key, value in wanted.items() if value is not None}
        return cast(Export, self._json("POST", _path(name, "export"), params=query))

    def export(
        self,
        name: str,
        out: Path,
        *,
        digest: str | None = None,
        pick: Pick | None = None,
        max_params: int | None = None,
    ) -> None:
        """Save the export that ended a study, or that of a subnet, as a zip.

        A download that broke off goes on. The export of a subnet is made first, unless the server
        has it.

        Args:
            name: The study.
            out: The file.
            digest: As in `glora_search.export`.
            pick: Likewise.
            max_params: Likewise.

        Raises:
            ArtifactError: The export could not be made, or arrived damaged.
        """
        query: dict[str, Any] = {}
        if digest is not None or pick is not None or max_params is not None:
            wanted = self.begin_export(name, digest=digest, pick=pick, max_params=max_params)
            query["digest"] = wanted["digest"]
            while wanted["state"] == "running":
                time.sleep(_RETRY_S)
                (wanted,) = (e for e in self.exports(name) if e["digest"] == query["digest"])
            if wanted["state"] == "failed":
                raise ArtifactError(f"trial {wanted['trial']}: {wanted['problem']}")
        download(lambda headers: self._export(name, query, headers), out, name)

    def _export(
        self, name: str, query: dict[str, Any], headers: dict[str, str]
    ) -> AbstractContextManager[httpx.Response]:
        return self._answer("GET", _path(name, "export"), params=query, headers=headers)

    def artifacts(self, name: str) -> list[ExportFile]:
        """The files of the export that ended a study."""
        found: list[ExportFile] = self._json("GET", _path(name, "artifacts"))["files"]
        return found

    def artifact(self, name: str, file: str, out: Path) -> None:
        """Save one file of the export that ended a study, whole or not at all.

        Args:
            name: The study.
            file: Its name, as `artifacts` tells it.
            out: Where it is saved.
        """
        self._save(_path(name, "artifacts", file), out)

    def report(self, name: str, out: Path) -> None:
        """Save the report of a study as one HTML file, whole or not at all."""
        self._save(_path(name, "report"), out)

    def health(self) -> dict[str, Any]:
        """That the server lives; needs no token."""
        return self._json("GET", "/health")

    def ready(self) -> Readiness:
        """Whether database and cluster answer, and what is wrong where they do not."""
        with self._answer("GET", "/ready", also=503) as answer:
            answer.read()
            found = _document(answer)
            if "ready" not in found:  # a proxy's 503
                raise error_of(answer.status_code, found)
            return cast(Readiness, found)

    def _save(self, path: str, out: Path) -> None:
        part = out.with_name(f"{out.name}.part")
        with self._answer("GET", path) as answer, part.open("wb") as file:
            for chunk in answer.iter_bytes():
                file.write(chunk)
        part.replace(out)

    def _send_study(self, path: str, study: str | Path | Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(study, Mapping):
            content, kind = json.dumps(study, default=str), "application/json"  # dates of TOML
        else:
            text = study.read_text(encoding="utf-8") if isinstance(study, Path) else study
            content, kind = text, "application/toml"
        return self._json("POST", path, content=content, headers={"Content-Type": kind})

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        with self._answer(method, path, **request) as answer:
            answer.read()
            document: dict[str, Any] = answer.json()
            return document

    @contextmanager
    def _answer(
        self, method: str, path: str, *, also: int | None = None, **request: Any
    ) -> Iterator[httpx.Response]:
        """An answer that is no problem, or has the status `also`."""
        try:
            with self._http.stream(method, f"{_PREFIX}{path}", **request) as answer:
                if answer.is_success or answer.status_code == also:
                    yield answer
                    return
                answer.read()
                raise error_of(answer.status_code, _document(answer))
        except httpx.TransportError as error:
            told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise ServerUnavailableError(
                f"no server answers at {self._url} ({told}); start one by `glora-search serve`"
            ) from error


def _path(name: str, *parts: str) -> str:
    """Of a study's route. No study's name needs quotes, but another text must not get elsewhere."""
    return "/".join(("/studies", *(quote(part, safe="") for part in (name, *parts))))


def _document(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
