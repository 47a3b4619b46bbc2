"""The command `circuitbreaker-conformance` from end to end, against a real Redis and libraries with a fault."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from circuitbreaker_conformance import CLOCK_KEY, SETTABLE_CLOCK, Scenario, load, play
from circuitbreaker_contract import library
from tests.contract.stores import TwinStore

SCRIPT = Path(sys.executable).parent / "circuitbreaker-conformance"
COMMAND = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "circuitbreaker_conformance"]

Conformance = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def conformance(shared_redis) -> Conformance:
    """Runs the command against the Redis of the tests."""

    def run(*arguments: str, url: str = shared_redis.url) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "--redis", url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def client(shared_redis):
    with redis.Redis.from_url(shared_redis.url, decode_responses=True) as client:
        yield client


def faulty(tmp_path: Path, right: str, wrong: str) -> str:
    """A file with our library in which one rule is broken."""
    text = library.joined({"clock": SETTABLE_CLOCK})
    assert text.count(right) == 1
    path = tmp_path / "library.lua"
    path.write_text(text.replace(right, wrong))
    return str(path)


def test_our_library_conforms(conformance: Conformance, client) -> None:
    """Every scenario passes, each group is counted, and the Redis is as empty as it was."""
    done = conformance()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(load())} passed, 0 failed" in done.stdout
    assert f"digest {library.digest()}" not in done.stdout  # the clock is another file, and the digest says so
    for group in {scenario.group for scenario in load()}:
        assert group in done.stdout
    assert client.dbsize() == 0
    assert client.function_list() == []


def test_a_broken_rule_is_reported_readably(conformance: Conformance, tmp_path: Path) -> None:
    """Which scenario, which step, what was expected and what was seen; exit status 1."""
    path = faulty(
        tmp_path, "b.probeSuccesses >= b.rules.successThreshold", "b.probeSuccesses > b.rules.successThreshold"
    )
    done = conformance("--library", path, "--scenario", "completes the success threshold")
    assert (done.returncode, done.stderr) == (1, "")
    expected = """\
FAILED half-open and leases: closes on the success that completes the success threshold
  step 5 of 5: settle: l2 S, wait: 10
    messages             expected  ["HalfOpen -> Closed ProbesSucceeded"]
                         seen      []
    state                expected  Closed
                         seen      HalfOpen
"""
    assert expected in done.stdout
    assert "0 passed, 1 failed" in done.stdout


def test_a_library_that_fails_inside_is_reported_too(conformance: Conformance, tmp_path: Path) -> None:
    """An error that the contract does not know is an answer like any other: the wrong one."""
    path = faulty(tmp_path, "b.state, 'WouldHaveOpened'", "b.state .. nil, 'WouldHaveOpened'")
    done = conformance("--library", path, "--scenario", "in Observe nothing is refused")
    assert (done.returncode, done.stderr) == (1, "")
    assert "error     " in done.stdout
    assert "attempt to concatenate a nil value" in done.stdout


@pytest.mark.parametrize("held", ["a key", "a key of another database", "a function library"])
def test_a_redis_that_holds_anything_is_refused(conformance: Conformance, client, shared_redis, held: str) -> None:
    """It would be erased: only when told so. What is there stays; exit status 2."""
    if held == "a function library":
        client.function_load("#!lua name=mine\nredis.register_function('mine', function() return 1 end)")
    else:
        with redis.Redis.from_url(shared_redis.url.replace("/0", "/0" if held == "a key" else "/3")) as other:
            other.set("precious", "1")
    done = conformance("--group", "thresholds")
    assert (done.returncode, done.stdout) == (2, "")
    assert "this Redis holds 1 " in done.stderr
    assert "--erase" in done.stderr
    assert sum(database["keys"] for database in client.info("keyspace").values()) + len(client.function_list()) == 1

    done = conformance("--group", "thresholds", "--erase")
    assert (done.returncode, done.stderr) == (0, "")
    assert client.info("keyspace") == {}
    assert client.function_list() == []


def test_a_library_with_a_clock_of_its_own_is_refused(conformance: Conformance, client, tmp_path: Path) -> None:
    """The shipped library does not read the key: nothing could be played, and nothing is left behind."""
    path = tmp_path / "library.lua"
    path.write_text(library.source())
    done = conformance("--library", str(path))
    assert done.returncode == 2
    assert f"does not read its time from the key {CLOCK_KEY}" in done.stderr
    assert (client.dbsize(), client.function_list()) == (0, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!lua name=x\nthis is no Lua", "Redis does not take the library"),
        ("#!lua name=x\nlocal x = 1", "does not take"),
    ],
)
def test_a_library_that_does_not_load_is_refused(
    conformance: Conformance, tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "library.lua"
    path.write_text(text)
    done = conformance("--library", str(path))
    assert done.returncode == 2
    assert said in done.stderr


def test_a_library_without_our_functions_is_refused(conformance: Conformance, client, tmp_path: Path) -> None:
    path = tmp_path / "library.lua"
    path.write_text("#!lua name=x\nredis.register_function('x', function() return 1 end)")
    done = conformance("--library", str(path))
    assert done.returncode == 2
    assert "the library answers a first call with" in done.stderr
    assert client.function_list() == []


def test_the_report_as_json(conformance: Conformance, tmp_path: Path) -> None:
    """One object: counts, groups, and each scenario with the step and the differences."""
    path = faulty(
        tmp_path, "b.probeSuccesses >= b.rules.successThreshold", "b.probeSuccesses > b.rules.successThreshold"
    )
    done = conformance("--library", path, "--group", "half-open", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["library"]["contract"] == library.CONTRACT_VERSION
    assert report["passed"] + report["failed"] == len(report["scenarios"])
    assert report["groups"] == {
        "half-open and leases": {"passed": report["passed"], "failed": report["failed"]},
    }
    failed = next(each for each in report["scenarios"] if not each["passed"])
    assert failed["step"] == 5
    assert {"what": "state", "expected": "Closed", "seen": "HalfOpen"} in failed["differences"]


def test_the_list_needs_no_redis() -> None:
    """Groups and names; as JSON for a program."""
    listed = subprocess.run([*COMMAND, "--list"], capture_output=True, text=True, timeout=60, check=True)
    assert listed.stdout.splitlines()[-1] == f"{len(load())} scenarios"
    assert all(f"  {scenario.name}" in listed.stdout.splitlines() for scenario in load())
    some = subprocess.run(
        [*COMMAND, "--list", "--json", "--group", "FLEET"], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(some.stdout) == [
        {"group": scenario.group, "name": scenario.name} for scenario in load() if scenario.group == "fleet"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--group", "nonesuch"], "the groups are: "),
        (["--library", "/nonexistent/library.lua"], "library.lua"),
        ([], "--redis is missing"),
    ],
)
def test_what_cannot_be_played_is_said(arguments: list[str], said: str) -> None:
    """Exit status 2, one sentence, no traceback."""
    url = [] if said == "--redis is missing" else ["--redis", "redis://127.0.0.1:1/0"]
    done = subprocess.run([*COMMAND, *url, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_redis_that_is_not_there(conformance: Conformance) -> None:
    done = conformance(url="redis://127.0.0.1:1/0")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_first_difference_ends_a_scenario() -> None:
    """What comes after a step that went otherwise says nothing. Authors of clients get the same verdict in Python."""
    steps = ({"report": "F2", "then": {"failures": 7}}, {"report": "F1"})
    verdict = play(Scenario("g", "n", {}, steps, defined=True), TwinStore())
    assert not verdict.passed
    assert verdict.step == 1
    assert ("failures", 7, 2) in [(each.what, each.expected, each.seen) for each in verdict.differences]
    assert str(verdict).startswith("step 1 of 2: report: F2\n")


def test_a_store_that_forgets_to_speak_is_found() -> None:
    """Messages, the shared hash and the standing of replies are compared too."""

    class Silent(TwinStore):
        def messages(self) -> list[dict[str, object]]:
            return []

        def states(self, _keys: object) -> dict[str, str]:
            return {}

    verdict = play(load()[0], Silent())
    assert verdict.step == 0
    assert {each.what for each in verdict.differences} == {"messages", "shared hash"}
