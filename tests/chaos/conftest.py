"""A control plane to break, for all of these tests: whatever a test leaves, it is put right after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitbreaker_local.binaries import ControlPlaneBinaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer
from tests.chaos.matrix import FULL
from tests.chaos.stage import OPERATOR
from tests.cluster.conftest import install_crd
from tests.cluster.world import World

# They wait for a minute or so.
SLOW = ["test_kind_deleted.py", "test_silence.py", "test_long_outage.py"]
collect_ignore = [] if FULL else SLOW


@pytest.fixture(scope="session")
def _chaos_plane(kubernetes_binaries: ControlPlaneBinaries) -> Iterator[ControlPlane]:
    with ControlPlane(kubernetes_binaries, users={OPERATOR: ["system:masters"]}) as plane:
        install_crd(plane)
        yield plane


@pytest.fixture
def plane(_chaos_plane: ControlPlane) -> Iterator[ControlPlane]:
    yield _chaos_plane
    for server in (_chaos_plane.etcd, _chaos_plane.api_server):
        server.process.resume()
        server.start()


@pytest.fixture
def world(plane: ControlPlane, redis_server: RedisServer, tmp_path: Path) -> Iterator[World]:
    world = World(plane, redis_server, tmp_path)
    yield world
    world.close()
