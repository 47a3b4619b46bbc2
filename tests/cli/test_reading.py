"""list, describe, explain, on the real API server with a real operator."""

import pytest
import yaml

from circuitbreaker_contract import library
from circuitbreaker_local.processes import free_port
from tests.cli.shell import Shell
from tests.cluster.world import World
from tests.contract.callers import POLICY, Caller

ESCAPE = "\x1b"


def test_a_list_shows_state_and_sorts_the_worst_first(operated: World, shell: Shell) -> None:
    operated.create("fine")
    operated.create("payments", failureThreshold=2, recoveryTimeout="1h")
    operated.until_ready("fine", "payments")
    operated.fleet("payments").open()
    operated.until_state("payments", "Open")
    by_name = [line.split()[:2] for line in shell.run("list").out.splitlines()]
    assert by_name == [["NAME", "STATE"], ["fine", "Closed"], ["payments", "Open"]]
    assert shell.run("list", "--sort", "state", "-o", "name").out.split() == [
        "circuitbreaker.circuitbreaker.dev/payments",
        "circuitbreaker.circuitbreaker.dev/fine",
    ]
    everything = shell.run("list", "-A", "-o", "wide").out.splitlines()
    assert everything[0].split()[:3] == ["NAMESPACE", "NAME", "STATE"]
    assert [operated.namespace, "payments", "Open", "ConsecutiveFailures", "2"] in [
        line.split()[:5] for line in everything
    ]


def test_a_list_for_programs(operated: World, shell: Shell) -> None:
    operated.create("fine")
    operated.create("other")
    operated.until_ready("fine", "other")
    items = shell.run("list", "--state", "Closed", "-o", "json").json["items"]
    assert [each["status"]["state"] for each in items] == ["Closed", "Closed"]
    assert yaml.safe_load(shell.run("list", "-o", "yaml").out)["items"] == items
    assert shell.run("list", "--state", "Open").out == ""


def test_why_it_is_open_and_what_closes_it(operated: World, shell: Shell) -> None:
    """The rule that tripped with its numbers, the time, the probes; the same sentence as in status."""
    operated.create("payments", failureThreshold=2, recoveryTimeout="1h", successThreshold=4)
    operated.until_ready("payments")
    operated.fleet("payments").open()
    operated.until_state("payments", "Open")
    said = shell.run("explain", "payments").out
    assert operated.status("payments")["message"] == "2 consecutive failures reached failureThreshold 2"
    assert "Open: 2 consecutive failures reached failureThreshold 2" in said
    assert f"at {operated.status('payments')['openUntil']}: then it is HalfOpen" in said
    assert "4 successful probes close it (successThreshold)" in said
    assert "the first probe that fails opens it again for 1h (recoveryTimeout)" in said
    told = shell.run("explain", "payments", "-o", "json").json
    assert (told["name"], told["state"]) == ("payments", "Open")


def test_a_page_about_one(operated: World, shell: Shell) -> None:
    operated.create("payments", failureRatePercent=50, minimumCalls=4, failureThreshold=100)
    operated.until_ready("payments")
    operated.fleet("payments").report(("S", 3), ("F", 1))
    operated.until(lambda: operated.status("payments")["window"]["calls"] == 4, "the counters")
    page = shell.run("describe", "payments").out
    assert "60s: 4 calls, 1 failed, 0 slow" in page.replace("1m", "60s")
    assert "failure rate 25.0 %" in page
    assert "#" * 10 + "=" * 30 in page
    assert "50 % of failed calls in 1m open it (failureRatePercent); 25.0 % of 4 calls now" in page
    assert "in flight" not in page
    assert "Counters (now, from Redis)" in shell.run("describe", "payments", "--redis-url", operated.server.url).out
    away = shell.run("describe", "payments", "--redis-url", f"redis://127.0.0.1:{free_port()}", code=1)
    assert "failure rate 25.0 %" in away.out
    assert "from Redis" not in away.out
    assert "Redis cannot be reached" in away.err
    assert "so the page is what the status last said" in away.err


def test_colours_are_for_terminals(operated: World, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    operated.create("fine")
    operated.until_ready("fine")
    assert ESCAPE not in shell.run("list").out
    assert ESCAPE in shell.at_terminal("list").out
    shell.environment["NO_COLOR"] = "1"
    assert "38;" not in shell.at_terminal("list").out


def test_what_is_not_there(world: World, shell: Shell) -> None:
    failed = shell.run("describe", "nobody", code=1)
    assert "NotFound" in failed.err
    assert failed.out == ""
    assert "no breakers found" in shell.run("list").err
    assert "no name of a breaker" in shell.run("explain", "a/b", code=1).err
    shell.run("list", "--sort", "colour", code=2)


def test_what_redis_holds_under_the_name_of_another_is_not_shown_as_this_one(world: World, shell: Shell) -> None:
    """Another installation in the same Redis, or a resource that was made again while no operator runs."""
    world.create("payments")
    world.redis.function_load(library.source())
    caller = Caller(world.redis, "payments", namespace=world.namespace)
    caller.define(POLICY)
    caller.open()
    url = ("--redis-url", world.server.url)
    described = shell.run("describe", "payments", *url)
    assert "what Redis holds is of another breaker of this name" in described.err
    assert "from Redis" not in described.out
    (row,) = shell.run("top", "--once", *url).out.splitlines()[1:2]
    assert "Open" not in row
    assert "this is of another breaker of this name" in shell.run("history", "payments", *url).err
