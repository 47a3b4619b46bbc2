"""An edit that a full Redis refused said "look at its keys", as of damage; who removes them loses the breaker."""

from tests.cluster.world import World


def test_a_full_redis_says_so(world: World) -> None:
    """And takes the edit when there is room."""
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        world.redis.config_set("maxmemory", "1b")
        world.patch("payments", {"spec": {"failureThreshold": 7}})
        world.until(lambda: world.condition("payments")[0] == "False", "the refusal to show")
        (ready,) = [each for each in world.status("payments")["conditions"] if each["type"] == "Ready"]
        root = world.fleet("payments").key
        assert ready["reason"] == "StoreConflict"
        assert ready["message"].startswith(f"Redis does not serve the breaker at {root}: Redis is full: ")
        assert world.status("payments")["policy"]["failureThreshold"] == 5
        world.redis.config_set("maxmemory", "0")
        world.until_ready("payments")
        assert world.status("payments")["policy"]["failureThreshold"] == 7
