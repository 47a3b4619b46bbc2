"""Two installations on one Redis, orphans, forged hints: nobody touches what is not theirs."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from circuitbreaker_contract.keys import Keys
from circuitbreaker_contract.state import Projection, State
from tests.cluster.world import World
from tests.contract.layout import falsified, raw_hash


def test_two_owners_with_one_prefix(world: World) -> None:
    """Neither sweeps the other's breakers; a name that both claim is a StoreConflict for the second."""
    theirs = world.new_namespace()
    with (
        world.operator(OWNER="first", NAMESPACES=world.namespace, SWEEP_INTERVAL="1s") as first,
        world.operator(OWNER="second", NAMESPACES=f"{theirs},{world.namespace}", SWEEP_INTERVAL="1s") as second,
    ):
        first.wait_ready()
        second.wait_ready()
        world.create("payments", namespace=theirs)
        world.until_ready("payments", namespace=theirs)
        assert world.fleet("payments", theirs).observe().owner == "second"
        swept = first.metric("circuitbreaker_operator_sweeps_total") or 0
        world.until(lambda: (first.metric("circuitbreaker_operator_sweeps_total") or 0) >= swept + 2, "two more sweeps")
        assert world.fleet("payments", theirs).observe().owner == "second"
    with world.operator(OWNER="second", NAMESPACES=theirs) as second:
        second.wait_ready()
    with world.operator(OWNER="first", NAMESPACES=theirs) as first:
        first.wait_ready()
        world.until(lambda: world.condition("payments", namespace=theirs) == ("False", "StoreConflict"), "the conflict")
        assert world.fleet("payments", theirs).observe().owner == "second"


def test_two_prefixes_share_nothing(world: World) -> None:
    """The same resources served twice under two prefixes: two breakers, two states hashes."""
    other = Keys("blue:")
    with world.operator() as green, world.operator(KEY_PREFIX="blue:", NAMESPACES=world.new_namespace()) as blue:
        green.wait_ready()
        blue.wait_ready()
        namespace = world.namespaces[-1]
        world.create("payments", namespace=namespace)
        world.until(lambda: other_exists(world, other, namespace), "the blue breaker")
        world.until(
            lambda: world.redis.hget("circuit_breaker_states", f"{namespace}/payments") == "Closed", "the green one"
        )
        world.fleet("payments", namespace, other).open()
        assert world.redis.hget("blue:circuit_breaker_states", f"{namespace}/payments") == "Open"
        assert world.redis.hget("circuit_breaker_states", f"{namespace}/payments") == "Closed"
        assert world.fleet("payments", namespace).observe().totals.failures == 0


def other_exists(world: World, keys: Keys, namespace: str) -> bool:
    return bool(world.redis.exists(f"{keys.prefix}{{{namespace}/payments}}"))


def test_resources_made_during_sweeps_survive_them(world: World) -> None:
    """Keys are read first and resources after, so a new one is never taken for an orphan."""
    deleted: list[str] = []
    subscription = world.redis.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(world.keys.updates)
    with world.operator(SWEEP_INTERVAL="1s") as operator:
        operator.wait_ready()
        stop = threading.Event()

        def listen() -> None:
            while not stop.is_set():
                message = subscription.get_message(timeout=0.1)
                if message and json.loads(message["data"])["reason"] == "Deleted":
                    deleted.append(message["data"])

        listener = threading.Thread(target=listen)
        listener.start()
        number = 0
        begun = operator.metric("circuitbreaker_operator_sweeps_total") or 0
        deadline = time.monotonic() + 30
        while (operator.metric("circuitbreaker_operator_sweeps_total") or 0) < begun + 3:
            assert time.monotonic() < deadline, "sweeps have stopped"
            world.create(f"b{number}")
            number += 1
        world.until_ready(*(f"b{each}" for each in range(number)))
        stop.set()
        listener.join()
    subscription.close()
    assert number > 3
    assert deleted == []


def test_an_orphan_is_removed_and_what_is_not_ours_stays(world: World) -> None:
    """A deletion that happened while no operator was there is found; a breaker of a client's own is left alone."""
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        policy = world.fleet("payments").observe().policy.to_json()
    world.delete("payments")
    mine = f"cb:{{{world.namespace}/mine}}"
    world.redis.fcall("cb_configure", 1, mine, "env", "env", 0, policy, 1)
    world.redis.hset(world.keys.states, f"{world.namespace}/ghost", "Open")
    with world.operator() as operator:
        operator.wait_ready()
        world.until(lambda: not world.keys_of("payments"), "the orphan to go")
        world.until(lambda: world.shown("ghost") is None, "the field without a breaker to go")
        assert world.shown("mine") == "Closed"
        assert world.redis.exists(mine)


def test_forged_messages_change_nothing(world: World) -> None:
    """Messages are hints: whatever they claim, keys are read."""
    name = f"{world.namespace}/payments"
    forged = [
        "",
        "not json",
        "[]",
        "{}",
        json.dumps({"service": "../../etc", "state": "Open"}),
        json.dumps({"service": f"{world.namespace}/nobody", "state": "Open"}),
        json.dumps({"service": name, "state": ""}),
        json.dumps({"service": name, "state": "Open", "generation": 99, "incarnation": 10**15, "reason": "Forged"}),
        json.dumps({"service": name, "state": "x" * 100_000}),
        b"\xff\xfe\x00",
    ]
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        before, version = world.fleet("payments").observe(), world.get("payments")["metadata"]["resourceVersion"]
        for each in forged * 20:
            world.redis.publish(world.keys.updates, each)
        world.create("later")
        world.until_ready("later")
        after = world.fleet("payments").observe()
        assert (before.state, before.order, before.totals) == (after.state, after.order, after.totals)
        assert version == world.get("payments")["metadata"]["resourceVersion"]
        assert world.events("payments") == ["PolicyApplied"]
        assert world.events("nobody") == []
        assert operator.ready


def test_a_lost_message_costs_time_only(world: World) -> None:
    """A transition whose message never came shows by the next refresh."""
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        fleet = world.fleet("payments")
        world.redis.hset(fleet.key, "standing", falsified(raw_hash(world.redis, fleet.key)[b"standing"], project=0))
        assert fleet.observe().projection is Projection.NOTHING, "the functions now tell nobody"
        fleet.open()
        world.until_state("payments", "Open", seconds=10)


def test_damaged_keys_are_made_anew(world: World) -> None:
    """Input from Redis is untrusted: a hash that makes no sense is no crash."""
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        fleet = world.fleet("payments")
        world.redis.hset(fleet.key, mapping={"standing": "Ajar", "policy": "{}"})
        world.until(lambda: world.redis.hget(fleet.key, "policy") != "{}", "the breaker to be whole again")
        assert fleet.observe().state is State.CLOSED
        assert operator.ready


def test_purge_removes_this_installation_and_nothing_else(world: World) -> None:
    """What the operator made goes, also from the shared hash; another owner's stays; a second run finds none."""
    with world.operator(OWNER="mine", NAMESPACES=world.namespace) as operator:
        operator.wait_ready()
        world.create("payments")
        world.create("search")
        world.until_ready("payments", "search")
        policy = world.fleet("payments").observe().policy.to_json()
    world.redis.fcall("cb_configure", 1, "cb:{other/x}", "theirs", "u", 0, policy, 1)
    world.redis.hset(world.keys.deferred, mapping={f"mine {world.namespace}": 5, "mine": 6, "theirs": 7})

    def purge(*options: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("circuitbreaker-operator")), "purge", *options]
        environment = {"CB_REDIS_URL": world.server.url, "CB_OWNER": "mine", "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )

    asked = purge()
    assert asked.returncode != 0, "without a terminal it does not guess"
    assert "--yes" in asked.stderr
    assert "2" in purge("--dry-run").stdout
    assert len(world.redis.hgetall(world.keys.states)) == 3
    done = purge("--yes")
    assert (done.returncode, "2" in done.stdout) == (0, True), done
    assert world.redis.hgetall(world.keys.states) == {"other/x": "Closed"}
    assert world.redis.hgetall(world.keys.deferred) == {"theirs": "7"}
    others = {"cb:{other/x}", "cb:{other/x}:history", world.keys.deferred}
    assert set(world.redis.keys("*")) == {world.keys.states, *others}
    again = purge("--yes")
    assert (again.returncode, "0" in again.stdout) == (0, True), again
