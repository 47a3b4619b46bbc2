"""What Tab offers; kubectl itself asks in the last test."""

import subprocess
from pathlib import Path

from circuitbreaker_cli.completion import candidates
from tests.cli.shell import Shell
from tests.cluster.world import World


def test_commands_flags_and_values() -> None:
    assert candidates([], "re") == ["release", "reset"]
    assert candidates(["list"], "--so") == ["--sort"]
    assert candidates(["list", "--sort"], "st") == ["state"]
    assert candidates(["list", "--state"], "") == ["Closed", "Open", "HalfOpen"]
    assert candidates([], "do") == ["doctor"]
    assert candidates(["simulate", "--expect"], "") == ["opens", "stays-closed"]
    assert candidates(["doctor"], "--op") == ["--operator-namespace"]
    assert candidates(["nothing"], "") == []
    assert candidates(["trip", "--reason"], "") == []


def test_names_of_breakers_by_way_of_kubectl(world: World, shell: Shell) -> None:
    world.create("payments")
    world.create("orders")
    kubectl = str(Path(shell.programs, "kubectl"))
    command = [kubectl, "__complete", "breaker", "explain", "-n", world.namespace, "pay"]
    done = subprocess.run(command, env=shell.variables(), capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[:2] == ["payments", ":4"]
    command = [kubectl, "breaker", "list", "-n", world.namespace, "-o", "name"]
    done = subprocess.run(command, env=shell.variables(), capture_output=True, text=True, check=True, timeout=60)
    assert len(done.stdout.splitlines()) == 2
