"""`make kind-up` and its like, without Docker: stand-ins for docker, kind and kubectl write down what they are told.

tests/cluster/test_manifests.py applies what the script applies to a real API server.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from circuitbreaker_local.binaries import ControlPlaneBinaries

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "kind"
TEXT = SCRIPT.read_text(encoding="utf-8")
CONFIG = yaml.safe_load((ROOT / "kind-config.yaml").read_text(encoding="utf-8"))
OVERLAYS = re.findall(r"^ +put (\S+) \S+ .+$", TEXT, flags=re.MULTILINE)
BUILT = set(re.findall(r"--tag (\S+)", TEXT))
# Writes down its own name and its arguments; $STATE holds a file for each thing that is there.
STAND_IN = """#!/bin/sh
printf '%s\\n' "${0##*/} $*" >>"$STATE/said"
case "${0##*/} $*" in
'kind get clusters')
    if [ -e "$STATE/cluster" ]; then echo circuitbreaker; else echo 'No kind clusters found.' >&2; fi ;;
'kind create cluster '*) touch "$STATE/cluster" ;;
*' get deployment/'*) if [ -e "$STATE/deployed" ]; then echo deployment.apps/name; fi ;;
*' get secret/'*) if [ -e "$STATE/secret" ]; then echo secret/name; fi ;;
*' get secret '*) if [ ! -e "$STATE/by-hand" ] || [ -e "$STATE/patched" ]; then printf 'cGFzc3dvcmQ='; fi ;;
*' patch secret '*)
    if [ ! -e "$STATE/forgetful" ]; then touch "$STATE/patched"; fi
    cat >>"$STATE/applied"; echo --- >>"$STATE/applied" ;;
*' -f -') cat >>"$STATE/applied"; echo --- >>"$STATE/applied" ;;
esac
case "${0##*/} $*" in "$BROKEN") exit 1 ;; esac
"""


class Machine:
    """A PATH with stand-ins alone, and the few programs of a shell."""

    def __init__(self, folder: Path) -> None:
        self.programs, self.state = folder / "bin", folder / "state"
        self.programs.mkdir()
        self.state.mkdir()
        for name in ("dirname", "grep", "od", "tr", "cat", "touch"):
            found = shutil.which(name)
            assert found
            (self.programs / name).symlink_to(found)
        for name in ("docker", "kind", "kubectl"):
            (self.programs / name).write_text(STAND_IN)
            (self.programs / name).chmod(0o755)

    def run(self, *words: str, broken: str = "nothing") -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": str(self.programs), "STATE": str(self.state), "BROKEN": broken}
        return subprocess.run(
            ["/bin/sh", SCRIPT, *words],
            env=environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def said(self) -> list[str]:
        """What was done, without what only looks, and with the context of kubectl left out: it is always the same."""
        path = self.state / "said"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        context = "kubectl --context kind-circuitbreaker "
        assert [line for line in lines if line.startswith("kubectl") and not line.startswith(context)] == []
        done = [line.replace(context, "kubectl ") for line in lines]
        return [line for line in done if not line.startswith(("docker info", "kind get", "kubectl get"))]

    def applied(self) -> list[dict[str, Any]]:
        return [each for each in yaml.safe_load_all((self.state / "applied").read_text()) if each]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


UP = [
    "docker build --tag circuitbreaker-operator:dev .",
    "kind create cluster --name circuitbreaker --config kind-config.yaml --wait 3m",
    "kind load docker-image circuitbreaker-operator:dev --name circuitbreaker",
    "kubectl apply --server-side -f manifests/base/namespace.yaml",
    "kubectl create -f -",
    "kubectl apply --server-side -k manifests/overlays/kind",
    "kubectl rollout status statefulset/circuitbreaker-redis --namespace circuitbreaker-system --timeout=5m",
    "kubectl rollout status deployment/circuitbreaker-operator --namespace circuitbreaker-system --timeout=5m",
]
DEMO = [
    "docker build --file examples/kubernetes/Dockerfile --tag circuitbreaker-sample:dev .",
    "kind load docker-image circuitbreaker-sample:dev --name circuitbreaker",
    "kubectl apply --server-side -f examples/kubernetes/namespace.yaml",
    "kubectl apply --server-side -f -",
    "kubectl apply --server-side -k examples/kind",
    "kubectl rollout status deployment/upstream --namespace shop --timeout=5m",
    "kubectl rollout status deployment/shop --namespace shop --timeout=5m",
    "kubectl wait --for=condition=Ready circuitbreaker/upstream --namespace shop --timeout=5m",
]


def test_up(machine: Machine) -> None:
    """Image, cluster, namespace, passwords, everything else; then what is there."""
    done = machine.run("up")
    assert (done.returncode, done.stderr) == (0, "No kind clusters found.\n")
    assert machine.said() == UP
    (secret,) = machine.applied()
    assert secret["metadata"] == {"name": "circuitbreaker-redis", "namespace": "circuitbreaker-system"}
    passwords = secret["stringData"]
    assert set(passwords) == {"operator", "app-shop"}
    assert all(re.fullmatch("[0-9a-f]{64}", password) for password in passwords.values())
    assert passwords["operator"] != passwords["app-shop"]
    assert "make kind-demo" in done.stdout
    assert not any(password in done.stdout for password in passwords.values())


def test_up_again(machine: Machine) -> None:
    """The cluster and its passwords stay; what was built anew under the same tag rolls out."""
    for name in ("cluster", "deployed", "secret"):
        (machine.state / name).touch()
    assert machine.run("up").returncode == 0
    restart = "kubectl rollout restart deployment/circuitbreaker-operator --namespace circuitbreaker-system"
    expected = [*UP[:1], "kind export kubeconfig --name circuitbreaker", *UP[2:4], UP[5], restart, *UP[6:]]
    assert machine.said() == expected


def test_demo(machine: Machine) -> None:
    """The sample gets the password that Redis knows, and the screen says what to try."""
    done = machine.run("demo")
    assert done.returncode == 0
    assert machine.said() == UP + DEMO
    assert machine.applied()[-1] == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "circuitbreaker-redis", "namespace": "shop"},
        "data": {"app-shop": "cGFzc3dvcmQ="},
    }
    assert len(done.stdout.splitlines()) <= 24  # one screen
    assert max(len(line) for line in done.stdout.splitlines()) <= 110


def test_demo_again(machine: Machine) -> None:
    """Both programs of the sample are of the image that was built anew."""
    for name in ("cluster", "deployed", "secret"):
        (machine.state / name).touch()
    assert machine.run("demo").returncode == 0
    restarts = [f"kubectl rollout restart deployment/{name} --namespace shop" for name in ("upstream", "shop")]
    assert machine.said()[-len(DEMO) - 2 :] == [*DEMO[:5], *restarts, *DEMO[5:]]


def test_demo_with_a_secret_made_by_hand(machine: Machine) -> None:
    """The operator's password stays, the sample's comes to it, and Redis starts again to know it."""
    for name in ("secret", "by-hand"):
        (machine.state / name).touch()
    done = machine.run("demo")
    assert done.returncode == 0
    redis = "circuitbreaker-redis --namespace circuitbreaker-system"
    made = [
        f"kubectl patch secret {redis} --type=merge --patch-file=/dev/stdin",
        f"kubectl rollout restart statefulset/{redis}",
        f"kubectl rollout status statefulset/{redis} --timeout=5m",
    ]
    assert machine.said() == [*UP[:4], *UP[5:], *DEMO[:3], *made, *DEMO[3:]]
    patch, secret = machine.applied()
    assert list(patch) == ["stringData"]
    assert list(patch["stringData"]) == ["app-shop"]
    assert re.fullmatch("[0-9a-f]{64}", patch["stringData"]["app-shop"])
    assert patch["stringData"]["app-shop"] not in done.stdout
    assert secret["data"] == {"app-shop": "cGFzc3dvcmQ="}


def test_demo_without_a_password_is_one_line(machine: Machine) -> None:
    """The sample is not started with an empty one."""
    for name in ("secret", "by-hand", "forgetful"):
        (machine.state / name).touch()
    done = machine.run("demo")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "scripts/kind: the Secret circuitbreaker-redis in circuitbreaker-system has no password app-shop\n"
    )
    assert machine.said()[-1].startswith("kubectl rollout status statefulset/")


def test_down(machine: Machine) -> None:
    assert machine.run("down").returncode == 0
    assert machine.said() == ["kind delete cluster --name circuitbreaker"]


@pytest.mark.parametrize("word", ["up", "demo", "down"])
@pytest.mark.parametrize("missing", ["docker", "kind", "kubectl"])
def test_a_missing_program_is_one_line(machine: Machine, missing: str, word: str) -> None:
    """Before anything was done."""
    (machine.programs / missing).unlink()
    done = machine.run(word)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"scripts/kind: there is no {missing}: see https://\S+\. Without a cluster: make demo\n", done.stderr
    )
    assert machine.said() == []


def test_a_docker_that_does_not_answer_is_one_line(machine: Machine) -> None:
    done = machine.run("up", broken="docker info")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("scripts/kind: docker does not answer")
    assert done.stderr.count("\n") == 1
    assert machine.said() == []


@pytest.mark.parametrize("step", range(len(UP)))
def test_a_step_that_fails_is_the_last(machine: Machine, step: int) -> None:
    """Nothing is done after it, and nothing claims that all is well."""
    words = UP[step].replace("kubectl ", "kubectl --context kind-circuitbreaker ")
    done = machine.run("up", broken=words)
    assert done.returncode == 1
    assert machine.said() == UP[: step + 1]
    assert "The operator runs" not in done.stdout


@pytest.mark.parametrize("words", [(), ("begin",)], ids=["none", "another"])
def test_another_word_is_one_line(machine: Machine, words: tuple[str, ...]) -> None:
    done = machine.run(*words)
    assert (done.returncode, done.stderr) == (1, "scripts/kind: say up, demo or down\n")


# -- what it applies


@pytest.fixture(scope="module")
def rendered(kubernetes_binaries: ControlPlaneBinaries) -> list[dict[str, Any]]:
    """Everything that the script applies as a folder."""
    assert OVERLAYS == ["manifests/overlays/kind", "examples/kind"]
    documents = []
    for overlay in OVERLAYS:
        text = subprocess.run(
            [kubernetes_binaries.kubectl, "kustomize", ROOT / overlay], capture_output=True, text=True, check=True
        ).stdout
        documents += list(yaml.safe_load_all(text))
    return documents


def test_images_are_those_that_were_built(rendered: list[dict[str, Any]]) -> None:
    """Each that is built is loaded, and each pod's is one of them or comes from a registry."""
    templates = [each["spec"]["template"]["spec"] for each in rendered if "template" in each.get("spec", {})]
    images = {container["image"] for pod in templates for container in pod["containers"]}
    assert {image for image in images if "/" not in image} == BUILT
    assert set(re.findall(r"kind load docker-image (\S+)", TEXT)) == BUILT


def test_ports_lead_to_services(rendered: list[dict[str, Any]]) -> None:
    """Every port of localhost is one that a Service opens on the node, and the screen names no other."""
    opened = {
        port["nodePort"]: each["metadata"]["name"]
        for each in rendered
        if each["kind"] == "Service"
        for port in each["spec"]["ports"]
        if "nodePort" in port
    }
    (node,) = CONFIG["nodes"]
    mapped = {each["containerPort"]: each["hostPort"] for each in node["extraPortMappings"]}
    assert {opened[inside]: outside for inside, outside in mapped.items()} == {
        "circuitbreaker-operator": 8000,
        "shop": 8080,
        "upstream": 9000,
    }
    assert set(mapped) == set(opened)
    assert {each["listenAddress"] for each in node["extraPortMappings"]} == {"127.0.0.1"}
    assert {int(port) for port in re.findall(r"localhost:(\d+)", TEXT)} == set(mapped.values())


def test_names_agree(rendered: list[dict[str, Any]]) -> None:
    """The cluster's, and those of workloads and breakers that are waited for."""
    assert re.findall(r"^cluster=(\S+)", TEXT, flags=re.MULTILINE) == [CONFIG["name"]]
    there = {
        (f"{each['kind'].lower()}/{each['metadata']['name']}", each["metadata"].get("namespace")) for each in rendered
    }
    asked = [shlex.split(line) for line in UP + DEMO if " status " in line or " wait " in line]
    names = {(next(word for word in words if "/" in word), words[words.index("--namespace") + 1]) for words in asked}
    assert names <= there
    assert len(names) == 5


def test_make_knows_it() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"^kind-(\w+):.*\n\t@scripts/kind (\w+)$", makefile, flags=re.MULTILINE) == [
        (word, word) for word in ("up", "demo", "down")
    ]
    assert os.access(SCRIPT, os.X_OK)
