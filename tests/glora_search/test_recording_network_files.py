"""SQLite on a file system of a network: refused before anything is written there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from tiny_study import study

from glora_search.operations.launching import launch, resume
from glora_search.recording import network_files
from glora_search.recording.network_files import check_local
from glora_search.study.errors import StorageError


def mounted(monkeypatch: pytest.MonkeyPatch, **kinds: str) -> None:
    """What the system says is mounted; mounting a network here would need its server."""
    found = [SimpleNamespace(mountpoint="/", fstype="ext4")]
    found += [SimpleNamespace(mountpoint=f"/{p}", fstype=kind) for p, kind in kinds.items()]
    monkeypatch.setattr(network_files.psutil, "disk_partitions", lambda **_: found)


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "lustre", "fuse.sshfs"])
def test_a_network(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    mounted(monkeypatch, shared=kind)
    with pytest.raises(StorageError, match=rf"network file system \({kind}\).*postgresql://"):
        check_local(Path("/shared/team/studies.db"))
    check_local(Path("/shared-not/studies.db"))
    check_local(Path("/home/studies.db"))


def test_the_innermost_mount_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of two on one point the later, which covers the other (as automounters do)."""
    mounted(monkeypatch, net="nfs4", **{"net/scratch": "xfs"})
    check_local(Path("/net/scratch/studies.db"))
    found = [SimpleNamespace(mountpoint="/net", fstype=kind) for kind in ("autofs", "nfs4")]
    monkeypatch.setattr(network_files.psutil, "disk_partitions", lambda **_: found)
    with pytest.raises(StorageError, match="nfs4"):
        check_local(Path("/net/studies.db"))


def test_this_machine(tmp_path: Path) -> None:
    """The temporary folder of the tests is on a disk or in memory; and the system tells so."""
    assert network_files._file_system(tmp_path / "studies.db")
    assert any(p.mountpoint == "/" for p in psutil.disk_partitions(all=True))
    check_local(tmp_path / "studies.db")


def test_a_study_is_not_launched_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither launched nor resumed, and nothing is written."""
    file = study(tmp_path)
    mounted(monkeypatch, **{str(tmp_path)[1:]: "nfs"})
    with pytest.raises(StorageError, match="network file system"):
        launch(file, storage=f"sqlite:///{tmp_path}/studies.db")
    with pytest.raises(StorageError, match="network file system"):
        resume("tiny", storage=f"sqlite:///{tmp_path}/studies.db")
    assert not (tmp_path / "studies.db").exists()
