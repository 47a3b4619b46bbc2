"""The plugin as a user starts it, on the real control plane."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from circuitbreaker_local.control_plane import ControlPlane
from tests.cli.shell import Shell
from tests.cluster.conftest import breaker_crd, world  # noqa: F401 # fixtures
from tests.cluster.world import World


@pytest.fixture
def shell(world: World, tmp_path: Path) -> Shell:  # noqa: F811
    return Shell(world.plane.kubeconfig, kubectl_folder(world.plane, tmp_path), world.namespace)


@pytest.fixture
def operated(world: World) -> Iterator[World]:  # noqa: F811
    """A world in which an operator runs."""
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        yield world


def kubectl_folder(plane: ControlPlane, folder: Path) -> Path:
    """A folder that has kubectl under this name, and nothing else."""
    path = folder / "bin"
    path.mkdir()
    (path / "kubectl").symlink_to(plane.binaries.kubectl)
    return path
