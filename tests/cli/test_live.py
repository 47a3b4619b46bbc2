"""watch and top at a real terminal: what they show, and what they leave behind when they end."""

import json
import os
import signal
from dataclasses import replace

import psutil
import pytest

from circuitbreaker_local.waiting import wait_until
from tests.cli.session import CTRL_C, at_terminal, kubectls, line_of, piped
from tests.cli.shell import Shell
from tests.cluster.world import World

ALTERNATE, NORMAL = "\x1b[?1049h", "\x1b[?1049l"


def reset(world: World, token: str) -> None:
    world.patch("payments", {"metadata": {"annotations": {"circuitbreaker.dev/reset": token}}})


def gone(process: psutil.Process) -> None:
    wait_until(lambda: not process.is_running(), timeout_seconds=5, what=f"{process} to end")


def test_a_watch_tells_what_happens_and_outlives_its_connection(operated: World, shell: Shell) -> None:
    operated.create("payments", failureThreshold=2, recoveryTimeout="1h")
    operated.until_ready("payments")
    with at_terminal(shell, "watch") as session:
        session.until("watching 1 breaker: 0 ○ Open, 0 ◐ HalfOpen, 1 ● Closed")
        operated.fleet("payments").open()
        line = session.until("failureThreshold 2").splitlines()[-1]
        assert "● Closed" in line
        assert "○ Open" in line
        assert "ConsecutiveFailures" in line
        assert "by calls" in line
        assert "Created" not in line
        lost = session.kubectl()
        lost.kill()
        reset(operated, "1")
        assert "by reset" in session.until("closed by the annotation")
        operated.create("orders")
        session.until(r"orders .*\(new\).*Created")
        operated.delete("orders")
        session.until(r"orders [^\n]*\(deleted\)[^\n]*\n")
        last = session.kubectl()
        assert last.pid != lost.pid
        session.type(CTRL_C)
        assert session.end() == 130
        gone(last)
        assert session.seen.splitlines() == ["^C"]  # nobody has to read of how it ended


def test_a_watch_for_programs(operated: World, shell: Shell) -> None:
    """JSON, a line each; only into one state; SIGTERM, SIGKILL and the end of the reader leave no kubectl behind."""
    operated.create("payments", failureThreshold=2, recoveryTimeout="1h")
    operated.until_ready("payments")

    fleet = operated.fleet("payments")
    for number, (end, code) in enumerate(((signal.SIGTERM, 143), (signal.SIGKILL, -9), (None, 0))):
        with piped(shell, "watch", "payments", "-o", "json", "--state", "Open") as process:
            assert line_of(process.stderr) == "watching 1 breaker: 0 Open, 0 HalfOpen, 1 Closed\n"
            operated.until(lambda pid=process.pid: kubectls(pid), "kubectl to be started")
            (child,) = kubectls(process.pid)
            if end is None:  # the reader has seen enough
                process.stdout.close()
                fleet.open()
            else:
                fleet.open()
                told = json.loads(line_of(process.stdout))
                assert (told["name"], told["from"], told["to"], told["by"]) == ("payments", "Closed", "Open", "calls")
                process.send_signal(end)
            assert process.wait(20) == code
            gone(child)
        reset(operated, f"program-{number}")
        operated.until_state("payments", "Closed")


def test_a_watch_that_cannot_be_or_that_ends(operated: World, shell: Shell) -> None:
    operated.create("payments")
    operated.until_ready("payments")
    done = shell.run("watch", "payments", "nobody", "--initial", "--for", "100ms")
    assert "not there yet: nobody" in done.err
    (line,) = done.out.splitlines()
    assert " is Closed " in line
    shell.run("watch", "--for", "soon", code=2)
    shell.run("watch", "a/b", code=1)
    nowhere = Shell(shell.kubeconfig, shell.programs, shell.namespace, {"KUBECONFIG": os.devnull})
    nowhere.run("watch", code=1)


def test_top_shows_speeds_and_gives_the_terminal_back(operated: World, shell: Shell) -> None:
    operated.create("fine")
    operated.create("other")
    operated.create("payments", failureThreshold=2, recoveryTimeout="1h")
    operated.until_ready("fine", "other", "payments")
    fleet = operated.fleet("payments")
    fleet.open()
    operated.until_state("payments", "Open")
    redis = ("--redis-url", operated.server.url)
    with at_terminal(shell, "top", "--every", "0.5", *redis) as session:
        assert ALTERNATE in session.until("1 .*○ Open.*REFUSED/S.*payments.*fine")
        fleet.report(("N", 900))
        session.until(r"payments\s+\S*○ Open\S*\s+[1-9][0-9]*\s")
        session.type("s")
        session.until("sorted by rate")
        session.type("q")
        assert session.end() == 0
        assert NORMAL in session.seen
        assert session.settings() == session.before
    with at_terminal(shell, "top", columns=60, rows=6) as session:
        session.until("1 .*○ Open.*and 2 more")
        assert session.settings() != session.before
        session.process.send_signal(signal.SIGTERM)
        assert session.end() == 143
        assert NORMAL in session.seen
        assert session.settings() == session.before


def test_top_for_programs(operated: World, shell: Shell) -> None:
    """One table: with speeds from Redis, and from a status once it was written twice; here it was looked at once."""
    operated.create("payments", failureThreshold=2, recoveryTimeout="1h")
    operated.until_ready("payments")
    operated.fleet("payments").open()
    operated.until_state("payments", "Open")
    _, row = shell.run("top", "--sort", "open").out.splitlines()
    assert [row.split()[0], row.split()[1], row.split()[-1]] == ["payments", "Open", "ConsecutiveFailures"]
    _, row = shell.run("top", "--redis-url", operated.server.url).out.splitlines()
    assert row.split()[:4] == ["payments", "Open", "0", "0"]


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_narrow_terminal_cuts_nothing(world: World, shell: Shell, term: str) -> None:
    """rich takes a part of each column, and a dumb terminal to be 80 wide."""
    world.create("a-breaker-of-a-name-that-is-longer-than-this-terminal-is-wide")
    with at_terminal(replace(shell, environment={"TERM": term}), "list", "-o", "wide", columns=40) as session:
        shown = session.until("AGE.*wide .*\n")
        assert "RETRY-IN" in shown
        assert "THRESHOLD" in shown
        assert session.end() == 0
