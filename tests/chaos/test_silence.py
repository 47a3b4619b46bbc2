"""What is open and says nothing any more: a watch whose peer has vanished."""

from circuitbreaker_local.control_plane import ControlPlane
from tests.chaos.stage import kubeconfig_through
from tests.cluster.world import World
from tests.relay import Relay

ANSWER_SECONDS = 15.0  # after which a request counts as unanswered
REPLACED_SECONDS = 90.0


def test_a_watch_that_goes_silent(world: World, plane: ControlPlane) -> None:
    """The sweep serves what the watch does not bring; then the watch is replaced, and edits come at once."""
    with Relay(plane.api_server.port) as relay:
        world.credentials = kubeconfig_through(relay, plane, world.folder)
        with world.operator() as operator:
            operator.wait_ready()
            world.create("payments")
            world.until_ready("payments")
            restarts = 'circuitbreaker_operator_watch_restarts_total{cause="behind"}'
            assert not operator.metric(restarts)
            relay.swallow()
            relay.heal()  # what is open stays dead; whatever connects anew is answered
            world.create("search")
            world.until(
                lambda: world.condition("search")[0] == "True", "what was made to be served", ANSWER_SECONDS + 15
            )
            world.delete("payments")
            world.until(lambda: not world.keys_of("payments"), "what was deleted to be removed", 15)
            numbers = iter(range(1_000))

            def replaced() -> bool:
                world.patch("search", {"spec": {"failureThreshold": 5 + next(numbers) % 50}})
                return bool(operator.metric(restarts))

            world.until(replaced, "the watch to be replaced", REPLACED_SECONDS)
            assert operator.ready
            assert operator.get("/healthz")[0] == 200
            world.whole_life("orders")
