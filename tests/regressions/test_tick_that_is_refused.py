"""An Open breaker whose tick Redis refused, while it could be read, was ticked again at once, and no word of it."""

from tests.cluster.test_hostile_input import uptime
from tests.cluster.world import World


def test_it_is_asked_again_after_pauses_and_says_why(world: World) -> None:
    with world.operator(STATUS_REFRESH="1h") as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="500ms", successThreshold=1)
        world.until_ready("payments")
        fleet = world.fleet("payments")
        world.redis.set(f"{fleet.key}:probes", "damaged")
        fleet.open()
        world.until(lambda: world.condition("payments") == ("False", "StoreConflict"), "the condition to say so")
        (condition,) = (each for each in world.status("payments")["conditions"] if each["type"] == "Ready")
        assert "WRONGTYPE" in condition["message"], condition
        before, since = world.redis.info("commandstats")["cmdstat_fcall"]["calls"], uptime(operator)
        world.until(lambda: uptime(operator) >= since + 3, "some seconds to pass")
        asked = world.redis.info("commandstats")["cmdstat_fcall"]["calls"] - before
        assert asked < 20, f"{asked} calls in 3 s"
        assert world.status("payments")["state"] == "Open"
        world.redis.delete(f"{fleet.key}:probes")
        world.until_state("payments", "HalfOpen", seconds=40)
        world.until_ready("payments")
        fleet.recover()
        moves = ["CircuitOpened", "CircuitHalfOpen", "CircuitClosed"]
        world.until_events("payments", ["PolicyApplied", "PolicyRejected", *moves])
