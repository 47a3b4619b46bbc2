"""A hash that claims a generation which the resource never had kept edits from being applied, and Ready said True."""

from tests.cluster.world import World


def test_it_shows_and_is_over_when_the_keys_are_removed(world: World) -> None:
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        world.redis.hset(world.fleet("payments").key, "resourceGeneration", 99)
        world.patch("payments", {"spec": {"failureThreshold": 7}})
        world.until(lambda: world.condition("payments") == ("False", "StoreConflict"), "the condition to say so")
        world.redis.delete(*world.keys_of("payments"))
        world.until_ready("payments")
        assert world.fleet("payments").observe().policy.failure_threshold == 7
