"""A namespace goes with all that is in it."""

from concurrent.futures import ThreadPoolExecutor

import kubernetes

from circuitbreaker_local.control_plane import ControlPlane
from tests.chaos.matrix import FULL
from tests.cluster.world import API, PLURAL, World

BREAKERS = 1_000 if FULL else 200
READY_SECONDS = 120 if FULL else 60
SWEEP_SECONDS = 2.0


def test_a_namespace_goes_with_all_that_is_in_it(world: World, plane: ControlPlane) -> None:
    """Nothing of it stays in Redis, a namespace beside it is not touched, and the log does not fill."""
    names = [f"b{number}" for number in range(BREAKERS)]
    gone = world.new_namespace()
    with world.operator(STATUS_QPS="2000") as operator, ThreadPoolExecutor(4) as pool:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1h")
        list(pool.map(lambda name: world.create(name, namespace=gone, recoveryTimeout="500ms"), names))
        world.until(lambda: len(_ready(world, gone)) == BREAKERS, "all of them to be Ready", READY_SECONDS)
        for name in names[::4]:  # some move while the namespace goes
            world.fleet(name, gone).open()
        lines = operator.log.count("\n")
        plane.kubectl("delete", "namespace", gone, "--wait=false")
        # What the namespace controller does, which does not run here.
        world.objects.delete_collection_namespaced_custom_object(*API, gone, PLURAL)
        world.until(lambda: not _keys(world, gone), "all keys of the namespace to go", SWEEP_SECONDS + 8)
        spec = kubernetes.client.V1NamespaceSpec(finalizers=[])
        body = kubernetes.client.V1Namespace(metadata=kubernetes.client.V1ObjectMeta(name=gone), spec=spec)
        world.core.replace_namespace_finalize(gone, body)
        world.namespaces.remove(gone)
        world.until(lambda: not any(gone in field for field in world.redis.hkeys(world.keys.states)), "the shared hash")
        world.until_ready("payments")
        world.fleet("payments").open()
        world.until_state("payments", "Open")
        assert operator.ready
        said = [
            line for line in operator.log.splitlines()[lines:] if " reason=" not in line and " removed " not in line
        ]
        assert len(said) < 20, said[:20]


def _ready(world: World, namespace: str) -> list[str]:
    return [
        each["metadata"]["name"]
        for each in world.all(namespace)
        for one in each.get("status", {}).get("conditions", [])
        if (one["type"], one["status"]) == ("Ready", "True")
    ]


def _keys(world: World, namespace: str) -> list[str]:
    return list(world.redis.scan_iter(match=f"cb:{{{namespace}/*", count=1_000))
