"""A Redis that answers the probe and ends what comes after it was away and back again five times a second."""

from tests.cluster.test_hostile_input import uptime
from tests.cluster.world import World
from tests.relay import Relay


def test_it_is_probed_less_and_less_often(world: World) -> None:
    """As a node of a Cluster does that serves no key yet."""
    broken = False

    def asked(data: bytes) -> None:
        if broken and b"cb_observe" in data:
            raise ConnectionError

    with Relay(world.server.port, asked=asked) as relay, world.operator(REDIS_URL=relay.redis_url) as operator:
        operator.wait_ready()
        broken = True
        world.create("payments")
        world.until(lambda: "works again" in operator.log, "it to be back for the first time")
        since = uptime(operator)
        world.until(lambda: uptime(operator) >= since + 3, "some seconds to pass")
        assert operator.log.count("works again") < 9, f"{operator.log.count('works again')} times in 3 s"
        broken = False
        world.until_ready("payments")
