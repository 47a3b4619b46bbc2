"""A Redis Cluster: the client goes where a breaker is and follows it; a silent node costs no breaker of others."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count, islice
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from uuid import uuid4

import pytest
import redis
from redis.crc import key_slot

from circuitbreaker_client import CircuitBreaker, CircuitBreakers, State
from circuitbreaker_client._redirections import Address, Redirection, parse_redirection
from circuitbreaker_client.events import Source
from circuitbreaker_contract import access, protocol
from circuitbreaker_contract.access import User
from circuitbreaker_contract.state import Projection
from circuitbreaker_local.processes import free_port
from circuitbreaker_local.redis_cluster import RedisCluster
from circuitbreaker_local.redis_server import RedisServer
from tests.authority import Authority
from tests.client.world import World, fail, until, until_state
from tests.contract.callers import POLICY, Caller, load, send

NAMES = [f"service-{number}" for number in range(12)]
LONG_SECONDS = 600.0  # a staleness so long that nothing is read again because of it


class Fleet:
    """A Cluster with the library and the breakers of NAMES, and what its operator and other clients do."""

    def __init__(self, cluster: RedisCluster) -> None:
        self.cluster = cluster
        self.stack = ExitStack()
        self.admin: Any = self.stack.enter_context(cluster.client(decode_responses=True, socket_timeout=5))
        for node in cluster.nodes:
            self.tell(node, "FLUSHALL")
            self.tell(node, "CONFIG SET", "cluster-require-full-coverage", "no")
        load(self.admin)
        self.callers = {name: Caller(self.admin, name) for name in NAMES}
        for caller in self.callers.values():
            caller.define(project=Projection.MESSAGES)
        self.home = {name: self.node_of(caller.key) for name, caller in self.callers.items()}

    def node_of(self, key: str) -> RedisServer:
        port = self.admin.get_node_from_key(key).port
        return next(node for node in self.cluster.nodes if node.port == port)

    def one_of(self, node: RedisServer) -> str:
        """The name of a breaker that is there."""
        return next(name for name in NAMES if self.home[name] is node)

    def client(self, node: int = 0, **options: Any) -> CircuitBreakers:
        url = self.cluster.nodes[node].url
        return CircuitBreakers(
            **{
                "redis_url": url,
                "namespace": "demo",
                "redis_timeout_seconds": 1.0,
                "max_staleness_seconds": LONG_SECONDS,
            }
            | options
        )

    def reset(self, name: str) -> None:
        send(self.admin, protocol.reset(self.callers[name].key, uid="u", token=uuid4().hex))

    def tell(self, node: RedisServer, *words: str | int) -> Any:
        with redis.Redis.from_url(node.url, decode_responses=True, socket_timeout=5) as client:
            return client.execute_command(*words)

    def node_told_by(self, node: RedisServer, slot: int) -> int | None:
        """The port of who has that slot, as far as `node` knows."""
        shares = self.tell(node, "CLUSTER SLOTS")
        return next((owner[1] for low, high, owner, *_ in shares if low <= slot <= high), None)

    def take(self, name: str, node: RedisServer, *, known_to: Sequence[RedisServer]) -> Caller:
        """As after a fail-over that has lost everything: `node` has the slot, and its operator defines the breaker."""
        caller = self.callers[name]
        self.tell(node, "CLUSTER BUMPEPOCH")
        for each in known_to:
            self.tell(each, "CLUSTER SETSLOT", key_slot(caller.key.encode()), "NODE", self.id_of(node))
        there = Caller(self.stack.enter_context(redis.Redis.from_url(node.url, decode_responses=True)), name)
        there.define(project=Projection.MESSAGES)
        return there

    def close(self) -> None:
        self.stack.close()

    def id_of(self, node: RedisServer) -> str:
        return str(self.tell(node, "CLUSTER MYID"))


@pytest.fixture(scope="module")
def cluster(redis_server_binary: Path) -> Iterator[RedisCluster]:
    with RedisCluster(redis_server_binary) as cluster:
        yield cluster


@pytest.fixture
def fleet(cluster: RedisCluster) -> Iterator[Fleet]:
    """On the Cluster of the module, which is empty but for its breakers. Without a node it serves what there is."""
    with closing(Fleet(cluster)) as fleet:
        yield fleet


def is_shared(breaker: CircuitBreaker) -> bool:
    return breaker.snapshot().source is Source.SHARED


def test_breakers_of_all_nodes_are_shared(fleet: Fleet) -> None:
    """Whichever node the address leads to: outcomes arrive, and what others do is heard."""
    assert set(fleet.home.values()) == set(fleet.cluster.nodes)
    for node in range(3):
        with fleet.client(node) as breakers:
            assert [breakers[name].call(int) for name in NAMES] == [0] * len(NAMES)
            until(lambda: all(is_shared(breakers[name]) for name in NAMES), "every breaker to be shared")
            for name in NAMES:
                fail(breakers[name], POLICY.failure_threshold)
            for name, caller in fleet.callers.items():
                until(lambda caller=caller: caller.observe().state is State.OPEN, f"{name} to open")
                until_state(breakers[name], State.OPEN)
                fleet.reset(name)
                until_state(breakers[name], State.CLOSED)
        for caller in fleet.callers.values():
            totals = caller.observe().totals
            assert (totals.successes, totals.failures) == (node + 1, 3 * (node + 1))


def test_a_breaker_moves(fleet: Fleet) -> None:
    """While its slot is on the way, and afterwards: nothing is lost, and nothing is counted by the old node.

    As the shipped user of an application, whose rights are enough for that.
    """
    rule = access.rule(User.APP, namespace="demo", name="app", secret=">secret").split(" ")[1:]
    for node in fleet.cluster.nodes:
        fleet.tell(node, "ACL SETUSER", *rule)
    old, new = fleet.cluster.nodes[1:]
    name = fleet.one_of(old)
    caller, slot = fleet.callers[name], slot_of(fleet, name)
    with fleet.client(redis_url=f"redis://app:secret@127.0.0.1:{fleet.cluster.nodes[0].port}") as breakers:
        breaker = breakers[name]
        breaker.call(int)
        until(lambda: caller.observe().totals.successes == 1, "the outcome")
        fleet.tell(new, "CLUSTER SETSLOT", slot, "IMPORTING", fleet.id_of(old))
        fleet.tell(old, "CLUSTER SETSLOT", slot, "MIGRATING", fleet.id_of(new))
        keys = fleet.tell(old, "CLUSTER GETKEYSINSLOT", slot, 100)
        fleet.tell(old, "MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)
        fail(breaker)
        until(lambda: caller.observe().totals.failures == 1, "an outcome on the way")
        for node in (new, old):
            fleet.tell(node, "CLUSTER SETSLOT", slot, "NODE", fleet.id_of(new))
        fail(breaker, 2)
        until_state(breaker, State.OPEN)
        until(lambda: caller.observe().totals.failures == 3, "the outcomes afterwards")
        assert is_shared(breaker)
    assert fleet.tell(old, "CLUSTER COUNTKEYSINSLOT", slot) == 0


def test_a_breaker_is_about_to_move(fleet: Fleet) -> None:
    """While its keys are still where they were, a function may not look for one that is missing: not yet, not never."""
    old, new = fleet.cluster.nodes[1:]
    name = fleet.one_of(old)
    caller, slot = fleet.callers[name], slot_of(fleet, name)
    with fleet.client() as breakers:
        fleet.tell(old, "CONFIG RESETSTAT")
        fleet.tell(old, "CLUSTER SETSLOT", slot, "MIGRATING", fleet.id_of(new))
        breakers[name].call(int)
        until(lambda: calls(fleet, old, "failed_calls") > 0, "a question in vain")
        fleet.tell(old, "CLUSTER SETSLOT", slot, "STABLE")
        until(lambda: is_shared(breakers[name]), "it to be shared")
        until(lambda: caller.observe().totals.late == 1, "the outcome of a call that this process has decided")


def test_an_address_that_is_not_known_yet(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """Nodes that are to tell hostnames say `?` of one whose name they have not heard yet: outcomes are kept."""
    first, home = fleet.cluster.nodes[:2]
    name = fleet.one_of(home)
    fleet.tell(first, "CONFIG SET", "cluster-preferred-endpoint-type", "hostname")
    try:
        with fleet.client() as breakers:
            breakers[name].call(int)
            until(lambda: any(name in text for text in caplog.messages), "a warning")
            fleet.tell(first, "CONFIG SET", "cluster-preferred-endpoint-type", "ip")
            until(lambda: is_shared(breakers[name]), "it to be shared")
            until(lambda: fleet.callers[name].observe().totals.late == 1, "the outcome")
    finally:
        fleet.tell(first, "CONFIG SET", "cluster-preferred-endpoint-type", "ip")
    told = [text for text in caplog.messages if name in text]
    assert told == [
        f"demo/{name}: the Redis Cluster does not serve it at the moment: MOVED {slot_of(fleet, name)} ?:{home.port}"
    ]


def test_a_login_that_may_not_say_asking(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """As with the rules of an earlier version: while a slot moves two nodes send the client to each other."""
    rule = access.rule(User.APP, namespace="demo", name="app", secret=">secret").split(" ")[1:]
    for node in fleet.cluster.nodes:
        fleet.tell(node, "ACL SETUSER", *rule, "-asking")
    old, new = fleet.cluster.nodes[1:]
    name = fleet.one_of(old)
    caller, slot = fleet.callers[name], slot_of(fleet, name)
    with fleet.client(redis_url=f"redis://app:secret@127.0.0.1:{old.port}") as breakers:
        breakers[name].call(int)
        until(lambda: caller.observe().totals.successes == 1, "the outcome")
        fleet.tell(new, "CLUSTER SETSLOT", slot, "IMPORTING", fleet.id_of(old))
        fleet.tell(old, "CLUSTER SETSLOT", slot, "MIGRATING", fleet.id_of(new))
        keys = fleet.tell(old, "CLUSTER GETKEYSINSLOT", slot, 100)
        fleet.tell(old, "MIGRATE", "127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)
        breakers[name].call(int)
        until(lambda: any("refuse ASKING" in text for text in caplog.messages), "a warning")
        for node in (new, old):
            fleet.tell(node, "CLUSTER SETSLOT", slot, "NODE", fleet.id_of(new))
        until(lambda: caller.observe().totals.successes == 2, "the outcome afterwards")


def test_over_tls(redis_server_binary: Path, tmp_path: Path) -> None:
    """Nodes tell of each other's ports for TLS, where the client shows the same certificate."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("node", "127.0.0.1")
    tls = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(authority.ca)]
    shown = f"ssl_ca_certs={authority.ca}&ssl_certfile={certificate}&ssl_keyfile={key}"
    with RedisCluster(redis_server_binary, tls=tls) as cluster, closing(Fleet(cluster)) as fleet:
        url = f"rediss://127.0.0.1:{cluster.tls_ports[0]}?{shown}"
        with fleet.client(redis_url=url) as breakers:
            assert [breakers[name].call(int) for name in NAMES] == [0] * len(NAMES)
            until(lambda: all(is_shared(breakers[name]) for name in NAMES), "every breaker to be shared")


def test_one_node_is_silent(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """Its breakers are decided by each process alone, and what was counted arrives later; the others go on."""
    silent = fleet.cluster.nodes[1]
    gone, name = fleet.one_of(silent), fleet.one_of(fleet.cluster.nodes[2])
    fleet.tell(fleet.cluster.nodes[0], "CONFIG RESETSTAT")
    with fleet.client(redis_timeout_seconds=0.4, max_staleness_seconds=1.0) as breakers:
        for each in (gone, name):
            breakers[each].call(int)
            until(lambda each=each: is_shared(breakers[each]), f"{each} to be shared")
        silent.pause()
        try:
            until(lambda: breakers[gone].call(int) == 0 and not is_shared(breakers[gone]), "it to decide alone")
            for _ in range(2):  # also when that node was tried once more
                fail(breakers[name], POLICY.failure_threshold)
                until(lambda: fleet.callers[name].observe().state is State.OPEN, "the other one to open")
                fleet.reset(name)
                until_state(breakers[name], State.CLOSED)
            assert is_shared(breakers[name])
            assert not is_shared(breakers[gone])
            # A few each second, not each turn its outcomes anew.
            assert calls(fleet, fleet.cluster.nodes[0], "rejected_calls") < 200
        finally:
            silent.resume()
        until(lambda: is_shared(breakers[gone]), "it to be shared again", 30)
        fail(breakers[gone], POLICY.failure_threshold)
        until_state(breakers[gone], State.OPEN)
        assert fleet.callers[gone].observe().state is State.OPEN
    told = [text for text in caplog.messages if f":{silent.port} " in text]
    assert len(told) == 2
    assert "is silent, its breakers go on with what they know" in told[0]
    assert "answers again after" in told[1]
    assert not any(text.startswith("Redis is silent") for text in caplog.messages)


def test_the_number_of_breakers_is_bounded_while_a_node_is_silent(fleet: Fleet) -> None:
    """What is forgotten cannot be reported there, and is not kept until it can."""
    silent = fleet.cluster.nodes[1]
    names = (f"host-{number}" for number in count())
    there = islice((name for name in names if fleet.node_of(Caller(fleet.admin, name).key) is silent), 30)
    with fleet.client(redis_timeout_seconds=0.1, max_staleness_seconds=1.0, max_breakers=10) as breakers:
        breakers[fleet.one_of(fleet.cluster.nodes[2])].call(int)
        silent.pause()
        try:
            for name in there:
                breakers[name].call(int)
            until(lambda: len(breakers.statistics()) <= 10, "breakers to be forgotten")
            assert breakers._engine._talk.is_up
        finally:
            silent.resume()


def test_another_node_takes_over(fleet: Fleet) -> None:
    """What a silent node had is asked for where it is now; the node may stay silent for ever."""
    silent, other = fleet.cluster.nodes[1:]
    name = fleet.one_of(silent)
    with fleet.client(redis_timeout_seconds=0.4, max_staleness_seconds=1.0) as breakers:
        breakers[name].call(int)
        until(lambda: is_shared(breakers[name]), "it to be shared")
        silent.pause()
        try:
            until(lambda: not is_shared(breakers[name]), "it to decide alone")
            caller = fleet.take(name, other, known_to=[other, fleet.cluster.nodes[0]])
            until(lambda: is_shared(breakers[name]), "it to be shared elsewhere")
            fail(breakers[name], POLICY.failure_threshold)
            until_state(breakers[name], State.OPEN)
            assert caller.observe().state is State.OPEN
        finally:
            silent.resume()


def test_what_is_missing_is_defined_where_it_belongs(fleet: Fleet) -> None:
    """Without an operator: the library and the breakers, on every node that has one of them."""
    for node in fleet.cluster.nodes:
        fleet.tell(node, "FUNCTION FLUSH")
    with fleet.client(namespace="alone", define_missing=True) as breakers:
        assert [breakers[name].call(int) for name in NAMES] == [0] * len(NAMES)
        until(lambda: all(is_shared(breakers[name]) for name in NAMES), "every breaker to be shared")
    assert {Caller(fleet.admin, name, namespace="alone").observe().state for name in NAMES} == {State.CLOSED}


def test_nodes_die(redis_server_binary: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That of the address: the others are known by then, and messages come from one of them. All: Redis is silent."""
    with RedisCluster(redis_server_binary) as cluster, closing(Fleet(cluster)) as fleet:
        first, *others = cluster.nodes
        own, name = fleet.one_of(first), fleet.one_of(others[0])
        with fleet.client(redis_timeout_seconds=0.4, max_staleness_seconds=1.0) as breakers:
            breakers[name].call(int)
            until(lambda: is_shared(breakers[name]), "it to be shared")
            first.kill()
            until(lambda: subscribers(fleet, others) == 1, "a subscription elsewhere")  # nobody asked the dead one
            fleet.admin.set_default_node(fleet.admin.get_node("127.0.0.1", others[0].port))
            fail(breakers[name], POLICY.failure_threshold)
            until_state(breakers[name], State.OPEN)
            assert fleet.callers[name].observe().state is State.OPEN

            breakers[own].call(int)
            fleet.take(own, others[1], known_to=others)
            until(lambda: is_shared(breakers[own]), "what the dead one had to be shared elsewhere")

            # In a fail-over those that are left serve nobody for a moment.
            covering(fleet, others, "yes")
            until(lambda: not is_shared(breakers[name]) and not is_shared(breakers[own]), "each to decide alone")
            covering(fleet, others, "no")
            until(lambda: is_shared(breakers[name]) and is_shared(breakers[own]), "both to be shared again")

            for node in others:
                node.kill()
            until(lambda: not is_shared(breakers[name]) and not is_shared(breakers[own]), "each to decide alone")
    told = [text[:15] for text in caplog.messages if text.startswith("Redis ") and " at " not in text[:15]]
    assert told == ["Redis is silent", "Redis answers a", "Redis is silent"]


def covering(fleet: Fleet, nodes: list[RedisServer], needed: str) -> None:
    """Whether they serve only while every slot is served."""
    for node in nodes:
        fleet.tell(node, "CONFIG SET", "cluster-require-full-coverage", needed)


def test_a_node_that_has_no_slots(redis_server_binary: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor knows of another one, as when it has left its Cluster: that is told, and it is tried about once a second."""
    options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    with RedisServer(redis_server_binary, arguments=options) as lonely, closing(World(lonely)) as world:
        breakers = world.client()
        names = NAMES[:2]
        before, began_at = connections(world), perf_counter()
        for name in names:
            breakers[name].call(int)
        until(lambda: connections(world) >= before + 6, "calls, messages, and calls anew")
        assert perf_counter() - began_at > 1.5
    why = "the Redis Cluster does not serve it at the moment: CLUSTERDOWN Hash slot not served"
    assert sorted(text for text in caplog.messages if "CLUSTERDOWN" in text) == [
        f"demo/{name}: {why}" for name in names
    ]


def test_a_node_that_has_left(fleet: Fleet, redis_server_binary: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And has taken a slot with it: the client does not come to it with breakers that others serve."""
    first, _, home = fleet.cluster.nodes
    gone, name = fleet.one_of(home), fleet.one_of(first)
    slot, options = slot_of(fleet, gone), ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    with RedisServer(redis_server_binary, arguments=options) as left, fleet.client() as breakers:
        for each in (name, gone):
            breakers[each].call(int)
            until(lambda each=each: is_shared(breakers[each]), f"{each} to be shared")
        for node in fleet.cluster.nodes:
            fleet.tell(node, "CLUSTER DELSLOTS", slot)
        there = Address("127.0.0.1", left.port)
        breakers._engine._talk.nodes._of_slot |= {slot: there, 0: there}  # as if told of in its time
        end = perf_counter() + 2
        while perf_counter() < end:  # what is to be seen is that nothing comes of it
            for each in (name, gone):
                breakers[each].call(int)
            sleep(0.02)
        fleet.tell(home, "CLUSTER ADDSLOTS", slot)
        until(lambda: fleet.node_told_by(first, slot) == home.port, "the slot to be served again")
    assert {text.partition(":")[0] for text in caplog.messages} == {f"demo/{gone}"}


def connections(world: World) -> int:
    return int(world.admin.info("stats")["total_connections_received"])


def slot_of(fleet: Fleet, name: str) -> int:
    return int(key_slot(fleet.callers[name].key.encode()))


def calls(fleet: Fleet, node: RedisServer, which: str) -> int:
    """How many it has sent elsewhere (`rejected_calls`), or how many functions have failed (`failed_calls`)."""
    return sum(each[which] for name, each in fleet.tell(node, "INFO", "commandstats").items() if "fcall" in name)


def subscribers(fleet: Fleet, nodes: list[RedisServer]) -> int:
    return sum(fleet.tell(node, "PUBSUB NUMSUB", "circuit_breaker_updates")[0][1] for node in nodes)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirection(3999, Address("127.0.0.1", 6381), asking=False)),
        ("ASK 0 redis-2.redis:6379", Redirection(0, Address("redis-2.redis", 6379), asking=True)),
        ("MOVED 16383 :6379", Redirection(16383, Address("", 6379), asking=False)),
        ("MOVED 7 fd00::1:6379", Redirection(7, Address("fd00::1", 6379), asking=False)),
        ("MOVED 7 ?:6379", None),
        ("MOVED 16384 a:1", None),
        ("MOVED 1 a:0", None),
        ("MOVED 1 a:65536", None),
        ("MOVED 1 a", None),
        ("MOVED -1 a:1", None),
        ("MOVED 1 user@a:1", None),
        ("MOVED 1 a b:1", None),
        (f"MOVED 1 {'a' * 300}:1", None),
        ("MOVED", None),
        ("ERR MOVED 1 a:1", None),
    ],
)
def test_redirections(text: str, found: Redirection | None) -> None:
    assert parse_redirection(text) == found
