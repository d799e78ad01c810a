"""SQLite on file systems of a network: refused, since its locks do not hold there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import psutil

from glora_search.study.errors import StorageError

# As the system names them, without the `fuse.` of those that are a program's.
_KERNEL: Final = {"nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "afs", "davfs"}
_PARALLEL: Final = {"lustre", "gpfs", "beegfs", "ceph", "glusterfs", "orangefs", "panfs", "moosefs"}
_PROGRAMS: Final = {"sshfs", "s3fs", "gcsfuse", "rclone", "mount-s3", "blobfuse2", "juicefs", "mfs"}
_NETWORK: Final = frozenset(_KERNEL | _PARALLEL | _PROGRAMS)


def check_local(file: Path) -> None:
    """Raise StorageError where an SQLite file is, or would be, on a network file system.

    Args:
        file: Of the database; it does not have to be there.
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
    """The type of the file system of a path; an empty text where the system does not tell."""
    resolved = path.absolute().resolve()
    mounts = [
        (len(mount.parts), partition.fstype)
        for partition in psutil.disk_partitions(all=True)
        if resolved.is_relative_to(mount := Path(partition.mountpoint))
    ]
    # Of two on the same point the later one covers the other, and `max` keeps the first it meets.
    return max(reversed(mounts), default=(0, ""), key=lambda found: found[0])[1].lower()
