"""Events cannot be written and all else can: a webhook in their way, an etcd of their own that is away."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from socket import create_server

import kubernetes

from circuitbreaker_local.processes import free_port
from circuitbreaker_operator.telling import PAUSE_SECONDS
from tests.cluster.test_hostile_input import uptime
from tests.cluster.world import World


def selector(namespaces: list[str]) -> dict[str, object]:
    return {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(namespaces)}]}


@contextmanager
def webhook_in_the_way(
    world: World, port: int, *also: str, timeout_seconds: int = 10
) -> Iterator[Callable[[str], None]]:
    """Each Event in the namespace of the test, and `also` in these, is to be asked for at 127.0.0.1:`port`.

    What it gives takes it out of the way in one namespace.
    """
    names = [world.namespace, *also]
    api = kubernetes.client.AdmissionregistrationV1Api(world.core.api_client)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["events"]}
    webhook = {
        "name": "nobody.example.org",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/"},
        "rules": [rule],
        "failurePolicy": "Fail",
        "timeoutSeconds": timeout_seconds,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": selector(names),
    }
    name = f"nobody-{world.namespace}"
    api.create_validating_webhook_configuration({"metadata": {"name": name}, "webhooks": [webhook]})

    def out_of_the_way(namespace: str) -> None:
        names.remove(namespace)
        left = webhook | {"namespaceSelector": selector(names)}
        api.patch_validating_webhook_configuration(name, {"webhooks": [left]})

    try:
        yield out_of_the_way
    finally:
        api.delete_validating_webhook_configuration(name)


def test_statuses_go_on_without_events(world: World) -> None:
    """After ten seconds; it is said once with what to do, counted, and tried again now and then."""
    fleet = world.fleet("payments")
    with world.operator(LEADER_ELECTION="true", LEASE_NAMESPACE=world.namespace) as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        world.until_events("payments", ["PolicyApplied"])
        with webhook_in_the_way(world, free_port()):
            fleet.open()
            world.until_state("payments", "Open")
            world.create("later")
            world.until_ready("later")
            assert operator.ready
            dropped = 'circuitbreaker_operator_events_total{reason="%s",result="dropped"}'
            assert [operator.metric(dropped % reason) for reason in ("CircuitOpened", "PolicyApplied")] == [1.0, 1.0]
            assert world.events("payments") == ["PolicyApplied"]
            assert world.events("later") == []
        log = operator.log
        assert log.count("writing Events: ") == 1
        assert "look for what is in their way (a webhook, an etcd of their own); statuses go on without" in log
        assert log.count("writing to the API server") <= 4, "it says so with each renewal of the Lease"

        thresholds = count(2)

        def told() -> bool:
            """With the first edit after the pause between two tries."""
            world.patch("later", {"spec": {"failureThreshold": next(thresholds)}})
            world.until_ready("later")
            return world.events("later") != []

        world.until(told, "Events again")
        assert set(world.events("later")) == {"PolicyApplied"}
        assert "writing Events: works again" in operator.log


def test_a_webhook_that_does_not_answer(world: World) -> None:
    """Longer than a renewal of the Lease takes: something else is written while each Event is under way."""
    fleet = world.fleet("payments")
    leads = {"LEADER_ELECTION": "true", "LEASE_NAMESPACE": world.namespace}
    with world.operator(**leads, LEASE_RETRY="500ms") as operator, create_server(("127.0.0.1", 0)) as silent:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        with webhook_in_the_way(world, silent.getsockname()[1], timeout_seconds=2):
            fleet.open()
            world.until_state("payments", "Open", seconds=40)
            assert operator.metric('circuitbreaker_operator_events_total{reason="CircuitOpened",result="dropped"}') == 1
            assert operator.ready


def is_taken(world: World, namespace: str) -> bool:
    """Whether an Event is."""
    about = {"kind": "Namespace", "apiVersion": "v1", "name": namespace, "namespace": namespace}
    try:
        world.core.create_namespaced_event(
            namespace, {"metadata": {"generateName": "try-"}, "involvedObject": about, "reason": "Try"}
        )
    except kubernetes.client.ApiException:
        return False
    return True


def opened(world: World, namespace: str) -> list[str]:
    """Which breakers have the Event of an opening."""
    events = world.core.list_namespaced_event(namespace).items
    return sorted(each.involved_object.name for each in events if each.reason == "CircuitOpened")


def test_namespaces_without_the_webhook_lose_nothing(world: World) -> None:
    """What is known of two others says nothing of them; and who is rid of it has its Events again."""
    first, second, healthy = world.namespace, world.new_namespace(), world.new_namespace()
    names = [f"b{number}" for number in range(8)]
    with world.operator(LEADER_ELECTION="true", LEASE_NAMESPACE=first) as operator:
        operator.wait_ready()
        for space in (first, second, healthy):
            for name in names:
                world.create(name, namespace=space, recoveryTimeout="1h")
            world.until_ready(*names, namespace=space)

        def opens(names: list[str], *spaces: str) -> None:
            every = [(name, space) for name in names for space in spaces]
            for name, space in every:
                world.fleet(name, space).open()
            for name, space in every:
                world.until(
                    lambda at=(name, space): world.status(*at).get("state") == "Open", f"{space}/{name} to be Open"
                )

        with webhook_in_the_way(world, free_port(), second) as out_of_the_way:
            opens(["b0"], first, second)
            opens(names[1:4], first, healthy)
            assert opened(world, healthy) == names[1:4]
            out_of_the_way(second)
            world.until(lambda: is_taken(world, second), "the API server to heed that")
            since = uptime(operator)
            world.until(lambda: uptime(operator) > since + PAUSE_SECONDS, "the pause between two tries to be over")
            opens(names[4:], first, second, healthy)
            assert opened(world, second) == names[4:]
            assert opened(world, healthy) == names[1:]
            assert opened(world, first) == []
        dropped = operator.metric('circuitbreaker_operator_events_total{reason="CircuitOpened",result="dropped"}')
        assert dropped == len(names) + 1
