"""Events cannot be written and all else can: a webhook in their way, an etcd of their own that is away."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import kubernetes

from circuitbreaker_local.processes import free_port
from tests.cluster.world import World


@contextmanager
def webhook_in_the_way(world: World) -> Iterator[None]:
    """Each Event in the namespace of the test is to be asked for at an address where nobody is."""
    api = kubernetes.client.AdmissionregistrationV1Api(world.core.api_client)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["events"]}
    webhook = {
        "name": "nobody.example.org",
        "clientConfig": {"url": f"https://127.0.0.1:{free_port()}/"},
        "rules": [rule],
        "failurePolicy": "Fail",
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
        with webhook_in_the_way(world):
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
