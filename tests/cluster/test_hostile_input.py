"""What anybody may write, into the API server or into Redis, harms nobody else: no crash, no spinning, no injection.

A few hundred pieces of each kind; CB_FUZZ=full makes it ten thousand. The seed is that of the property tests.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from kubernetes.client.exceptions import ApiException
from prometheus_client.parser import text_string_to_metric_families

from circuitbreaker_contract import protocol
from circuitbreaker_contract.keys import NAME_FORM, BreakerKey
from circuitbreaker_contract.protocol import ReplyError
from circuitbreaker_contract.state import Reason, State
from tests.cluster.hostile import Hostile
from tests.cluster.world import API, PLURAL, OperatorProcess, World

FULL = os.environ.get("CB_FUZZ") == "full"
PIECES = 10_000 if FULL else 300
BREAKERS = 250 if FULL else 25
ROUND = 1_000 if FULL else 100
QUICK = {"STATUS_QPS": "2000", "STATUS_REFRESH": "1s", "SWEEP_INTERVAL": "2s"}
IDLE_SECONDS = 3.0
MOST_CPU_SECONDS = 1.5  # of IDLE_SECONDS; one that spins takes all of them
LINE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z (DEBUG|INFO|WARNING|ERROR) +[\w.]+ .*")
WORDS = {each.value for each in (*State, *Reason)} | {"success", "failure", "ignored", "succeeded", "failed", "expired"}


@pytest.fixture
def hostile(request: pytest.FixtureRequest) -> Hostile:
    return Hostile(request.config.getoption("hypothesis_seed"))


def in_parallel(work: Callable[[Any], Any], pieces: Iterable[Any]) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work, pieces))


def attempt(call: Callable[..., Any], *arguments: Any, **named: Any) -> int:
    """What the API server answers."""
    try:
        call(*arguments, **named)
    except ApiException as error:
        return int(error.status)
    return 200


def restored(world: World, operator: OperatorProcess, names: list[str]) -> None:
    """Keys away: every breaker is made again and Ready."""
    keys = [key for name in names for key in world.keys.of_breaker(BreakerKey(world.namespace, name))]
    world.redis.delete(*keys, world.keys.states)
    calm(world, operator, names, lambda ready: ready[0] == "True" or ready[1] == "InvalidSpec")


def calm(
    world: World, operator: OperatorProcess, names: list[str], fine: Callable[[tuple[str, str]], bool]
) -> Counter[tuple[str, str]]:
    """Waits until each of these is served, or says in its condition why not."""
    seen: dict[str, tuple[str, str]] = {}

    hint(world, names)

    def settled() -> bool:
        assert operator.process.alive, operator.process.tail(60)
        seen.clear()
        for each in world.all():
            conditions = {one["type"]: one for one in each.get("status", {}).get("conditions", [])}
            ready = conditions.get("Ready", {})
            seen[each["metadata"]["name"]] = ready.get("status", ""), ready.get("reason", "")
        return all(fine(seen[name]) and (seen[name][0] != "True" or serves(world, name)) for name in names)

    try:
        world.until(settled, "every breaker to be served or to say why not", 300 if FULL else 60)
    except Exception as error:
        bad = {name: seen.get(name) for name in names if not fine(seen.get(name, ("", "")))}
        dumb = [name for name in names if seen.get(name, ("",))[0] == "True" and not serves(world, name)]
        raise AssertionError(
            f"conditions: {bad}, Ready without an answer: {dumb}\n{operator.process.tail(40)}"
        ) from error
    return Counter(seen.values())


def hint(world: World, names: list[str]) -> None:
    """Makes the operator look now: of what no tick shows it would learn some minutes later."""
    for name in names:
        world.redis.publish(world.keys.updates, json.dumps({"service": f"{world.namespace}/{name}", "state": "Closed"}))


def serves(world: World, name: str) -> bool:
    """Whether a client of the contract can read it; as bytes, since a field that nobody reads may be no text."""
    key = world.fleet(name).key
    call = protocol.observe(key, history=protocol.MAX_HISTORY)
    with redis.Redis.from_url(world.server.url) as client:
        try:
            call.read(client.execute_command(*call.command()))
        except (redis.ResponseError, ReplyError):
            return False
    return True


def holds_itself(operator: OperatorProcess) -> None:
    """Alive, ready, at rest; its log, its metrics and its health are in form."""
    assert operator.process.alive, operator.process.tail(60)
    assert operator.get("/healthz")[0] == 200
    assert operator.ready, operator.get("/readyz")
    for line in operator.log.splitlines():
        assert line.isprintable(), line[:200]
        assert LINE.fullmatch(line), line[:200]
        assert len(line) < 8_000, line[:200]
    assert operator.log.count("\n") == len(operator.log.splitlines())
    for family in text_string_to_metric_families(operator.get("/metrics")[1]):
        assert family.name.startswith(("circuitbreaker_", "process_", "python_")), family.name
        for sample in family.samples:
            if not family.name.startswith("circuitbreaker_") or family.name.startswith("circuitbreaker_operator_"):
                continue
            for label, value in sample.labels.items():
                assert NAME_FORM.fullmatch(value) if label in {"namespace", "name"} else value in WORDS, sample
    health = json.loads(operator.get("/health")[1])
    assert all(BreakerKey.parse(each) for each in health["open_circuits"])


def rests(world: World, operator: OperatorProcess) -> None:
    """It does not spin."""

    def spent() -> float:
        return float(json.loads(operator.get("/health")[1])["metrics"]["resources"]["cpu_seconds"])

    def quiet() -> bool:
        before, at = spent(), uptime(operator)
        world.until(lambda: uptime(operator) >= at + IDLE_SECONDS, "some seconds to pass", 30)
        return spent() - before < MOST_CPU_SECONDS

    world.until(quiet, "the operator to come to rest", 60)


def uptime(operator: OperatorProcess) -> float:
    return float(json.loads(operator.get("/health")[1])["metrics"]["resources"]["uptime_seconds"])


def printable_everywhere(world: World) -> None:
    """What the operator says in Events is one printable line without anybody's markup."""
    for event in world.core.list_namespaced_event(world.namespace).items:
        text = event.message if event.reason != "CircuitForced" else event.message.partition(": ")[0]
        assert event.message.isprintable(), event
        assert event.reason in {"CircuitForced", "PolicyApplied", "PolicyRejected"} or "<" not in text, event


def test_specs_and_statuses(world: World, hostile: Hostile) -> None:
    """Each case gives a breaker a spec and a status that somebody with rights on /status made up."""
    names = [f"b{number}" for number in range(BREAKERS)]
    cases = [
        (names[number % BREAKERS], hostile.spec(), hostile.annotations(), hostile.status()) for number in range(PIECES)
    ]

    def send(case: tuple[str, dict[str, Any], dict[str, str], dict[str, Any]]) -> tuple[int, int]:
        name, spec, annotations, forged = case
        where = (*API, world.namespace, PLURAL, name)
        body = {"apiVersion": "/".join(API), "kind": "CircuitBreaker"}
        found = world.get(name)
        metadata = {"name": name, "resourceVersion": found["metadata"]["resourceVersion"], "annotations": annotations}
        replace = world.objects.replace_namespaced_custom_object
        spec_code = attempt(replace, *where, body | {"metadata": metadata, "spec": spec})
        patch = world.objects.patch_namespaced_custom_object_status
        return spec_code, attempt(patch, *where, {"status": forged})

    with world.operator(**QUICK) as operator:
        operator.wait_ready()
        in_parallel(world.create, names)
        codes = in_parallel(send, cases)
        taken = Counter(code for pair in codes for code in pair)
        assert taken[200] > PIECES, taken
        said = calm(world, operator, names, lambda ready: ready[0] == "True" or ready[1] == "InvalidSpec")
        rests(world, operator)
        holds_itself(operator)
        printable_everywhere(world)
        world.whole_life("payments")
    # for the person who asked with -s
    print(f"API server: {PIECES} specs and statuses, answers {dict(taken)}, in the end {dict(said)}")  # noqa: T201


def test_hashes_histories_and_messages(world: World, hostile: Hostile) -> None:
    """Each case damages one thing of a breaker in Redis; after each round each breaker is served or says why not."""
    names = [f"b{number}" for number in range(BREAKERS)]
    did: Counter[str] = Counter()
    said: Counter[tuple[str, str]] = Counter()
    with world.operator(**QUICK) as operator:
        operator.wait_ready()
        in_parallel(lambda name: world.create(name, recoveryTimeout="1s"), names)
        world.until_ready(*names)
        for number in range(PIECES):
            key = BreakerKey(world.namespace, hostile.chance.choice(names))
            did[hostile.damage(world.redis, key, world.keys)] += 1
            if number % ROUND == ROUND - 1:
                said += calm(world, operator, names, lambda ready: ready[0] == "True" or ready[1] == "StoreConflict")
                rests(world, operator) if number + 1 == PIECES else None
                restored(world, operator, names)
        rests(world, operator)
        holds_itself(operator)
        printable_everywhere(world)
        world.whole_life("payments")
        world.redis.delete(world.keys.states)
        world.redis.set(world.keys.states, "no hash")
    with world.operator(**QUICK) as operator:
        operator.wait_ready()  # also where the shared hash is none
        world.redis.delete(world.keys.states)
        world.whole_life("search")
    # for the person who asked with -s
    print(f"Redis: {PIECES} pieces {dict(did)}, conditions after the rounds {dict(said)}")  # noqa: T201
