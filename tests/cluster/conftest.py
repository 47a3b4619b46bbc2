"""What tests of the operator need of the cluster: the resource."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from tests.cluster.world import World

CRD = Path(__file__).parents[2] / "crds" / "circuitbreakers.yaml"


@pytest.fixture(scope="session")
def breaker_crd(control_plane: ControlPlane) -> str:
    """The name of the CRD, installed and served."""
    return install_crd(control_plane)


def install_crd(control_plane: ControlPlane) -> str:
    """The same for a control plane of one's own."""
    name = "circuitbreakers.circuitbreaker.dev"
    control_plane.apply(CRD)
    # Not `kubectl wait`: it fails on a CRD that has no conditions yet, and Established comes a moment before the API
    # server's own handler has heard of it.
    wait_until(lambda: _is_served(control_plane), timeout_seconds=30, what=f"{name} to be served")
    return name


def _is_served(control_plane: ControlPlane) -> bool:
    try:
        control_plane.kubectl("get", "circuitbreakers.circuitbreaker.dev", "--all-namespaces")
    except LocalError:
        return False
    return True


@pytest.fixture
def world(control_plane: ControlPlane, breaker_crd: str, redis_server: RedisServer, tmp_path: Path) -> Iterator[World]:
    """A namespace and a Redis of the test's own, and the means to start operators."""
    world = World(control_plane, redis_server, tmp_path)
    yield world
    world.close()
