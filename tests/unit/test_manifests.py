"""What manifests/ and the Dockerfile say, without a cluster: pods that are restricted, names that exist.

tests/cluster/test_manifests.py asks a real API server.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.series import shown_series

from circuitbreaker_operator.settings import unknown_variables

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job"}
FILES = sorted(MANIFESTS.rglob("*.yaml"))
FOLDERS = [path.parent for path in FILES if path.name == "kustomization.yaml"]
ALERTS = MANIFESTS / "components" / "monitoring" / "alerts.yaml"


def documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in FILES:
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield path, each


def pods() -> list[Any]:
    """The pods of workloads; patches, which say of a pod only what they change, are not among them."""
    found = [
        (path, each["spec"]["template"]["spec"])
        for path, each in documents()
        if each.get("kind") in WORKLOADS and not path.name.endswith("-patch.yaml")
    ]
    return [pytest.param(pod, id=path.stem) for path, pod in found]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("pod", pods())
def test_every_container_is_restricted(pod: dict[str, Any]) -> None:
    """More than Pod Security asks for: a numeric user, a read-only root, and bounds for what is used."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for each in containers(pod):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(each["resources"]["requests"]) == set(each["resources"]["limits"]) == {"cpu", "memory"}
    for each in pod["containers"]:
        assert {"livenessProbe", "readinessProbe"} <= set(each)


@pytest.mark.parametrize("pod", pods())
def test_who_has_a_token(pod: dict[str, Any]) -> None:
    """The operator, and nobody else; no pod runs as the namespace's default account."""
    assert pod["serviceAccountName"] != "default"
    is_operator = pod["serviceAccountName"] == "circuitbreaker-operator"
    assert pod["automountServiceAccountToken"] is is_operator


def test_accounts_hand_out_no_token_by_themselves() -> None:
    accounts = [each for _, each in documents() if each.get("kind") == "ServiceAccount"]
    assert len(accounts) == 2
    assert [each["automountServiceAccountToken"] for each in accounts] == [False, False]


def test_settings_exist() -> None:
    """A typing error in a ConfigMap would be a default in force."""
    names = {
        literal.partition("=")[0]
        for _, each in documents()
        for generator in each.get("configMapGenerator", [])
        for literal in generator.get("literals", [])
    }
    assert {"CB_REDIS_URL", "CB_REDIS_PASSWORD_FILE"} <= names
    assert unknown_variables(dict.fromkeys(names, "")) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(MANIFESTS)))
def test_no_file_is_forgotten(folder: Path) -> None:
    """What lies beside a kustomization is used by it, but for role.yaml, which is applied by itself."""
    text = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    others = {path.name for path in folder.iterdir()} - {"kustomization.yaml", "role.yaml"}
    assert [name for name in sorted(others) if not re.search(rf"(?<![\w-]){re.escape(name)}\b", text)] == []


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_are_about_series_that_exist() -> None:
    """A metric that is renamed would leave an alert that never comes."""
    shown = shown_series()
    for rule in rules():
        used = re.findall(r"\b(circuitbreaker_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert used
        for name, selector in used:
            assert name in shown, rule["alert"]
            labels = set(re.findall(r"(\w+)\s*!?=", selector))
            assert not shown[name] or labels <= shown[name], rule["alert"]


def test_each_alert_has_a_case_for_and_one_against() -> None:
    cases = yaml.safe_load((ROOT / "tests" / "cluster" / "alerts.test.yaml").read_text(encoding="utf-8"))["tests"]
    expected: dict[str, set[bool]] = {rule["alert"]: set() for rule in rules()}
    for case in cases:
        for each in case["alert_rule_test"]:
            expected[each["alertname"]].add(bool(each["exp_alerts"]))
    assert expected == {name: {True, False} for name in expected}


def test_the_guides_name_what_is_there() -> None:
    """Paths, alerts and settings of the pages on installing and what follows."""
    pages = ("install", "monitoring", "gitops", "several-clusters", "upgrade", "uninstall")
    text = "\n".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in pages)
    paths = set(re.findall(r"(?<![/\w-])(?:manifests|contract)/[\w./-]*\w", text))
    paths |= {f"manifests/{each}" for each in re.findall(r"`((?:components|overlays)/[\w-]+)`", text)}
    assert len(paths) > 9
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    assert re.findall(r"^\| \[`(CircuitBreaker\w+)`", text, flags=re.MULTILINE) == [rule["alert"] for rule in rules()]
    settings = set(re.findall(r"\bCB_[A-Z_]*[A-Z]", text))
    assert unknown_variables(dict.fromkeys(settings, "")) == []
