"""A breaker that went between the two reads of a long history was an error of nobody's kind: a traceback each time."""

from tests.cluster.world import World
from tests.relay import Relay


def test_it_is_made_again(world: World) -> None:
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="100ms", successThreshold=1)
        world.until_ready("payments")
    for _ in range(4):  # further ahead of the status than what is read at first
        fleet.open()
        world.until(lambda: fleet.observe().due, "it to be due")
        fleet.recover()
    gone = False

    def asked(data: bytes) -> None:
        nonlocal gone
        if b"cb_observe" in data and b"\r\n256\r\n" in data and not gone:
            gone = True
            world.redis.delete(*world.keys_of("payments"))

    with Relay(world.server.port, asked=asked) as relay, world.operator(REDIS_URL=relay.redis_url) as operator:
        operator.wait_ready()
        world.until(lambda: gone, "the whole history to be read")
        world.until(lambda: world.redis.exists(fleet.key), "it to be made again")
        world.until_ready("payments")
        assert "Traceback" not in operator.log
        assert "cannot show a breaker" not in operator.log
