"""The manifests for KubeRay: who is reachable, who may do what, and that names stand for something.

No Kubernetes runs here. `kubectl kustomize` reads the folder as `kubectl apply` would; the rest is
asserted by hand.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from deployment import (
    DOCKER,
    MANIFESTS,
    ROOT,
    compose,
    manifest,
    pod_templates,
    read_yaml,
    strings_in,
    words_of,
)
from fastapi.testclient import TestClient

from glora_search.server.app import make_app
from glora_search.server.settings import ServerSettings

PODS = dict(pod_templates())
CLUSTER = manifest("raycluster.yaml")
SERVER = manifest("server.yaml")
OURS = {"app.kubernetes.io/part-of": "glora-search"}
OF_SERVER = {**OURS, "app.kubernetes.io/component": "server"}


def test_every_file_is_an_object_of_a_known_kind() -> None:
    kinds = {
        path.name: (read_yaml(path)["apiVersion"], read_yaml(path)["kind"]) for path in MANIFESTS
    }
    assert kinds == {
        "artifacts.yaml": ("v1", "PersistentVolumeClaim"),
        "kustomization.yaml": ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
        "network-policy.yaml": ("networking.k8s.io/v1", "NetworkPolicy"),
        "raycluster.yaml": ("ray.io/v1", "RayCluster"),
        "rayjob.yaml": ("ray.io/v1", "RayJob"),
        "server.yaml": ("apps/v1", "Deployment"),
        "server-network-policy.yaml": ("networking.k8s.io/v1", "NetworkPolicy"),
        "server-service.yaml": ("v1", "Service"),
    }


def test_kustomize_reads_the_folder() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    rendered = subprocess.run(
        [kubectl, "kustomize", DOCKER / "kuberay"], capture_output=True, text=True, check=True
    ).stdout
    kinds = [document["kind"] for document in yaml.safe_load_all(rendered)]
    cluster = ["NetworkPolicy", "PersistentVolumeClaim", "RayCluster"]
    assert sorted(kinds) == sorted([*cluster, "Deployment", "NetworkPolicy", "Service"])


def test_ray_wants_a_token_and_is_not_published() -> None:
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token"}
    assert CLUSTER["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    for path in MANIFESTS:
        assert not {"NodePort", "LoadBalancer"} & set(strings_in(read_yaml(path)))


def test_the_version_of_ray_is_the_images() -> None:
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={CLUSTER['spec']['rayVersion']}" in pinned


@pytest.mark.parametrize("name", sorted(PODS))
def test_every_pod_is_confined(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    for container in spec["containers"]:
        _check_confined(container)
        assert set(container["resources"]) == {"requests", "limits"}
    # The head's autoscaler asks Kubernetes for workers, with an account that KubeRay makes.
    assert name == "head" or spec["automountServiceAccountToken"] is False


def test_the_autoscaler_is_confined() -> None:
    _check_confined(CLUSTER["spec"]["autoscalerOptions"])


def _check_confined(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


def test_only_pods_of_the_cluster_get_in() -> None:
    policy = manifest("network-policy.yaml")["spec"]
    assert policy["podSelector"] == {"matchLabels": OURS}
    assert policy["policyTypes"] == ["Ingress"]
    own, operator = policy["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": OURS}}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
    for name, template in PODS.items():
        labels = OF_SERVER if name == "server" else OURS
        assert template["metadata"]["labels"] == labels, name


def test_secrets_are_named_and_not_given() -> None:
    """And the database's goes to the head, where the drivers of studies run, and to the server."""
    for path in MANIFESTS:
        document = read_yaml(path)
        assert document["kind"] != "Secret"
        for text in strings_in(document):
            credentials = text.partition("://")[2].partition("@")[0] if "@" in text else ""
            assert ":" not in credentials, f"a password in {text!r}"
    holders = {
        (name, volume["secret"]["secretName"])
        for name, template in PODS.items()
        for volume in template["spec"].get("volumes", [])
        if "secret" in volume
    }
    database = "glora-search-database"
    assert holders == {
        *(("head", database), ("server", database)),
        ("server", SERVER["metadata"]["name"]),
    }
    of_database = {"GLORA_SEARCH_STORAGE", "PGSERVICEFILE", "PGSERVICE"}
    assert environment_of("head").keys() == of_database | {"GRPC_ENABLE_FORK_SUPPORT"}
    of_server = environment_of("server")
    for name in of_database:
        assert of_server.pop(name) == environment_of("head")[name]
    assert of_server.pop("RAY_AUTH_TOKEN") == {
        "name": "RAY_AUTH_TOKEN",
        "valueFrom": {
            "secretKeyRef": {"name": CLUSTER["metadata"]["name"], "key": "auth_token"},
        },
    }
    assert of_server.keys() == {"RAY_AUTH_MODE", "GLORA_SEARCH_SERVER_TOKEN_FILE"}


def environment_of(name: str) -> dict[str, Any]:
    (container,) = PODS[name]["spec"]["containers"]
    return {entry["name"]: entry for entry in container["env"]}


def test_volumes_that_are_mounted_exist() -> None:
    for template in PODS.values():
        volumes = {volume["name"] for volume in template["spec"].get("volumes", [])}
        for container in template["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for template in PODS.values()
        for volume in template["spec"].get("volumes", [])
        if "persistentVolumeClaim" in volume
    }
    assert claims == {manifest("artifacts.yaml")["metadata"]["name"]}
    assert manifest("artifacts.yaml")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_worker_groups_grow_from_nothing() -> None:
    assert CLUSTER["spec"]["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in CLUSTER["spec"]["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    for name, group in groups.items():
        assert group["minReplicas"] <= group["replicas"] < group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        resources = container["resources"]
        assert resources["requests"] == resources["limits"], "Ray counts what is really there"
        assert ("nvidia.com/gpu" in resources["limits"]) == (name == "gpu")
        assert container["image"].endswith(":cuda") == (name == "gpu")


def test_the_job_runs_on_that_cluster() -> None:
    job = manifest("rayjob.yaml")["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    assert job["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"


def test_the_server_is_that_of_the_compose_file_on_this_cluster() -> None:
    """The same options but for the names by which things are reached, which have to be right."""
    (container,) = PODS["server"]["spec"]["containers"]
    (program, verb), options = options_of(container["command"])
    _, theirs = options_of(compose()["services"]["server"]["command"])
    head = f"{CLUSTER['metadata']['name']}-head-svc"  # what KubeRay calls the head's service
    service = manifest("server-service.yaml")
    expected = {
        **theirs,
        "--address": [f"http://{head}:8265"],
        "--allowed-host": [service["metadata"]["name"]],
    }
    assert (program, verb, options) == ("glora-search", "serve", expected)
    (port,) = container["ports"]
    assert [str(port["containerPort"])] == options["--port"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    token = environment_of("server")["GLORA_SEARCH_SERVER_TOKEN_FILE"]["value"]
    assert str(Path(token).parent) in mounts
    assert token.startswith("/run/secrets/"), "elsewhere a file that the group reads is refused"
    assert str(Path(options["--root"][0]).parent) in mounts


def options_of(command: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The first two words of a command, and its options with their values."""
    options: dict[str, list[str]] = {}
    words = words_of(command)
    for option, _, value in (word.partition("=") for word in words[2:]):
        options.setdefault(option, []).append(value)
    return words[:2], options


@pytest.mark.parametrize("name", ["server", "head", "cpu", "gpu"])
def test_data_have_a_place_that_can_hold_them(name: str) -> None:
    """Study files are in a ConfigMap, of at most 1 MiB; whoever reads data mounts a claim."""
    (server,) = PODS["server"]["spec"]["containers"]
    _, options = options_of(server["command"])
    spec = PODS[name]["spec"]
    claimed = {v["name"] for v in spec["volumes"] if "persistentVolumeClaim" in v}
    (container,) = spec["containers"]
    places = {m["mountPath"]: m["name"] in claimed for m in container["volumeMounts"]}
    holding = {
        root: any(holds and Path(root).is_relative_to(place) for place, holds in places.items())
        for root in options["--data-root"]
    }
    assert holding == {"/studies": False, "/artifacts/data": True}


def test_the_service_finds_the_server_and_its_policy_lets_clients_to_one_port() -> None:
    assert SERVER["spec"]["selector"] == {"matchLabels": OF_SERVER}
    service = manifest("server-service.yaml")["spec"]
    assert (service["selector"], service["type"]) == (OF_SERVER, "ClusterIP")
    (port,) = service["ports"]
    (container,) = PODS["server"]["spec"]["containers"]
    (listening,) = container["ports"]
    assert port["targetPort"] == listening["name"]
    policy = manifest("server-network-policy.yaml")["spec"]
    assert policy["podSelector"] == {"matchLabels": OF_SERVER}
    (rule,) = policy["ingress"]
    assert [p["port"] for p in rule["ports"]] == [listening["containerPort"]]
    clients = {"matchLabels": {"glora-search-client": "true"}}
    assert rule["from"] == [{"namespaceSelector": {}, "podSelector": clients}]


@pytest.mark.slow
def test_probes_ask_routes_that_answer_them(tmp_path: Path) -> None:
    """A real application: health without a token, by a name that is the server's; readiness with
    the token of the file, which the probe's script reads.
    """
    (container,) = PODS["server"]["spec"]["containers"]
    app = make_app(
        ServerSettings(
            storage=f"sqlite:///{tmp_path / 'studies.db'}",
            root=tmp_path,
            host="0.0.0.0",
            token="0123456789abcdef",
            allowed_hosts=("glora-search-server",),
        )
    )
    with TestClient(app, base_url="http://10.1.2.3:8484") as client:
        for name in ("startupProbe", "livenessProbe"):
            asked = container[name]["httpGet"]
            headers = {header["name"]: header["value"] for header in asked["httpHeaders"]}
            assert client.get(asked["path"], headers=headers).status_code == 200
            assert client.get(asked["path"]).status_code == 421, "by the pod's address"
        shell, option, script = container["readinessProbe"]["exec"]["command"]
        subprocess.run([shell, "-n", option, script], check=True)
        program, *words = shlex.split(script)
        assert program == "wget"
        token = environment_of("server")["GLORA_SEARCH_SERVER_TOKEN_FILE"]["value"]
        (header,) = (w.partition("=")[2] for w in words if w.startswith("--header="))
        assert header == f"Authorization: Bearer $(cat {token})"
        url = words[-1]
        brought = {"Authorization": "Bearer 0123456789abcdef", "Host": urlsplit(url).netloc}
        assert client.get(urlsplit(url).path, headers=brought).json()["database"] == "ok"
        assert client.get(urlsplit(url).path, headers={"Host": "localhost"}).status_code == 401
