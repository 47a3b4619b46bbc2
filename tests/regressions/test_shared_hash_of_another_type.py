"""An application that put a text where the shared hash of states is kept every operator from getting ready."""

from tests.cluster.world import World


def test_an_operator_gets_ready_and_says_why_the_hash_is_not_kept(world: World) -> None:
    world.redis.set(world.keys.states, "no hash")
    with world.operator(SWEEP_INTERVAL="1s") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        assert operator.log.count("the shared hash at circuit_breaker_states: WRONGTYPE") == 1
