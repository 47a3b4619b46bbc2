"""410 Gone: the watch comes back with a version that the API server has forgotten meanwhile."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from circuitbreaker_contract.state import State
from circuitbreaker_local.binaries import ControlPlaneBinaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer
from tests.chaos.faults import compact
from tests.chaos.stage import OPERATOR, kubeconfig_through
from tests.cluster.audit import Audit
from tests.cluster.conftest import install_crd
from tests.cluster.world import PLURAL, World
from tests.relay import Relay

SOON_SECONDS = 10.0
GONE = 410
MISSED = 'circuitbreaker_operator_swept_total{kind="missed_change"}'


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path, OPERATOR)


@pytest.fixture
def world(
    audit: Audit, kubernetes_binaries: ControlPlaneBinaries, redis_server: RedisServer, tmp_path: Path
) -> Iterator[World]:
    """Its API server keeps no versions in memory: what etcd has forgotten is gone at once."""
    users = {OPERATOR: ["system:masters"]}
    arguments = [*audit.arguments, "--watch-cache=false"]
    with ControlPlane(kubernetes_binaries, users=users, api_server_arguments=arguments) as plane:
        install_crd(plane)
        world = World(plane, redis_server, tmp_path)
        yield world
        world.close()


def test_a_watch_whose_version_is_gone(world: World, audit: Audit) -> None:
    """It lists and goes on: what happened meanwhile is served, nothing is told or written twice, the process stays."""
    with Relay(world.plane.api_server.port) as relay:
        world.credentials = kubeconfig_through(relay, world.plane, world.folder)
        with world.operator() as operator:
            operator.wait_ready()
            for name in ("untouched", "edited", "deleted", "moved"):
                world.create(name, recoveryTimeout="1h")
            world.until_ready("untouched", "edited", "deleted", "moved")
            versions = {name: world.get(name)["metadata"]["resourceVersion"] for name in ("untouched", "moved")}
            audit.begin()
            relay.refuse()
            edited = world.patch("edited", {"spec": {"failureThreshold": 7}})["metadata"]["generation"]
            world.delete("deleted")
            world.create("made")
            world.fleet("moved").open()
            compact(world.plane)
            relay.heal()
            world.until(lambda: GONE in [_answer(world, path) for path in _resumed(audit)], "the watch to meet a 410")
            world.until(lambda: world.status("edited")["observedGeneration"] == edited, "the edit", SOON_SECONDS)
            assert world.fleet("edited").observe().policy.failure_threshold == 7
            world.until_ready("made")
            world.until(lambda: not world.keys_of("deleted"), "the deletion to be served", SOON_SECONDS)
            world.until_state("moved", State.OPEN, SOON_SECONDS)
            world.until(lambda: _answer(world, _resumed(audit)[-1]) == 0, "a watch that goes on", SOON_SECONDS)
            missed = operator.metric(MISSED)
            world.whole_life("orders")  # by the watch: the sweep has nothing to add
            assert operator.metric(MISSED) == missed
            assert operator.ready
        world.until_events("untouched", ["PolicyApplied"])
        world.until_events("edited", ["PolicyApplied", "PolicyApplied"])
        world.until_events("moved", ["PolicyApplied", "CircuitOpened"])
        world.until_events("made", ["PolicyApplied"])
        assert world.get("untouched")["metadata"]["resourceVersion"] == versions["untouched"]
        patched = [each for each in audit.requests() if each.right.resource == "circuitbreakers/status"]
        written = [each.right.name for each in patched if each.code == 200]
        assert [written.count(name) for name in ("untouched", "moved", "edited", "made")] == [0, 1, 1, 1]


def _resumed(audit: Audit) -> list[str]:
    """Watches of ours from a version that was known before."""
    found = [each.path for each in audit.requests() if (each.right.resource, each.right.verb) == (PLURAL, "watch")]
    return [path for path in found if "resourceVersion" in parse_qs(urlsplit(path).query)]


def _answer(world: World, path: str) -> int:
    """What the very same request is answered with now: the code of the error in its stream, 0 for none."""
    text = world.plane.kubectl("get", "--raw", path.replace("timeoutSeconds=300", "timeoutSeconds=1"))
    for line in text.splitlines():
        event = json.loads(line)
        if event["type"] == "ERROR":
            return event["object"]["code"]
    return 0
