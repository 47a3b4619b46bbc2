"""A right that the operator was not given, or that was taken from it: said once, shown, and over when it is given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import kubernetes
from kubernetes.client import RbacV1Subject, V1ClusterRole, V1ClusterRoleBinding, V1ObjectMeta, V1PolicyRule, V1RoleRef

from tests.cluster.world import API, PLURAL, World

BREAKERS = 40
SOON_SECONDS = 30.0  # the watch is started again at most every 15 s
SWEEPS = "circuitbreaker_operator_sweeps_total"
READS = ("get", "list", "watch")


class Rights:
    """Of one service account over the breakers of the whole cluster; `give` replaces what it had."""

    def __init__(self, world: World) -> None:
        self._api = kubernetes.client.RbacAuthorizationV1Api(world.api)
        self._name = f"operator-of-{world.namespace}"
        world.plane.kubectl("create", "serviceaccount", "operator", "--namespace", world.namespace)
        world.credentials = world.plane.service_account_kubeconfig(world.namespace, "operator")
        metadata = V1ObjectMeta(name=self._name)
        role = V1RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=self._name)
        subject = RbacV1Subject(kind="ServiceAccount", name="operator", namespace=world.namespace)
        self._api.create_cluster_role(V1ClusterRole(metadata=metadata, rules=[]))
        self._api.create_cluster_role_binding(
            V1ClusterRoleBinding(metadata=metadata, role_ref=role, subjects=[subject])
        )

    def give(self, reads: Sequence[str] = READS, *, status: bool = True) -> None:
        rules = [
            V1PolicyRule(api_groups=[API[0]], resources=[PLURAL], verbs=[*reads]),
            V1PolicyRule(api_groups=[""], resources=["events"], verbs=["create"]),
            V1PolicyRule(api_groups=["apiextensions.k8s.io"], resources=["customresourcedefinitions"], verbs=[*READS]),
            V1PolicyRule(api_groups=[""], resources=["namespaces"], verbs=[*READS]),
        ]
        if status:
            rules.append(V1PolicyRule(api_groups=[API[0]], resources=[f"{PLURAL}/status"], verbs=["patch"]))
        self._api.replace_cluster_role(self._name, V1ClusterRole(metadata=V1ObjectMeta(name=self._name), rules=rules))

    def remove(self) -> None:
        self._api.delete_cluster_role_binding(self._name)
        self._api.delete_cluster_role(self._name)


@contextmanager
def rights_of(world: World) -> Iterator[Rights]:
    rights = Rights(world)
    try:
        yield rights
    finally:
        rights.remove()


def test_no_right_to_write_statuses_is_said_once(world: World) -> None:
    """Not once for each breaker. Redis is served all the same; when the right is there, every status is written."""
    names = [f"b{number}" for number in range(BREAKERS)]
    with rights_of(world) as rights:
        rights.give(status=False)
        with world.operator() as operator:
            operator.wait_ready()
            for name in names:
                world.create(name)
            refused = 'circuitbreaker_operator_status_patches_total{result="refused"}'
            world.until(lambda: (operator.metric(refused) or 0) >= 2 * BREAKERS, "each to be refused twice")
            said = [line for line in operator.log.splitlines() if "writing statuses" in line]
            assert len(said) == 1, said
            assert "forbidden" in said[0]
            assert "grant patch on circuitbreakers/status" in said[0]
            assert not [line for line in operator.log.splitlines() if "cannot write status" in line]
            world.until(lambda: all(map(world.keys_of, names)), "Redis to be served all the same")
            assert operator.ready
            rights.give()
            world.until_ready(*names)
            assert operator.log.count("writing statuses: works again") == 1


def test_no_right_to_watch_is_no_readiness(world: World) -> None:
    """The sweep serves what the watch does not bring, but late: readiness tells of it until the right is there."""
    with rights_of(world) as rights:
        rights.give(["get", "list"])
        with world.operator() as operator:
            world.create("payments")
            world.until_ready("payments")
            world.until(lambda: "[+] synced" in operator.get("/readyz")[1], "a whole sweep")
            world.until(lambda: operator.metric(SWEEPS) >= 3, "more sweeps")
            code, said = operator.get("/readyz")
            assert (code, "[-] watch" in said) == (503, True), said
            assert operator.get("/healthz")[0] == 200
            assert '"watch": {"status": "down"}' in operator.get("/health")[1]
            rights.give()
            world.until(lambda: operator.ready, "readiness to come", SOON_SECONDS)
            assert '"watch": {"status": "up"}' in operator.get("/health")[1]
            world.whole_life("orders")
