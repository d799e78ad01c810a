"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
"""Hosts that only this machine reaches."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What a server is told when it starts.

    Args:
        storage: Database URL, with an absolute path where it is a file.
        root: The folder below which studies write; one folder for each study.
        data_roots: Further folders from which studies may read: images and checkpoints.
        artifacts: What `cluster.artifacts` of a study may begin with: URLs or absolute paths.
        address: Dashboard of the Ray cluster that runs the studies, `http://HOST:8265`; None to run
            them as processes of this machine.
        job_storage: The database as jobs are told it: a URL without a password, or `cluster`.
        host: Where the server listens.
        port: Likewise.
        token: What a request has to bring to be allowed everything; None asks for none, which is
            for the loopback alone.
        read_token: What a request has to bring to be allowed to read; None where there is none.
        allowed_hosts: Names in the header `Host` that are accepted besides those of the loopback.
        max_body_bytes: Of a request's body.
        poll_s: How often a study is read that somebody follows.
    """

    storage: str = field(repr=False)
    root: Path
    data_roots: tuple[Path, ...] = ()
    artifacts: tuple[str, ...] = ()
    address: str | None = None
    job_storage: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = 8484
    token: str | None = field(default=None, repr=False)
    read_token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: int = 256 * 1024
    poll_s: float = 1.0

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK
