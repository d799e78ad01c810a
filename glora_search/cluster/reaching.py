"""Whether Ray is where it is said to be, and lets us in: Ray itself would try for half a minute."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Final

import psutil

from glora_search.study.errors import ClusterError

_CONNECT_TIMEOUT_S: Final = 10.0
_HOW_TO_GET_IN: Final = (
    "set RAY_AUTH_TOKEN_PATH to a file with the cluster's token (or RAY_AUTH_TOKEN to the token "
    "itself)"
)


def check_reachable(address: str) -> None:
    """Make ready to connect to an address of Ray's.

    Raises:
        ClusterError: It is no address, nothing listens there, or Ray asks for a token.
    """
    given = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if "@" in given:  # not repeated: it may be a password
        raise ClusterError(
            "the address of Ray has a user or a password before its host; accepted: auto, "
            f"HOST:PORT, ray://HOST:PORT; to be let in, {_HOW_TO_GET_IN}"
        )
    if address == "auto":
        return
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address!r} is a dashboard, where studies run as jobs: submit one with `glora-search "
            "launch --address`"
        )
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise ClusterError(
            f"{address!r} is no address of Ray; accepted: auto, HOST:PORT, ray://HOST:PORT, and on "
            "the command line http://HOST:8265"
        )
    check_answers(host, int(port), address)
    if _asks_for_token(host, int(port), address):
        use_token(host)
        if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
            raise refused(address)


def check_answers(host: str, port: int, address: str) -> None:
    """Raise ClusterError, naming `address`, unless that port accepts connections."""
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ClusterError(f"no Ray at {address!r}: {error.strerror or error}") from error


def use_token(host: str) -> None:
    """Show the cluster at `host` a token, where there is one that is meant for it.

    By default a cluster asks for a token, and Ray by itself sends one only to the cluster that it
    finds under `auto`. A token in the environment is sent to any host. The token in the home
    directory, which Ray makes for clusters of this machine, is sent only to this machine: a request
    to another one would reveal it.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if not given and not (_is_here(host) and (Path.home() / ".ray" / "auth_token").is_file()):
        return
    set_auth_mode("token")


def set_auth_mode(mode: str | None) -> None:
    """Set RAY_AUTH_MODE for this process and for those that it starts; None unsets it."""
    if mode is None:
        os.environ.pop("RAY_AUTH_MODE", None)
    else:
        os.environ["RAY_AUTH_MODE"] = mode
    if "ray" in sys.modules:  # it has read its environment
        from ray._raylet import (  # type: ignore[attr-defined]
            AuthenticationTokenLoader,
            Config,
        )

        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


def refused(address: str) -> ClusterError:
    """What to do about a cluster that does not know us."""
    shown = "our token is not the one" if os.environ.get("RAY_AUTH_MODE") else "a token is needed"
    return ClusterError(f"the Ray at {address!r} does not let us in, {shown}: {_HOW_TO_GET_IN}")


def _is_here(host: str) -> bool:
    """Whether a host name is one of this machine."""
    try:
        wanted = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return wanted <= {a.address for found in psutil.net_if_addrs().values() for a in found}


def _asks_for_token(host: str, port: int, address: str) -> bool:
    """Whether the cluster refuses a request that has no token.

    A token must not be sent to a cluster that needs none: the driver would then demand one from
    the cluster.
    """
    import grpc

    question = "RayletDriver/ClusterInfo" if "://" in address else "NodeInfoGcsService/GetClusterId"
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{question}")(b"", timeout=_CONNECT_TIMEOUT_S)
        except grpc.RpcError as error:  # other errors are raised when Ray connects
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False
