"""A Redis that read and did not write was away and back again with each call: hundreds of lines in some seconds."""

from tests.cluster.test_hostile_input import uptime
from tests.cluster.world import World


def test_it_is_away_until_it_writes(world: World) -> None:
    """Without the replicas that it wants; a full disk is a cell of tests/chaos."""
    with world.operator(STATUS_REFRESH="200ms") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        world.redis.config_set("min-replicas-to-write", "1")
        world.until(lambda: not operator.ready, "readiness to tell")
        world.until(lambda: "NOREPLICAS" in operator.log, "the log to say it")
        world.create("later")
        since = uptime(operator)
        world.until(lambda: uptime(operator) >= since + 2, "some more attempts")
        assert not operator.ready
        assert "works again" not in operator.log
        assert operator.log.count("NOREPLICAS") == 1
        assert "check the replicas of Redis" in operator.log
        world.redis.config_set("min-replicas-to-write", "0")
        world.until_ready("later")
        assert operator.ready
