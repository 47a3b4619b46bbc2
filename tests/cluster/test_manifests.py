"""manifests/ as people apply it, on a real API server: applied twice changes nothing, Pod Security admits every pod.

No controller makes pods here, so a pod is tried as its workload describes it, with `--dry-run=server`.
"""

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from circuitbreaker_local.binaries import ControlPlaneBinaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.processes import Process
from circuitbreaker_local.prometheus_binary import find_promtool
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from tests.cluster.conftest import install_crd
from tests.cluster.world import World

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = MANIFESTS / "overlays"
REDIS = MANIFESTS / "components" / "redis"
SYSTEM, ACCOUNT = "circuitbreaker-system", "circuitbreaker-operator"
WORKLOADS = {"Deployment", "StatefulSet"}
# Enough of the Prometheus operator for its resources to be stored.
MONITORING = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {plural}.monitoring.coreos.com
  annotations: {{api-approved.kubernetes.io: unapproved}}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {{kind: {kind}, plural: {plural}}}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
"""


@pytest.fixture(scope="module")
def plane(kubernetes_binaries: ControlPlaneBinaries) -> Iterator[ControlPlane]:
    """One for this module, since these namespaces and cluster-wide names are the shipped ones."""
    with ControlPlane(kubernetes_binaries) as plane:
        for kind in ("ServiceMonitor", "PrometheusRule"):
            plural = f"{kind.lower()}s"
            plane.apply(MONITORING.format(kind=kind, plural=plural))
            plane.until_served(f"{plural}.monitoring.coreos.com")
        install_crd(plane)
        plane.kubectl("apply", "--server-side", "-f", str(MANIFESTS / "base" / "namespace.yaml"))
        yield plane


def everything(folder: Path) -> Path:
    """An overlay with all components that go together, beside one another."""
    overlay = folder / "everything"
    overlay.mkdir()
    names = ["redis", "ha", "monitoring", "network-policy"]
    text = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(MANIFESTS / "base", overlay)],
        "components": [os.path.relpath(MANIFESTS / "components" / name, overlay) for name in names],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return overlay


@pytest.fixture(params=["kind", "production", "everything"])
def overlay(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return everything(tmp_path) if request.param == "everything" else OVERLAYS / request.param


def rendered(plane: ControlPlane, overlay: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(plane.kubectl("kustomize", str(overlay))))


def stored(plane: ControlPlane, overlay: Path) -> dict[str, str]:
    """kind/name -> resourceVersion of everything in the overlay."""
    found = json.loads(plane.kubectl("get", "-k", str(overlay), "-o", "json"))["items"]
    return {f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["resourceVersion"] for each in found}


def test_applied_twice_changes_nothing(plane: ControlPlane, overlay: Path) -> None:
    """As GitOps does it, every few minutes."""
    plane.kubectl("apply", "--server-side", "-k", str(overlay))
    first = stored(plane, overlay)
    assert len(first) == len(rendered(plane, overlay))
    plane.kubectl("apply", "--server-side", "-k", str(overlay))
    assert stored(plane, overlay) == first


def test_names_lead_somewhere(plane: ControlPlane, overlay: Path) -> None:
    """Everything is in the one namespace, and what a pod names is there, but for the Secrets, which a person makes."""
    documents = rendered(plane, overlay)
    assert {each["metadata"].get("namespace", SYSTEM) for each in documents} == {SYSTEM}
    names = {(each["kind"], each["metadata"]["name"]) for each in documents}
    for each in documents:
        if each["kind"] in WORKLOADS:
            pod = each["spec"]["template"]["spec"]
            assert ("ServiceAccount", pod["serviceAccountName"]) in names
            for container in pod["containers"]:
                for source in container.get("envFrom", []):
                    assert ("ConfigMap", source["configMapRef"]["name"]) in names
            for volume in pod.get("volumes", []):
                if "configMap" in volume:
                    assert ("ConfigMap", volume["configMap"]["name"]) in names
                if "secret" in volume:
                    assert volume["secret"]["optional"] is True
        if each["kind"] == "Service":
            templates = [other["spec"]["template"] for other in documents if other["kind"] in WORKLOADS]
            selector = each["spec"]["selector"].items()
            assert [found for found in templates if selector <= found["metadata"]["labels"].items()]


def as_pod(workload: dict[str, Any]) -> dict[str, Any]:
    template = workload["spec"]["template"]
    spec = json.loads(json.dumps(template["spec"]))
    for claim in workload["spec"].get("volumeClaimTemplates", []):
        name = claim["metadata"]["name"]
        spec["volumes"].append({"name": name, "persistentVolumeClaim": {"claimName": name}})
    metadata = {"name": f"{workload['metadata']['name']}-try", "labels": template["metadata"]["labels"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def try_pod(plane: ControlPlane, pod: dict[str, Any]) -> None:
    plane.kubectl("create", "--dry-run=server", "--namespace", SYSTEM, "-f", "-", text=json.dumps(pod))


def test_pod_security_admits_every_pod(plane: ControlPlane, tmp_path: Path) -> None:
    """The namespace enforces `restricted`, and would say so."""
    overlay = everything(tmp_path)
    plane.kubectl("apply", "--server-side", "-k", str(overlay))
    pods = [as_pod(each) for each in rendered(plane, overlay) if each["kind"] in WORKLOADS]
    assert len(pods) == 2
    for pod in pods:
        try_pod(plane, pod)
        del pod["spec"]["securityContext"]["seccompProfile"]
        with pytest.raises(LocalError, match=r'violates PodSecurity "restricted:latest".*seccompProfile'):
            try_pod(plane, pod)


@pytest.mark.parametrize(
    ("role", "verbs"),
    [
        ("circuitbreakers-view", {"get", "list", "watch"}),
        ("circuitbreakers-edit", {"create", "update", "patch", "delete", "deletecollection"}),
    ],
)
def test_people_of_a_namespace(plane: ControlPlane, role: str, verbs: set[str]) -> None:
    """What view, edit and admin get; the controller that adds it to them is not here, so each role is bound alone."""
    plane.kubectl("apply", "--server-side", "-f", str(MANIFESTS / "base" / "user-roles.yaml"))
    namespace, other = plane.create_namespace(), plane.create_namespace()
    plane.kubectl("create", "rolebinding", role, f"--clusterrole={role}", "--user=ann", "--namespace", namespace)

    def may(verb: str, *more: str, where: str = namespace) -> bool:
        words = ["auth", "can-i", verb, "circuitbreakers.circuitbreaker.dev", "--as=ann", "--namespace", where]
        try:
            return plane.kubectl(*words, *more).strip() == "yes"
        except LocalError:  # kubectl ends with 1 for "no"
            return False

    asked = {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
    assert {verb for verb in asked if may(verb)} == verbs
    assert not {verb for verb in verbs if may(verb, where=other)}
    assert not {verb for verb in ("update", "patch") if may(verb, "--subresource=status")}


def test_who_is_given_what() -> None:
    """view may look, edit and admin may both."""
    found = {}
    for role in yaml.safe_load_all((MANIFESTS / "base" / "user-roles.yaml").read_text(encoding="utf-8")):
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        labels = role["metadata"]["labels"]
        found[role["metadata"]["name"]] = {key.removeprefix(prefix) for key in labels if labels[key] == "true"}
    assert found == {"circuitbreakers-view": {"view", "edit", "admin"}, "circuitbreakers-edit": {"edit", "admin"}}


def test_an_override_survives_what_git_says(plane: ControlPlane) -> None:
    """As docs/gitops.md has it: a tool that applies on the server's side leaves alone what a person has set."""
    namespace = plane.create_namespace()
    name = "circuitbreaker/payments"
    words = ["apply", "--server-side", "--field-manager=gitops", "--namespace", namespace]
    override = {"spec": {"override": {"state": "Open", "reason": "maintenance"}}}
    plane.kubectl(*words, "-f", str(MANIFESTS / "samples"))
    plane.kubectl("patch", name, "--namespace", namespace, "--type=merge", "-p", json.dumps(override))
    plane.kubectl("annotate", name, "--namespace", namespace, "circuitbreaker.dev/reset=1")
    before = plane.kubectl("get", name, "--namespace", namespace, "-o", "json")
    plane.kubectl(*words, "-f", str(MANIFESTS / "samples"))
    assert plane.kubectl("get", name, "--namespace", namespace, "-o", "json") == before
    assert json.loads(before)["spec"]["override"] == override["spec"]["override"]


# -- components/redis


def users(folder: Path, **passwords: str) -> tuple[int, str, Path]:
    """(exit code, what it said, the ACL file) of users.sh with a Secret of these keys, `_` for `-`."""
    secret = folder / "passwords"
    secret.mkdir(exist_ok=True)
    for name, password in passwords.items():
        (secret / name.replace("_", "-")).write_text(password, encoding="utf-8")
    acl = folder / "users.acl"
    words = ["sh", REDIS / "users.sh", secret, ROOT / "contract" / "acl" / "users.acl", acl]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    return done.returncode, done.stdout + done.stderr, acl


def configuration() -> list[str]:
    """redis.conf as arguments, without the two paths that are the image's."""
    words = []
    for line in (REDIS / "redis.conf").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(" ")
        if line and not line.startswith("#") and name not in {"aclfile", "dir"}:
            words += [f"--{name}", "" if value == '""' else value]
    return words


@contextmanager
def shipped_redis(binary: Path, acl: Path) -> Iterator[RedisServer]:
    """A Redis with the configuration and the users of components/redis."""
    text = acl.read_text(encoding="utf-8")
    acl.write_text("", encoding="utf-8")  # our starter wants to be let in without a name
    with RedisServer(binary, arguments=[*configuration(), "--aclfile", str(acl)]) as server:
        acl.write_text(text, encoding="utf-8")
        with redis.Redis.from_url(server.url) as administrator:
            administrator.acl_load()
        yield server


def may(server: RedisServer, name: str | None, password: str | None, *command: str) -> bool:
    at_once = Retry(NoBackoff(), 0)  # a refused login would be tried again, for seconds
    with redis.Redis(port=server.port, username=name, password=password, protocol=2, retry=at_once) as client:
        try:
            client.execute_command(*command)
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError):
            return False
        return True


def test_users_of_redis(redis_server_binary: Path, tmp_path: Path) -> None:
    """Each party has its password and its rights; the default user has none, and no password is in the file."""
    passwords = {"operator": "o/&p \\1", "viewer": "v\n", "app_shop": "a", "app_team-a": "b"}
    code, said, acl = users(tmp_path, **passwords)
    assert (code, said.split()) == (
        0,
        ["users:", "default", "probe", ACCOUNT, "circuitbreaker-viewer", "app-shop", "app-team-a"],
    )
    text = acl.read_text(encoding="utf-8")
    assert text.startswith("user default off ~* &* +@all\n")
    assert "PASSWORD" not in text
    assert "NAMESPACE" not in text
    assert ">" not in text
    assert hashlib.sha256(b"o/&p \\1").hexdigest() in text
    assert acl.stat().st_mode & 0o077 == 0
    with shipped_redis(redis_server_binary, acl) as server:
        assert may(server, ACCOUNT, "o/&p \\1", "FUNCTION", "LIST")
        assert not may(server, ACCOUNT, "o/&p \\1", "CONFIG", "GET", "*")
        assert not may(server, ACCOUNT, "other", "PING")
        assert may(server, "circuitbreaker-viewer", "v", "HGETALL", "circuit_breaker_states")
        assert may(server, "app-shop", "a", "HGETALL", "cb:{shop/payments}")
        assert not may(server, "app-shop", "a", "HGETALL", "cb:{team-a/payments}")
        assert may(server, "app-team-a", "b", "HGETALL", "cb:{team-a/payments}")
        assert may(server, "probe", "probe", "PING")
        assert not may(server, "probe", "probe", "INFO")
        assert not may(server, None, None, "PING")


@pytest.mark.parametrize(
    ("passwords", "complaint"),
    [
        ({}, "kubectl create secret generic circuitbreaker-redis"),
        ({"operator": "\n"}, "kubectl create secret generic circuitbreaker-redis"),
        ({"operator": "o", "app_Shop": "a"}, "the key app-Shop of the Secret names no namespace"),
        ({"operator": "o", "app_shop": ""}, "the key app-shop of the Secret is empty"),
    ],
    ids=["no Secret", "an empty one", "no namespace", "no password"],
)
def test_a_secret_that_will_not_do(tmp_path: Path, passwords: dict[str, str], complaint: str) -> None:
    """The pod does not start, and its log says what to do; there is no file with half of the users."""
    code, said, acl = users(tmp_path, **passwords)
    assert code == 1
    assert complaint in said
    assert not acl.exists()


def test_redis_reads_its_transactions_again(redis_server_binary: Path, tmp_path: Path) -> None:
    """It reads its append-only file as `default`, who is off, and leaves out what that user has no right to."""
    _, _, acl = users(tmp_path, operator="secret", viewer="seen")
    with RedisServer(redis_server_binary, persistent=True) as server:
        with redis.Redis.from_url(server.url) as client, client.pipeline(transaction=True) as transaction:
            transaction.hset("cb:{shop/x}", "state", "Open").hset("cb:{shop/x}", "generation", 2).execute()
        server.kill()
        words = ["--port", str(server.port), "--dir", str(server.folder / "data"), "--appendonly", "yes"]
        with Process([redis_server_binary, *words, "--aclfile", acl], log=tmp_path / "log") as process:

            def seen() -> bool:
                at_once = Retry(NoBackoff(), 0)
                with redis.Redis(
                    port=server.port, username="circuitbreaker-viewer", password="seen", protocol=2, retry=at_once
                ) as viewer:
                    try:
                        found = viewer.hgetall("cb:{shop/x}")
                    except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
                        return False
                assert found == {b"state": b"Open", b"generation": b"2"}, process.tail()
                return True

            wait_until(seen, timeout_seconds=20, what="Redis to be there again")


def test_the_kind_overlay_at_work(plane: ControlPlane, redis_server_binary: Path, tmp_path: Path) -> None:
    """Its settings, rights and Redis, with an operator outside of a pod: the samples become Ready."""
    plane.kubectl("apply", "--server-side", "-k", str(OVERLAYS / "kind"))
    documents = rendered(plane, OVERLAYS / "kind")
    (settings,) = [
        each["data"]
        for each in documents
        if each["kind"] == "ConfigMap" and each["metadata"]["name"].startswith(ACCOUNT)
    ]
    (service,) = [each for each in documents if each["kind"] == "Service" and "redis" in each["metadata"]["name"]]
    host = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert host in settings["CB_REDIS_URL"]
    _, _, acl = users(tmp_path, operator="secret", viewer="seen")
    with shipped_redis(redis_server_binary, acl) as server:
        settings["CB_REDIS_URL"] = settings["CB_REDIS_URL"].replace(host, f"127.0.0.1:{server.port}")
        settings["CB_REDIS_PASSWORD_FILE"] = str(tmp_path / "passwords" / "operator")
        world = World(plane, server, tmp_path)
        world.credentials = plane.service_account_kubeconfig(SYSTEM, ACCOUNT)
        plane.kubectl("apply", "--namespace", world.namespace, "-f", str(MANIFESTS / "samples"))
        with world.operator(**{name.removeprefix("CB_"): value for name, value in settings.items()}) as operator:
            operator.wait_ready()
            world.until_ready("payments", "search")
            with redis.Redis(port=server.port, username="circuitbreaker-viewer", password="seen", protocol=2) as viewer:
                closed = {f"{world.namespace}/{name}".encode(): b"Closed" for name in ("payments", "search")}
                hash_of_states = "circuit_breaker_states"
                world.until(lambda: closed.items() <= viewer.hgetall(hash_of_states).items(), "both in the shared hash")
        world.close()


# Stands in for docker and kind, and for kubectl where pods would have to run.
NOBODY = "#!/bin/sh\n"
KUBECTL = """#!/bin/sh
shift 2 # --context kind-circuitbreaker
case $* in 'rollout status '* | 'wait '*) exit 0 ;; esac
exec {command} "$@"
"""


def test_kind_demo_as_far_as_the_api_server(plane: ControlPlane, tmp_path: Path) -> None:
    """What `make kind-demo` applies is taken, the second time too; Redis and the sample know one password."""
    command = shlex.join([str(plane.binaries.kubectl), *plane.kubectl_flags()])
    programs = {"docker": NOBODY, "kind": NOBODY, "kubectl": KUBECTL.format(command=command)}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    restarted = "kubectl.kubernetes.io/restartedAt"
    passwords = []
    for time in ("first", "second"):
        words = [ROOT / "scripts" / "kind", "demo"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        secrets = [
            json.loads(plane.kubectl("get", "secret", "circuitbreaker-redis", "--namespace", namespace, "-o", "json"))
            for namespace in (SYSTEM, "shop")
        ]
        assert [set(each["data"]) for each in secrets] == [{"operator", "app-shop"}, {"app-shop"}]
        assert secrets[0]["data"]["app-shop"] == secrets[1]["data"]["app-shop"]
        passwords.append(secrets[0]["data"])
        shop = json.loads(plane.kubectl("get", "deployment", "shop", "--namespace", "shop", "-o", "json"))
        annotations = shop["spec"]["template"]["metadata"].get("annotations", {})
        assert (restarted in annotations) is (time == "second")
    assert passwords[0] == passwords[1]
    ports = plane.kubectl("get", "services", "-A", "-o", "jsonpath={.items[*].spec.ports[*].nodePort}").split()
    assert {"30000", "30080", "30090"} <= set(ports)


# -- components/monitoring


@pytest.mark.parametrize(
    ("rules", "cases"),
    [("alerts.yaml", "alerts.test.yaml"), ("recording-rules.yaml", "recording-rules.test.yaml")],
    ids=["alerts", "recording"],
)
def test_rules(tmp_path: Path, rules: str, cases: str) -> None:
    """promtool plays the cases: each alert comes when it should, and only then; each day is what was put into it."""
    promtool = find_promtool()
    shipped = yaml.safe_load((MANIFESTS / "components" / "monitoring" / rules).read_text(encoding="utf-8"))
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(shipped["spec"]), encoding="utf-8")
    text = Path(__file__).with_name(cases).read_text(encoding="utf-8")
    (tmp_path / cases).write_text(text, encoding="utf-8")
    for words in (["check", "rules", "rules.yaml"], ["test", "rules", cases]):
        done = subprocess.run([promtool, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
