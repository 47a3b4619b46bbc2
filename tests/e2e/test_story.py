"""An installation's life as a user meets it, step by step on one real node: each begins where the one before ended.

`make e2e` stops at the first step that fails.
"""

import json
import os
import secrets
from pathlib import Path

import pytest
import yaml

from tests.e2e.cluster import BREAKER, OPERATOR, ROOT, SAMPLE, SHOP, SYSTEM, Cluster

OVERLAY = Path(__file__).with_name("overlay")
PREVIOUS = Path(__file__).with_name("previous") / "install.yaml"
DEPLOYMENT, REDIS = f"deployment/{OPERATOR}", "statefulset/circuitbreaker-redis"
APPLICATION = ("deployment/shop", "deployment/upstream")
EVENT_OF = {"Open": "CircuitOpened", "HalfOpen": "CircuitHalfOpen", "Closed": "CircuitClosed"}
# What an edit, a restart and an upgrade leave as it was.
COURSE = ("state", "incarnation", "stateGeneration", "transitions")
LEASE = ("lease", OPERATOR, "--namespace", SYSTEM)


def secrets_of(cluster: Cluster) -> None:
    """By hand and once, as docs/install.md and examples/kubernetes/README.md say."""
    passwords = {"operator": secrets.token_hex(32), "app-shop": secrets.token_hex(32)}
    words = ["create", "secret", "generic", "circuitbreaker-redis", "--namespace"]
    cluster.kubectl(*words, SYSTEM, *(f"--from-literal={name}={value}" for name, value in passwords.items()))
    cluster.kubectl(*words, SHOP, f"--from-literal=app-shop={passwords['app-shop']}")


def leader(cluster: Cluster) -> str:
    return str(cluster.get(*LEASE)["spec"].get("holderIdentity") or "")


def leader_pod(cluster: Cluster) -> str:
    """The pod that works; its name begins the identity in the Lease."""
    holder = leader(cluster)
    (name,) = [
        pod["metadata"]["name"] for pod in cluster.pods(OPERATOR, SYSTEM) if holder.startswith(pod["metadata"]["name"])
    ]
    return str(name)


def test_installation(cluster: Cluster) -> None:
    """The production overlay with a Redis: everything runs, below the restricted profile."""
    cluster.volume("first", Path(os.environ["CB_NODE"]) / "first")
    for file in (ROOT / "manifests" / "base" / "namespace.yaml", SAMPLE / "namespace.yaml"):
        cluster.kubectl("apply", "--server-side", "-f", str(file))
    secrets_of(cluster)
    cluster.kubectl("apply", "--server-side", "-k", str(OVERLAY))
    cluster.rolled_out(REDIS, DEPLOYMENT, namespace=SYSTEM)
    assert len(cluster.pods(OPERATOR, SYSTEM)) == 2
    cluster.until(lambda: leader(cluster) != "", "a replica to lead")


def test_the_restricted_profile_is_enforced(cluster: Cluster) -> None:
    """Both namespaces refuse a pod that asks for more, and run those of ours."""
    for namespace in (SYSTEM, SHOP):
        pod = {"name": "root", "image": "localhost/pause:1", "securityContext": {"privileged": True}}
        text = json.dumps(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": {"containers": [pod]}}
        )
        with pytest.raises(AssertionError, match='violates PodSecurity "restricted:latest"'):
            cluster.kubectl("create", "--namespace", namespace, "-f", "-", text=text)


def test_application(cluster: Cluster) -> None:
    """Three replicas, a breaker that is Ready, and calls that pass."""
    cluster.kubectl("apply", "--server-side", "-k", str(SAMPLE))
    cluster.rolled_out(*APPLICATION, namespace=SHOP)
    cluster.kubectl("wait", "--for=condition=Ready", f"circuitbreaker/{BREAKER}", "--namespace", SHOP, "--timeout=60s")
    answers = cluster.ask_each()
    assert [(each.status, each.body) for each in answers] == [(200, '{"answer":"forty-two"}')] * 3
    assert cluster.state() == "Closed"


def test_a_broken_backend(cluster: Cluster) -> None:
    """Open in `kubectl get`, in an Event, and in the answer of every pod, those that saw no failure included."""
    cluster.opens()
    assert cluster.state() == "Open"
    cluster.until(lambda: "CircuitOpened" in cluster.events(), "the Event")
    cluster.opens_everywhere()


def test_recovery(cluster: Cluster) -> None:
    """Probes find out; the story is in the Events, each transition once."""
    cluster.recovers()
    first, *told = cluster.breaker()["status"]["transitions"]
    assert first["reason"] == "Created"  # which PolicyApplied tells
    states = [each["to"] for each in told]
    assert states[:2] + states[-1:] == ["Open", "HalfOpen", "Closed"]
    story = sorted(["PolicyApplied", *(EVENT_OF[state] for state in states)])
    cluster.until(lambda: len(cluster.events()) >= len(story), "the Events")
    assert cluster.events() == story


def test_a_live_edit(cluster: Cluster) -> None:
    """Somebody finds ten seconds too long; the breaker is not disturbed by it."""
    before = cluster.breaker()["status"]
    cluster.edit(recoveryTimeout="2s")
    after = cluster.breaker()["status"]
    assert [after[name] for name in COURSE] == [before[name] for name in COURSE]


def test_the_leader_is_deleted(cluster: Cluster) -> None:
    """The standby takes over at once, since the Lease is given back, and tells the next opening."""
    name, before = leader_pod(cluster), leader(cluster)
    cluster.kubectl("delete", "pod", name, "--namespace", SYSTEM, "--wait=false")
    cluster.until(lambda: leader(cluster) not in {"", before}, "another leader", 20)
    cluster.opens()
    cluster.recovers()
    cluster.rolled_out(DEPLOYMENT, namespace=SYSTEM)


def test_a_second_image(cluster: Cluster) -> None:
    """A rolling update, while calls go on passing; afterwards the new pods do the work."""
    cluster.kubectl("set", "image", DEPLOYMENT, f"operator={OPERATOR}:next", "--namespace", SYSTEM)

    def rolled() -> bool:
        assert cluster.ask().status == 200
        status = cluster.get(DEPLOYMENT, "--namespace", SYSTEM)
        spec, status = status["spec"], status["status"]
        return bool(
            status.get("updatedReplicas") == status.get("availableReplicas") == status["replicas"] == spec["replicas"]
        )

    cluster.until(rolled, "the new image to be rolled out", 150)
    assert {pod["spec"]["containers"][0]["image"] for pod in cluster.pods(OPERATOR, SYSTEM)} == {f"{OPERATOR}:next"}
    cluster.opens()
    cluster.recovers()


def test_redis_is_deleted(cluster: Cluster) -> None:
    """Calls pass while it is away; it comes back with its data, and everything heals."""
    generation = cluster.breaker()["status"]["stateGeneration"]
    cluster.kubectl("delete", "pod", "circuitbreaker-redis-0", "--namespace", SYSTEM, "--wait=false")
    assert [cluster.ask().status for _ in range(20)] == [200] * 20
    cluster.rolled_out(REDIS, DEPLOYMENT, namespace=SYSTEM)
    cluster.opens()
    assert cluster.breaker()["status"]["stateGeneration"] > generation
    cluster.opens_everywhere()
    cluster.recovers()


def test_a_drain(cluster: Cluster) -> None:
    """Evictions take everything: without Redis no operator is ready, and must not hold the node. All is back later."""
    generation = cluster.breaker()["status"]["stateGeneration"]
    cluster.kubectl("drain", "node1", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
    assert cluster.names("pods", "--all-namespaces", "--field-selector=status.phase=Running") == []
    cluster.kubectl("uncordon", "node1")
    cluster.rolled_out(REDIS, DEPLOYMENT, namespace=SYSTEM)
    cluster.rolled_out(*APPLICATION, namespace=SHOP)
    assert cluster.breaker()["status"]["stateGeneration"] == generation
    cluster.opens()
    cluster.recovers()


def uninstall(cluster: Cluster) -> None:
    """As docs/uninstall.md has it."""
    cluster.kubectl("delete", "circuitbreakers", "--all", "--all-namespaces")
    purge = ["exec", DEPLOYMENT, "--namespace", SYSTEM, "--", OPERATOR, "purge"]
    cluster.kubectl(*purge, "--dry-run")
    cluster.kubectl(*purge, "--yes")
    cluster.kubectl("delete", "-k", str(OVERLAY))


def left(cluster: Cluster) -> list[str]:
    """Whatever in the cluster is ours by its name, or is in our namespace."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "--output=name").split()
    found = cluster.names(
        ",".join(kind for kind in kinds if kind != "events"), "--all-namespaces", "--ignore-not-found"
    )
    return [name for name in found if "circuitbreaker" in name]


def test_nothing_is_left(cluster: Cluster) -> None:
    """Neither in the cluster, whose calls go on without us, nor in Redis."""
    uninstall(cluster)
    assert cluster.ask().status == 200
    cluster.kubectl("delete", "namespace", SHOP)
    cluster.kubectl("delete", "persistentvolume", "first")
    cluster.until(lambda: left(cluster) == [], "the last of it to go", 30)


def test_upgrade(cluster: Cluster) -> None:
    """From what an earlier version applied to today's: an open breaker stays open, and nobody counts anew."""
    cluster.volume("second", Path(os.environ["CB_NODE"]) / "second")
    for file in (ROOT / "manifests" / "base" / "namespace.yaml", SAMPLE / "namespace.yaml"):
        cluster.kubectl("apply", "--server-side", "-f", str(file))
    secrets_of(cluster)
    cluster.apply(PREVIOUS.read_text(encoding="utf-8"))
    cluster.rolled_out(REDIS, DEPLOYMENT, namespace=SYSTEM)
    cluster.kubectl("apply", "--server-side", "-k", str(SAMPLE))
    cluster.rolled_out(*APPLICATION, namespace=SHOP)
    cluster.kubectl("wait", "--for=condition=Ready", f"circuitbreaker/{BREAKER}", "--namespace", SHOP, "--timeout=60s")
    cluster.edit(recoveryTimeout="1h")  # an opening that outlasts the upgrade
    cluster.opens()
    before = cluster.breaker()["status"]

    cluster.kubectl("apply", "--server-side", "-k", str(OVERLAY))
    cluster.kubectl("set", "image", DEPLOYMENT, f"operator={OPERATOR}:next", "--namespace", SYSTEM)
    cluster.rolled_out(REDIS, DEPLOYMENT, namespace=SYSTEM)
    crd = cluster.get("crd", "circuitbreakers.circuitbreaker.dev")
    ours = yaml.safe_load((ROOT / "crds" / "circuitbreakers.yaml").read_text(encoding="utf-8"))
    schema = "openAPIV3Schema"
    assert set(crd["spec"]["versions"][0]["schema"][schema]["properties"]["status"]["properties"]) == set(
        ours["spec"]["versions"][0]["schema"][schema]["properties"]["status"]["properties"]
    )
    after = cluster.breaker()["status"]
    assert [after[name] for name in COURSE] == [before[name] for name in COURSE]
    cluster.opens_everywhere()

    cluster.mood("ok")
    cluster.kubectl("annotate", "circuitbreaker", BREAKER, "--namespace", SHOP, "circuitbreaker.dev/reset=1")
    cluster.recovers()
    uninstall(cluster)
