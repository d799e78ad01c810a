"""Refuses SQLite files on network file systems, where SQLite's locks do not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

from glora_search.study.errors import StorageError

# The names that the system gives to file systems, without the prefix `fuse.` of programs.
_KERNEL: Final = {"nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "davfs"}
_PARALLEL: Final = {"lustre", "gpfs", "beegfs", "ceph", "glusterfs", "orangefs", "panfs", "moosefs"}
_PROGRAMS: Final = {"sshfs", "s3fs", "gcsfuse", "rclone", "mount-s3", "blobfuse2", "juicefs", "mfs"}
_NETWORK: Final = frozenset(_KERNEL | _PARALLEL | _PROGRAMS)


def check_local(file: Path) -> None:
    """Raise StorageError if an SQLite file is, or would be, on a network file system.

    Args:
        file: The database's file; it need not exist.
    """
    kind = _file_system(file)
    if kind.removeprefix("fuse.") in _NETWORK:
        raise StorageError(
            f"sqlite:///{file} is on a network file system ({kind}), where SQLite's locks do not "
            "hold and a database can be damaged; put the file on a disk of this machine (only the "
            "driver uses it), or give a server that every machine reaches, such as "
            "postgresql://USER@HOST/NAME"
        )


def _file_system(path: Path) -> str:
    """The type of the file system of a path; an empty text if the system does not know it."""
    resolved = path.absolute().resolve()
    mounts = [
        (len(mount.parts), partition.fstype)
        for partition in psutil.disk_partitions(all=True)
        if resolved.is_relative_to(mount := Path(partition.mountpoint))
    ]
    # Of two mounts at the same point the later one counts. `max` keeps the first of equals, so the
    # order is reversed.
    return max(reversed(mounts), default=(0, ""), key=lambda found: found[0])[1].lower()
