"""The manifests for Kubernetes are valid, fit together, and fit the service."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from confide.server.api import ROUTES
from confide.server.settings import Settings, get_variable

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "ops" / "kubernetes"
TOOLS = ROOT / ".make" / "kubernetes"
# The oldest and the newest version of Kubernetes that the manifests are checked for.
VERSIONS = ("1.31", "1.37")
# Packages with the schemas of custom resources, which Kubernetes itself does not have.
CUSTOM_RESOURCES = {
    "ServiceMonitor": "@kubernetes-models/prometheus-operator",
    "ExternalSecret": "@kubernetes-models/external-secrets",
}
VALIDATE = """
    const [folder, package_, text] = process.argv.slice(1);
    const resource = JSON.parse(text);
    new (require(`${folder}/${package_}/${resource.apiVersion}`)[resource.kind])(resource).validate();
"""
POD_LABELS = {"app.kubernetes.io/name": "confide"}

Resource = Any


def find_tool(*parts: str) -> Path:
    """Return the path of a tool. Without it, skip the test, and fail in CI."""
    path = TOOLS.joinpath(*parts)
    if not path.exists():
        reason = f"THE KUBERNETES MANIFESTS WERE NOT CHECKED: {path.name} is missing. Run make kubernetes-tools."
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return path


@cache
def render(folder: str) -> str:
    """Render a folder as `kubectl apply --kustomize` does."""
    done = subprocess.run(
        [find_tool("bin", "kubectl"), "kustomize", MANIFESTS / folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(folder: str) -> list[Resource]:
    return list(yaml.safe_load_all(render(folder)))


def find(kind: str, folder: str = "example") -> Resource:
    (found,) = [resource for resource in load(folder) if resource["kind"] == kind]
    return found


def get_pod() -> Resource:
    return find("Deployment")["spec"]["template"]


def get_container() -> Resource:
    (container,) = get_pod()["spec"]["containers"]
    return container


def validate(text: str, version: str, folder: Path) -> str:
    """Validate manifests against the schemas of a Kubernetes version. Return errors."""
    (folder / "manifests.yaml").write_text(text)
    validator, options = find_tool("bin", "kubernetes-validate"), ("--strict", "--quiet", "--no-warn", "-k", version)
    done = subprocess.run([validator, *options, folder / "manifests.yaml"], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", ["base", "example"])
def test_the_manifests_are_valid(tmp_path: Path, folder: str, version: str) -> None:
    assert validate(render(folder), version, tmp_path) == ""


def test_a_deliberately_misspelled_member_is_found(tmp_path: Path) -> None:
    assert "maxSurges" in validate(render("base").replace("maxSurge", "maxSurges"), VERSIONS[-1], tmp_path)


def validate_custom_resource(resource: Resource) -> str:
    folder = find_tool("npm", "node_modules")
    package = CUSTOM_RESOURCES[resource["kind"]]
    command = ["node", "-e", VALIDATE, "--", str(folder), package, json.dumps(resource)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("kind", CUSTOM_RESOURCES)
def test_the_custom_resources_are_valid(kind: str) -> None:
    resource = find(kind)
    assert validate_custom_resource(resource) == ""
    assert "spec" in validate_custom_resource({**resource, "spec": "text"})


def test_every_selector_selects_the_pods_of_the_deployment() -> None:
    labels = get_pod()["metadata"]["labels"]
    assert labels == POD_LABELS
    assert find("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert find("Service")["spec"]["selector"] == labels
    assert find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    (constraint,) = get_pod()["spec"]["topologySpreadConstraints"]
    assert constraint["labelSelector"]["matchLabels"] == labels
    # A ServiceMonitor selects services.
    assert (
        find("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
        <= find("Service")["metadata"]["labels"].items()
    )


def test_every_named_port_exists() -> None:
    (port,) = get_container()["ports"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    (service_port,) = find("Service")["spec"]["ports"]
    assert service_port["targetPort"] == port["name"]
    (endpoint,) = find("ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] == service_port["name"]
    for rule in find("NetworkPolicy")["spec"]["ingress"]:
        assert [allowed["port"] for allowed in rule["ports"]] == [port["name"]]


def test_probes_and_scrapes_use_routes_of_the_service() -> None:
    paths = {route.path for route in ROUTES if route.method == "GET"}
    probes = [get_container()[f"{name}Probe"] for name in ("startup", "liveness", "readiness")]
    assert {probe["httpGet"]["path"] for probe in probes} == {"/health/live", "/health/ready"}
    assert {probe["httpGet"]["path"] for probe in probes} <= paths
    assert find("ServiceMonitor")["spec"]["endpoints"][0]["path"] in paths


def read_variables() -> dict[str, str]:
    """Return the variables of the container. Those from secrets have a placeholder."""
    variables = dict(find("ConfigMap")["data"])
    for variable in get_container()["env"]:
        variables[variable["name"]] = variable.get("value", "")
    return variables


def test_the_variables_are_settings_that_the_service_accepts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = read_variables()
    assert variables.keys() <= {get_variable(name) for name in Settings.model_fields}
    secrets = {"CONFIDE_DATABASE": "postgresql://confide@database/confide", "CONFIDE_MASTER_KEYS": "id key"}
    for name, value in (variables | secrets).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.behind_tls_proxy
    assert settings.trusted_proxies
    assert str(settings.data).startswith(get_container()["volumeMounts"][0]["mountPath"] + "/")


def test_every_secret_and_map_that_the_pod_names_exists() -> None:
    secret = find("ExternalSecret")["spec"]
    keys = {entry["secretKey"] for entry in secret["data"]}
    references = [
        variable["valueFrom"]["secretKeyRef"] for variable in get_container()["env"] if "valueFrom" in variable
    ]
    assert {reference["name"] for reference in references} == {secret["target"]["name"]}
    assert {reference["key"] for reference in references} == keys
    (source,) = get_container()["envFrom"]
    assert source["configMapRef"]["name"] == find("ConfigMap")["metadata"]["name"]
    (volume,) = get_pod()["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == find("PersistentVolumeClaim")["metadata"]["name"]


def find_pod_violations(pod: Resource) -> Iterator[str]:
    """Yield violations of the Pod Security Standard `restricted`, and of a read-only root file system."""
    context = pod["securityContext"]
    if not context.get("runAsNonRoot") or context.get("runAsUser", 0) == 0:
        yield "can run as root"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no seccomp profile"
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares a namespace of the host"
    if not {name for volume in pod["volumes"] for name in volume} <= {"name", "emptyDir", "persistentVolumeClaim"}:
        yield "has a volume of another kind"
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield "can get privileges"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield "has capabilities"
        if not own.get("readOnlyRootFilesystem"):
            yield "has a writable root file system"


@pytest.mark.parametrize("folder", ["base", "example"])
def test_the_pod_follows_the_restricted_standard(folder: str) -> None:
    pod = find("Deployment", folder)["spec"]["template"]["spec"]
    assert list(find_pod_violations(pod)) == []
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("name", ["allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem"])
def test_a_deliberately_removed_restriction_is_found(name: str) -> None:
    pod = json.loads(json.dumps(get_pod()["spec"]))
    del pod["containers"][0]["securityContext"][name]
    assert len(list(find_pod_violations(pod))) == 1


def test_the_service_user_is_that_of_the_image() -> None:
    assert f"USER {get_pod()['spec']['securityContext']['runAsUser']}\n" in (ROOT / "Dockerfile").read_text()


def test_a_pod_gets_more_time_to_end_than_the_service_needs() -> None:
    from confide.server.supervisor import DRAIN_SECONDS  # noqa: PLC0415 - the server is slow to import

    pause = int(get_container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert get_pod()["spec"]["terminationGracePeriodSeconds"] >= 2 * (pause + DRAIN_SECONDS)
