"""The manifests for KubeRay: who is reachable, who may do what, and that names stand for something.

No Kubernetes runs here. `kubectl kustomize` reads the folder as `kubectl apply` would; the rest is
asserted by hand.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml
from deployment import DOCKER, MANIFESTS, ROOT, manifest, pod_templates, read_yaml, strings_in

PODS = dict(pod_templates())
CLUSTER = manifest("raycluster.yaml")
OURS = {"app.kubernetes.io/part-of": "glora-search"}


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
    }


def test_kustomize_reads_the_folder() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    rendered = subprocess.run(
        [kubectl, "kustomize", DOCKER / "kuberay"], capture_output=True, text=True, check=True
    ).stdout
    kinds = {document["kind"] for document in yaml.safe_load_all(rendered)}
    assert kinds == {"PersistentVolumeClaim", "NetworkPolicy", "RayCluster"}


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
    assert all(template["metadata"]["labels"] == OURS for template in PODS.values())


def test_secrets_are_named_and_not_given() -> None:
    """And the database's goes to the head alone, where the drivers of studies run."""
    for path in MANIFESTS:
        document = read_yaml(path)
        assert document["kind"] != "Secret"
        for text in strings_in(document):
            credentials = text.partition("://")[2].partition("@")[0] if "@" in text else ""
            assert ":" not in credentials, f"a password in {text!r}"
    holders = {
        name
        for name, template in PODS.items()
        for volume in template["spec"].get("volumes", [])
        if "secret" in volume
    }
    assert holders == {"head"}
    environment = PODS["head"]["spec"]["containers"][0]["env"]
    assert {e["name"] for e in environment} == {
        "GLORA_SEARCH_STORAGE",
        "PGSERVICEFILE",
        "PGSERVICE",
    }


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
