"""The files under docker/, read strictly; and what compose and KubeRay make of them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
MANIFESTS = sorted(path for path in (DOCKER / "kuberay").glob("*.yaml"))

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class _Strict(yaml.SafeLoader):
    """YAML in which a key stands once; the loader of PyYAML takes the last of several."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [k.value for k, _ in node.value if k.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: {twice} more than once"
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The one document of a file."""
    return yaml.load(path.read_text(encoding="utf-8"), _Strict)


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    """The compose file with its variables' defaults."""
    text = (DOCKER / name).read_text(encoding="utf-8")
    undefined = [v for v, default in _VARIABLE.findall(text) if not default]
    assert not undefined, f"variables without a default: {undefined}"
    document: dict[str, Any] = yaml.load(_VARIABLE.sub(r"\2", text), _Strict)
    return document


def words_of(command: str | list[str]) -> list[str]:
    """A service's command, which has to be a list: no shell in between."""
    assert isinstance(command, list), command
    return [str(word) for word in command]


def manifest(name: str) -> dict[str, Any]:
    """A manifest of docker/kuberay."""
    document: dict[str, Any] = read_yaml(DOCKER / "kuberay" / name)
    return document


def pod_templates() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod that the manifests make, by what it is for."""
    cluster = manifest("raycluster.yaml")["spec"]
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]
    yield "server", manifest("server.yaml")["spec"]["template"]
    yield "submitter", manifest("rayjob.yaml")["spec"]["submitterPodTemplate"]


def strings_in(document: Any) -> Iterator[str]:
    """Every key and value that is text."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from strings_in(key)
            yield from strings_in(value)
    elif isinstance(document, list):
        for value in document:
            yield from strings_in(value)
    elif isinstance(document, str):
        yield document


def free_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
