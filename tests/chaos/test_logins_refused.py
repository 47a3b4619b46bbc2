"""The API server refuses the operator's token for a while.

Kopf logged in some twenty times a second, and each session was kept: memory grew by half a MiB a second.
"""

import re
import time
from pathlib import Path

from circuitbreaker_local.control_plane import ControlPlane
from tests.chaos.stage import OPERATOR
from tests.cluster.world import World

OFTEN = 10.0  # a second, of all that the operator asks for; a sweep is tried every two seconds
SECONDS = 6.0


def refused(plane: ControlPlane) -> int:
    """Logins that the API server refused since it began."""
    counts = re.findall(
        r'^authentication_attempts\{result="(?:failure|error)"\} (\S+)$',
        plane.kubectl("get", "--raw", "/metrics"),
        re.MULTILINE,
    )
    return sum(int(float(each)) for each in counts)


def take_up(plane: ControlPlane, tokens: Path, text: str) -> None:
    tokens.write_text(text)
    plane.stop_api_server()
    plane.start_api_server()


def test_it_logs_in_now_and_then_and_is_back_when_it_may(world: World, plane: ControlPlane) -> None:
    world.credentials = plane.kubeconfig_of(OPERATOR)
    tokens = plane.folder / "tokens.csv"
    right = tokens.read_text()
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        try:
            take_up(plane, tokens, re.sub(rf"^(?=[^,]*,{OPERATOR},)", "wrong-", right, flags=re.MULTILINE))
            world.until(lambda: refused(plane) > 0, "it to be refused")
            before, began = refused(plane), time.monotonic()
            world.until(lambda: time.monotonic() - began > SECONDS, "some more attempts")
            seconds, count = time.monotonic() - began, refused(plane) - before
        finally:
            take_up(plane, tokens, right)
        assert 0 < count < OFTEN * seconds
        world.create("orders")
        world.until_ready("orders", "payments")
        world.until(lambda: operator.ready, "readiness")
