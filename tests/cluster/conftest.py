"""What tests of the operator need of the cluster: the resource."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer
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
    control_plane.until_served(name)
    return name


@pytest.fixture
def world(control_plane: ControlPlane, breaker_crd: str, redis_server: RedisServer, tmp_path: Path) -> Iterator[World]:
    """A namespace and a Redis of the test's own, and the means to start operators."""
    world = World(control_plane, redis_server, tmp_path)
    yield world
    world.close()
