"""Redis Cluster: each breaker lives in one slot, the library on every primary."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from circuitbreaker_contract import access, library, protocol
from circuitbreaker_contract.access import User
from circuitbreaker_contract.state import Decision, Projection, State
from circuitbreaker_local.redis_cluster import RedisCluster
from tests.contract.callers import KEYS, SHORT, Caller, load, send

NAMES = [f"service-{number}" for number in range(12)]


@pytest.fixture(scope="module")
def cluster(redis_server_binary: Path) -> Iterator[RedisCluster]:
    with RedisCluster(redis_server_binary) as running:
        yield running


@pytest.fixture
def client(cluster: RedisCluster) -> Iterator[Any]:
    connected = cluster.client(decode_responses=True)
    connected.flushall(target_nodes="primaries")
    connected.function_flush()
    load(connected)
    yield connected
    connected.close()


def test_the_library_is_on_every_primary(cluster: RedisCluster, client: Any) -> None:
    """redis-py sends FUNCTION LOAD to all of them; whoever loads by hand has to."""
    for node in cluster.nodes:
        with redis.Redis.from_url(node.url) as direct:
            assert send(direct, protocol.version()).digest == library.digest()


def test_breakers_work_on_every_node(cluster: RedisCluster, client: Any) -> None:
    """Twelve breakers open, probe and close; all keys of one are in one slot, and each node has some of them."""
    nodes = set()
    for name in NAMES:
        caller = Caller(client, name)
        caller.define(SHORT, project=Projection.MESSAGES)
        caller.report(("S", 4), client="b")
        assert caller.open().state is State.OPEN
        caller.until_half_open()
        assert caller.acquire("l1").decision is Decision.PROBE
        assert caller.settle("l1").state is State.CLOSED
        assert [entry.generation for entry in caller.observe(history=9).history] == [1, 2, 3, 4]
        assert len({client.keyslot(key) for key in KEYS.of_breaker(caller.breaker)}) == 1
        nodes.add(client.get_node_from_key(caller.key).port)
    assert nodes == {node.port for node in cluster.nodes}
    assert client.exists(KEYS.states) == 0, "with project=2 the functions leave the shared hash alone"
    for name in NAMES:
        assert Caller(client, name).observe().projection_failed is False


def test_a_breaker_told_to_project_says_that_it_cannot(client: Any) -> None:
    """project=1 is for a Redis without slots: here the shared hash is in another. Breakers work, the flag says it."""
    for name in NAMES:
        caller = Caller(client, name)
        caller.define(project=Projection.SHARED)
        assert caller.open().state is State.OPEN
        assert caller.observe().projection_failed is True
    assert client.exists(KEYS.states) == 0


def test_messages_reach_every_node(cluster: RedisCluster, client: Any) -> None:
    """PUBLISH has no slot: whoever listens, on whichever node, on the shared channel or on the namespace's own."""
    channels = (KEYS.updates, KEYS.updates_of("demo"))
    heard = []
    with ExitStack() as stack:
        for node in cluster.nodes:
            direct = stack.enter_context(redis.Redis.from_url(node.url, decode_responses=True))
            heard.append(stack.enter_context(direct.pubsub()))
            heard[-1].subscribe(*channels)
            assert [heard[-1].get_message(timeout=5)["type"] for _ in channels] == ["subscribe"] * 2
        Caller(client).define(project=Projection.MESSAGES)
        for each in heard:
            got = [each.get_message(timeout=5) for _ in channels]
            assert {message["channel"] for message in got} == set(channels)
            assert {json.loads(message["data"])["reason"] for message in got} == {"Created"}


def test_an_application_in_a_cluster(cluster: RedisCluster, client: Any) -> None:
    """The rule of access, and what a cluster's client asks besides; breakers of another namespace are out of reach."""
    words = access.rule(User.APP, namespace="shop", secret=">pw").split(" ")[1:]
    extra = ("+cluster|slots", "+cluster|shards", "+readonly", "+command")
    for node in cluster.nodes:
        with redis.Redis.from_url(node.url) as direct:
            direct.execute_command("ACL", "SETUSER", *words, *extra)
    app = cluster.client(decode_responses=True, username="app-shop", password="pw")
    for name in NAMES:
        for namespace in ("shop", "bank"):
            Caller(client, name, namespace=namespace).define(project=Projection.MESSAGES)
        assert Caller(app, name, namespace="shop").open().state is State.OPEN
        with pytest.raises(redis.exceptions.NoPermissionError):
            Caller(app, name, namespace="bank").observe()
    app.close()


def test_deleting_leaves_nothing_on_any_node(cluster: RedisCluster, client: Any) -> None:
    for name in NAMES:
        caller = Caller(client, name)
        caller.define(project=Projection.MESSAGES)
        caller.open()
        assert caller.delete()
    assert client.dbsize(target_nodes="primaries") == 0
