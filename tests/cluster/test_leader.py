"""One replica works, the others stand by; whoever takes over tells what happened meanwhile, once."""

import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import kubernetes
import redis

from circuitbreaker_contract.errors import ContractError
from circuitbreaker_contract.state import Outcome, State
from tests.cluster.world import Fleet, OperatorProcess, World
from tests.relay import Relay
from tests.told import generations

logger = logging.getLogger(__name__)

LEADER = "circuitbreaker_operator_leader"
LOST = 3
NAME = "circuitbreaker-operator"
QUICK = {"LEASE_DURATION": "3s", "LEASE_RENEW_DEADLINE": "2s", "LEASE_RETRY": "400ms"}
DEFAULTS: dict[str, str] = {}


class Replicas:
    """Operators of one Lease, and what a Deployment does: one that ended is replaced when asked."""

    def __init__(self, world: World, stack: ExitStack, settings: dict[str, str]) -> None:
        self.world, self._stack = world, stack
        self._settings = {"LEADER_ELECTION": "true", "LEASE_NAMESPACE": world.namespace} | settings
        self.all: list[OperatorProcess] = []

    def add(self, **how: Any) -> OperatorProcess:
        replica = self._stack.enter_context(self.world.operator(**(self._settings | how)))
        self.all.append(replica)
        return replica

    @property
    def alive(self) -> list[OperatorProcess]:
        return [each for each in self.all if each.process.alive]

    def leaders(self) -> list[OperatorProcess]:
        return [each for each in self.alive if each.metric(LEADER) == 1]

    def until_one_leads(self, *, but: OperatorProcess | None = None, seconds: float = 25.0) -> OperatorProcess:
        """The leader; `but` is paused, cannot be asked, and is not it."""
        found: list[OperatorProcess] = []

        def look() -> bool:
            found[:] = [each for each in self.alive if each is not but and each.metric(LEADER) == 1]
            return len(found) == 1

        self.world.until(look, "one replica to lead", seconds)
        return found[0]


@contextmanager
def replicas(world: World, number: int, settings: dict[str, str] = QUICK) -> Iterator[Replicas]:
    """So many, the first of them leading."""
    with ExitStack() as stack:
        made = Replicas(world, stack, settings)
        first = made.add()
        assert made.until_one_leads() is first
        for _ in range(number - 1):
            made.add()
        for each in made.all:
            each.wait_ready()
        assert made.leaders() == [first]
        yield made


def lease(world: World) -> Any:
    return kubernetes.client.CoordinationV1Api(world.api).read_namespaced_lease(NAME, world.namespace).spec


def opens_and_tells(world: World, name: str) -> None:
    """Whoever leads now does the work."""
    world.fleet(name).open()
    world.until_state(name, "Open")
    assert world.events(name).count("CircuitOpened") == 1


def test_a_standby_stands_by_and_takes_over_from_a_clean_stop_within_two_seconds(world: World) -> None:
    """It is ready, shows no breaker, keeps no connection to Redis, and leads as soon as the leader has stopped."""
    with (
        replicas(world, 2, DEFAULTS) as both,
        world.operator(**both._settings | {"REDIS_URL": "redis://127.0.0.1:9/0"}) as blind,
    ):
        leader, standby = both.all
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        # An update to wrong settings: whoever waits for readiness keeps the operators that work.
        advice = "check CB_REDIS_URL and that Redis runs; not ready before it has answered once"
        world.until(lambda: advice in blind.log, "the standby to say what it lacks")
        assert blind.get("/readyz") == (503, "[+] standby\n[-] redis\n")
        assert blind.log.count("Redis at redis://127.0.0.1:9") == 1, blind.log
        blind.process.stop()
        assert blind.process.returncode == 0
        assert "circuitbreaker_state{" in leader.get("/metrics")[1]
        shown = standby.get("/metrics")[1]
        assert f"{LEADER} 0.0" in shown
        assert "process_resident_memory_bytes" in shown
        assert "circuitbreaker_state" not in shown
        assert "redis_up" not in shown
        assert standby.get("/readyz") == (200, "[+] standby\n[+] redis\n")
        assert standby.get("/healthz")[0] == 200
        assert '"role": "standby"' in standby.get("/health")[1]

        began = time.monotonic()
        stopper = threading.Thread(target=leader.process.stop)
        stopper.start()
        world.until(lambda: standby.metric(LEADER) == 1, "the takeover")
        took = time.monotonic() - began
        stopper.join()
        assert leader.process.returncode == 0, leader.process.tail()
        logger.info("takeover after SIGTERM: %.2f s", took)
        assert took <= 2.0
        opens_and_tells(world, "payments")
        assert lease(world).lease_transitions == 1
        standby.process.stop()
        assert lease(world).holder_identity in {"", None}


def test_paused_for_a_moment_and_killed_with_the_defaults(world: World) -> None:
    """A pause shorter than the deadline costs nothing. After a kill the lease has to run out, and no more than that."""
    with replicas(world, 2, DEFAULTS) as both:
        world.create("orders", recoveryTimeout="1h")
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("orders", "payments")
        leader = both.all[0]
        leader.process.pause()
        world.fleet("orders").open()
        time.sleep(1.0)  # the pause itself
        leader.process.resume()
        world.until_state("orders", "Open")
        assert both.leaders() == [leader]
        renewed = lease(world).renew_time
        world.until(lambda: lease(world).renew_time != renewed, "a renewal", 5)
        leader.process.kill()
        began = time.monotonic()
        world.fleet("payments").open()
        both.until_one_leads()
        took = time.monotonic() - began
        logger.info("takeover after SIGKILL: %.2f s", took)
        assert 10.0 <= took <= 20.0
        world.until_state("payments", "Open")
        for name in ("orders", "payments"):
            world.until_events(name, ["PolicyApplied", "CircuitOpened"])


def test_paused_past_its_lease(world: World) -> None:
    """What wakes up and is no leader ends before it says a word to Redis, with a code and a line of its own."""
    with replicas(world, 2) as both:
        old, new = both.all
        world.create("payments", recoveryTimeout="5s")
        world.create("orders", recoveryTimeout="1h")
        world.until_ready("payments", "orders")
        opens_and_tells(world, "payments")
        theirs = {each["addr"] for each in world.redis.client_list()}
        old.process.pause()
        assert both.until_one_leads(but=old) is new
        opens_and_tells(world, "orders")  # a hint is in its socket, a deadline of its clock is past
        world.until_state("payments", "HalfOpen")
        with said_to_redis(world) as commands:
            old.process.resume()
            assert old.process.wait(10) == LOST, old.process.tail()
        assert [each for each in commands if f"{each['client_address']}:{each['client_port']}" in theirs] == []
        assert "leading no more" in old.process.tail(1)
        world.until_events("payments", ["PolicyApplied", "CircuitOpened", "CircuitHalfOpen"])
        world.until_events("orders", ["PolicyApplied", "CircuitOpened"])


@contextmanager
def said_to_redis(world: World) -> Iterator[list[dict[str, Any]]]:
    """Every command that anybody sends meanwhile."""
    found: list[dict[str, Any]] = []
    with redis.Redis.from_url(world.server.url, decode_responses=True) as client, client.monitor() as monitor:
        thread = threading.Thread(target=_record, args=(monitor, found), daemon=True)
        thread.start()
        yield found
        world.redis.echo("enough")
        thread.join(5)
        assert not thread.is_alive()


def _record(monitor: Any, found: list[dict[str, Any]]) -> None:
    for each in monitor.listen():
        if each["command"] == "ECHO enough":
            return
        found.append(each)


@contextmanager
def cut_off_api_server(world: World, folder: Path) -> Iterator[tuple[Relay, Path]]:
    port = world.plane.api_server.port
    with Relay(port) as relay:
        path = folder / "kubeconfig-through-relay"
        text = world.plane.kubeconfig.read_text(encoding="utf-8")
        path.write_text(text.replace(f":{port}", f":{relay.port}"), encoding="utf-8")
        yield relay, path


def test_cut_from_the_api_server(world: World, tmp_path: Path) -> None:
    """Nothing is refused and nothing answers: the leader is gone by the renew deadline, before another one leads."""
    with cut_off_api_server(world, tmp_path) as (relay, path), ExitStack() as stack:
        both = Replicas(world, stack, QUICK)
        old = both.add(kubeconfig=path)
        assert both.until_one_leads() is old
        new = both.add().wait_ready()
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        relay.hold()
        began = time.monotonic()
        world.until(lambda: not old.process.alive or new.metric(LEADER) == 1, "an end")
        took = time.monotonic() - began
        assert not old.process.alive, "it has to be gone before another one leads"
        assert old.process.returncode == LOST
        assert took < 2.0 + 1.0
        assert "leading no more: the lease was not renewed in time" in old.process.tail(1)
        assert both.until_one_leads() is new
        opens_and_tells(world, "payments")
        # As a container would, it starts again where it is cut off: alive, not ready, and no leader.
        again = both.add(kubeconfig=path)
        world.until(lambda: again.get("/healthz")[0] == 200, "liveness")
        assert again.get("/readyz")[0] == 503
        relay.release()
        again.wait_ready()
        assert both.leaders() == [new]


def test_cut_from_redis(world: World) -> None:
    """It stays the leader, since another one would not do better, and says so."""
    with Relay(world.server.port) as relay, ExitStack() as stack:
        both = Replicas(world, stack, QUICK)
        leader = both.add(REDIS_URL=relay.redis_url, REDIS_TIMEOUT="300ms")
        assert both.until_one_leads() is leader
        both.add().wait_ready()
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        holder = lease(world).holder_identity
        relay.hold()
        world.fleet("payments").open()
        world.until(lambda: "[-] redis" in leader.get("/readyz")[1], "readiness to tell")
        renewed = lease(world).renew_time
        world.until(lambda: lease(world).renew_time > renewed + timedelta(seconds=3), "a whole lease to pass")
        assert lease(world).holder_identity == holder
        assert both.leaders() == [leader]
        assert "Redis at" in leader.log
        relay.release()
        world.until_state("payments", "Open")


def test_holders_whose_clocks_are_wrong(world: World) -> None:
    """Neither too soon nor never: what counts is how long nobody renews it while we look."""
    now = datetime.now(UTC)
    skews = {"behind": now - timedelta(days=9), "ahead": now + timedelta(days=9)}
    api = kubernetes.client.CoordinationV1Api(world.api)
    with ExitStack() as stack:
        replicas = Replicas(world, stack, QUICK)
        for name, at in skews.items():
            spec = kubernetes.client.V1LeaseSpec(
                holder_identity="another", lease_duration_seconds=2, acquire_time=at, renew_time=at, lease_transitions=6
            )
            metadata = kubernetes.client.V1ObjectMeta(name=name, annotations={"keep": "me"})
            api.create_namespaced_lease(world.namespace, kubernetes.client.V1Lease(metadata=metadata, spec=spec))
            replicas.add(LEASE_NAME=name)
        for one in replicas.all:
            world.until(lambda one=one: "holder=another" in one.log, "it to see the holder")
        for seconds in (1, 2, 3):
            for name, at in skews.items():  # the holder lives: it renews, by its own clock
                renewal = {"spec": {"renewTime": f"{at + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%fZ}"}}
                api.patch_namespaced_lease(name, world.namespace, renewal)
            if seconds < 3:
                time.sleep(1.0)
            assert replicas.leaders() == []
        began = time.monotonic()
        for name, one in zip(skews, replicas.all, strict=True):
            world.until(lambda one=one: one.metric(LEADER) == 1, "it to lead")
            assert 1.8 < time.monotonic() - began < 4.0
            found = api.read_namespaced_lease(name, world.namespace)
            assert found.spec.lease_transitions == 7
            assert found.metadata.annotations == {"keep": "me"}


def test_the_lease_is_edited_deleted_and_taken(world: World) -> None:
    """An edit by others is nothing, a deleted Lease is made again, and one that another holds ends the process."""
    api = kubernetes.client.CoordinationV1Api(world.api)
    with replicas(world, 1) as alone:
        leader = alone.all[0]
        api.patch_namespaced_lease(NAME, world.namespace, {"metadata": {"labels": {"some": "label"}}})
        renewed = lease(world).renew_time
        world.until(lambda: lease(world).renew_time > renewed, "a renewal after an edit", 5)
        api.delete_namespaced_lease(NAME, world.namespace)
        world.until(lambda: bool(api.list_namespaced_lease(world.namespace).items), "the Lease to be back", 5)
        assert leader.metric(LEADER) == 1
        api.patch_namespaced_lease(NAME, world.namespace, {"spec": {"holderIdentity": "usurper"}})
        assert leader.process.wait(5) == LOST
        assert "the lease was taken by usurper" in leader.process.tail(1)


class Traffic:
    """Breakers that open, are probed and close, one after another, until stopped; clients need no operator."""

    def __init__(self, world: World, names: list[str]) -> None:
        self._client = redis.Redis.from_url(world.server.url, decode_responses=True)
        self._fleets = [Fleet(self._client, world.fleet(name).key) for name in names]
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._client.close()
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for fleet in self._fleets:
                    _next_step(fleet)
                    self._stop.wait(0.3)
        except BaseException as error:  # noqa: BLE001 # raised where the test is
            self._error = error


def _next_step(fleet: Fleet) -> None:
    seen = fleet.observe()
    if seen.state is State.CLOSED:
        fleet.open()
    elif seen.state is State.HALF_OPEN or seen.due:
        with suppress(ContractError):  # a tick of the operator came between
            lease = f"lease-{seen.order.generation}"
            fleet.acquire(lease)
            fleet.settle(lease, Outcome.SUCCESS)


def wholly_told(world: World, name: str) -> None:
    """Every transition that Redis counts has its one Event or is counted by one: none is missing, none told twice."""
    seen = world.fleet(name).observe()
    into = Counter[str]()
    for (_, target, _), number in seen.transition_totals.items():
        into[
            {State.OPEN: "CircuitOpened", State.HALF_OPEN: "CircuitHalfOpen", State.CLOSED: "CircuitClosed"}[target]
        ] += number
    found = world.core.list_namespaced_event(world.namespace, field_selector=f"involvedObject.name={name}").items
    messages = {each.metadata.name: each.message for each in found}
    assert generations(messages) == list(range(2, seen.order.generation + 1)), messages
    told = Counter(each.reason for each in found)
    counted = told.pop("TransitionsSkipped", 0)
    if counted:
        logger.info("%s: %s", name, [text for text in messages.values() if "not told one by one" in text])
        assert told - into == Counter(PolicyApplied=1)
    else:
        assert told == into + Counter(PolicyApplied=1)


def caught_up(world: World, name: str) -> None:
    """The status says what Redis does, and no clock will change that: an Open breaker would go on by itself."""

    def rests() -> bool:
        seen = world.fleet(name).observe()
        return seen.state is not State.OPEN and world.status(name).get("stateGeneration") == seen.order.generation

    world.until(rests, f"{name} to rest, and its status to catch up")
    assert "catchUp" not in world.status(name)


def terminate(both: Replicas, leader: OperatorProcess) -> None:
    leader.process.stop()
    assert leader.process.returncode in {0, LOST}, leader.process.tail()


def kill(both: Replicas, leader: OperatorProcess) -> None:
    leader.process.kill()


def pause(both: Replicas, leader: OperatorProcess) -> None:
    leader.process.pause()
    both.until_one_leads(but=leader)
    leader.process.resume()
    assert leader.process.wait(10) == LOST


def test_takeovers_at_random_moments(world: World) -> None:
    """Traffic goes on, leaders go away: Events are the transitions exactly. CB_TAKEOVERS=50 is the long form."""
    number = int(os.environ.get("CB_TAKEOVERS", "3"))
    seed = random.SystemRandom().randrange(2**32)
    logger.info("seed %d", seed)
    dice = random.Random(seed)
    ways: list[Callable[[Replicas, OperatorProcess], None]] = [terminate, kill, pause]
    names = [f"breaker-{each}" for each in range(6)]
    times: dict[str, list[float]] = {}
    with replicas(world, 2) as both:
        for name in names:
            world.create(name, recoveryTimeout="300ms", successThreshold=1)
        world.until_ready(*names)
        with Traffic(world, names):
            for turn in range(number):
                leader = both.until_one_leads()
                time.sleep(dice.uniform(0.0, 1.5))  # the random moment
                way = ways[turn % len(ways)]
                began = time.monotonic()
                way(both, leader)
                both.until_one_leads()
                times.setdefault(way.__name__, []).append(time.monotonic() - began)
                while len(both.alive) < 2:
                    both.add()
        for name in names:
            caught_up(world, name)
            wholly_told(world, name)
    logger.info("%s", {name: [round(each, 2) for each in some] for name, some in times.items()})


def test_operators_that_die_while_they_tell(world: World) -> None:
    """Nobody lives to write the statuses, more happens than is told one by one, and nothing told is counted as well."""
    names = [f"breaker-{each}" for each in range(4)]
    for name in names:
        world.create(name, recoveryTimeout="100ms", failureThreshold=1, successThreshold=1)
    with world.operator():
        world.until_ready(*names)
    fleets = [world.fleet(name) for name in names]
    for _ in range(2):
        for _ in range(7):
            for fleet in fleets:
                fleet.open()
            for fleet in fleets:
                world.until(lambda fleet=fleet: fleet.observe().due, "a breaker to be due")
                fleet.recover()
        told = sum(len(world.events(name)) for name in names)
        with world.operator(STATUS_QPS="1") as short_lived:  # it has two statuses at once, and tells all four
            world.until(lambda told=told: sum(len(world.events(name)) for name in names) > told, "another Event")
            short_lived.process.kill()
    with world.operator():
        for name in names:
            caught_up(world, name)
            wholly_told(world, name)


def test_rolling_restart_of_three(world: World) -> None:
    """One after another is replaced by a new one that is ready; somebody leads all the time but for moments."""
    with replicas(world, 3) as three:
        world.create("payments", recoveryTimeout="300ms", successThreshold=1)
        world.until_ready("payments")
        with Traffic(world, ["payments"]):
            for old in list(three.all):
                three.add().wait_ready()
                terminate(three, old)
                three.until_one_leads(seconds=5)
        assert len(three.alive) == 3
        caught_up(world, "payments")
        wholly_told(world, "payments")
