"""The API server refuses the operator's token for a while.

Kopf logged in some twenty times a second, and each session was kept: memory grew by half a MiB a second.
"""

import re
import time

from circuitbreaker_local.control_plane import ControlPlane
from tests.chaos import faults
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


def test_it_logs_in_now_and_then_and_is_back_when_it_may(world: World, plane: ControlPlane) -> None:
    world.credentials = plane.kubeconfig_of(OPERATOR)
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        with faults.operator_refused(plane):
            world.until(lambda: refused(plane) > 0, "it to be refused")
            before, began = refused(plane), time.monotonic()
            world.until(lambda: time.monotonic() - began > SECONDS, "some more attempts")
            seconds, count = time.monotonic() - began, refused(plane) - before
        assert 0 < count < OFTEN * seconds
        world.create("orders")
        world.until_ready("orders", "payments")
        world.until(lambda: operator.ready, "readiness")
