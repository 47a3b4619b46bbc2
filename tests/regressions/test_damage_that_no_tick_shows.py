"""Damage in a part of the hash that a tick does not read stayed unnoticed until the next transition."""

from tests.cluster.world import World


def test_it_is_found_by_looking_now_and_then(world: World) -> None:
    with world.operator(STATUS_REFRESH="200ms") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        world.redis.hset(world.fleet("payments").key, "probesGranted", "-7")
        world.until(lambda: world.condition("payments") == ("False", "StoreConflict"), "the condition to say so", 30)
