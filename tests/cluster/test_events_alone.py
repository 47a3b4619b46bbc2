"""Events cannot be written and all else can: a webhook in their way, an etcd of their own that is away."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from socket import create_server

import kubernetes

from circuitbreaker_local.processes import free_port
from tests.cluster.world import World


@contextmanager
def webhook_in_the_way(world: World, port: int, *, timeout_seconds: int = 10) -> Iterator[None]:
    """Each Event in the namespace of the test is to be asked for at 127.0.0.1:`port`."""
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
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.namespace}},
    }
    name = f"nobody-{world.namespace}"
    api.create_validating_webhook_configuration({"metadata": {"name": name}, "webhooks": [webhook]})
    try:
        yield
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


def test_namespaces_without_the_webhook_lose_nothing(world: World) -> None:
    """While Events of another one are dropped, and the one that is tried now and then is of that as well."""
    others = world.new_namespace()
    names = [f"b{number}" for number in range(8)]
    with world.operator(LEADER_ELECTION="true", LEASE_NAMESPACE=world.namespace) as operator:
        operator.wait_ready()
        for name in names:
            world.create(name, recoveryTimeout="1h")
            world.create(name, namespace=others, recoveryTimeout="1h")
        world.until_ready(*names)
        world.until_ready(*names, namespace=others)
        with webhook_in_the_way(world, free_port()):
            world.fleet("b0").open()
            world.until_state("b0", "Open")
            for name in names[1:]:
                world.fleet(name).open()
                world.fleet(name, others).open()
            for name in names[1:]:
                world.until_state(name, "Open")
                world.until(lambda name=name: world.status(name, others)["state"] == "Open", "the status of the other")
        dropped = operator.metric('circuitbreaker_operator_events_total{reason="CircuitOpened",result="dropped"}')
        assert dropped == len(names)
        told = [(each.involved_object.name, each.reason) for each in world.core.list_namespaced_event(others).items]
        assert sorted(told) == sorted(
            [(name, "PolicyApplied") for name in names] + [(name, "CircuitOpened") for name in names[1:]]
        )
        assert operator.log.count("writing Events: ") == 1
