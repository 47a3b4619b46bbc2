"""A foreign owner of 64 KiB is quoted in an error reply, whose line is longer than the reader of a connection takes.

That was an error of nobody's kind: the breaker was tried for ever, and its condition went on saying Ready True.
"""

from tests.cluster.world import World


def test_it_is_said_in_the_condition_and_others_are_served(world: World) -> None:
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        # Without a readable standing it is made anew, and the owner is in the way.
        world.redis.hset(world.fleet("payments").key, mapping={"standing": "Ajar", "owner": "o" * 100_000})
        world.until(lambda: world.condition("payments") == ("False", "StoreConflict"), "the condition to say so")
        world.create("search")
        world.until_ready("search")
        assert operator.ready
        world.redis.delete(*world.keys_of("payments"))
        world.until_ready("payments")
