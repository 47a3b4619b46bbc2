"""Each round of the refresh said again that a damaged breaker cannot be served: a line a minute, for ever."""

from tests.cluster.world import World


def test_the_same_failure_is_one_line(world: World) -> None:
    with world.operator(STATUS_REFRESH="200ms") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        world.redis.delete(world.fleet("payments").key)
        world.redis.set(world.fleet("payments").key, "no hash")
        world.until(lambda: world.condition("payments") == ("False", "StoreConflict"), "the condition to say so")
        errors = "circuitbreaker_operator_reconcile_errors_total"
        world.until(lambda: (operator.metric(errors) or 0) >= 5, "some more attempts", 30)
        assert operator.log.count("failed, will be repeated") == 1
