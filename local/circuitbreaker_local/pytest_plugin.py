"""Fixtures: the same control plane and Redis as the demo's. See `tests/conftest.py`."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from circuitbreaker_local.binaries import ControlPlaneBinaries, control_plane_binaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.loopback import reach_directly
from circuitbreaker_local.redis_server import RedisServer, find_redis_server


def pytest_configure() -> None:
    """A proxy of whoever runs the tests is not for what they start."""
    reach_directly(os.environ)


@contextmanager
def _said_aloud(request: pytest.FixtureRequest) -> Iterator[None]:
    """A first build takes minutes: its progress is for the person who waits, not for the captured output."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        yield
        return
    with capture.global_and_fixture_disabled():
        yield


@pytest.fixture(scope="session")
def redis_server_binary(request: pytest.FixtureRequest) -> Path:
    with _said_aloud(request):
        return find_redis_server()


@pytest.fixture(scope="session")
def kubernetes_binaries(request: pytest.FixtureRequest) -> ControlPlaneBinaries:
    with _said_aloud(request):
        return control_plane_binaries()


@pytest.fixture(scope="session")
def control_plane(kubernetes_binaries: ControlPlaneBinaries) -> Iterator[ControlPlane]:
    """One for the session. A test that stops or pauses it puts it right again, or better, starts one of its own."""
    with ControlPlane(kubernetes_binaries) as plane:
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """The name of a namespace that no other test has seen."""
    return control_plane.create_namespace()


@pytest.fixture
def redis_server(redis_server_binary: Path) -> Iterator[RedisServer]:
    """One for this test, to break."""
    with RedisServer(redis_server_binary) as server:
        yield server


@pytest.fixture(scope="session")
def _session_redis(redis_server_binary: Path) -> Iterator[RedisServer]:
    with RedisServer(redis_server_binary) as server:
        yield server


@pytest.fixture
def shared_redis(_session_redis: RedisServer) -> RedisServer:
    """One for the session, empty at the start of each test: no keys and no functions."""
    with redis.Redis.from_url(_session_redis.url) as client:
        client.flushall()
        client.function_flush()
    return _session_redis
