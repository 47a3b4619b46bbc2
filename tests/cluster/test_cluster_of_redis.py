"""The operator and a Redis Cluster: breakers on every node, the library on every primary, slots that move."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from circuitbreaker_contract import access, library, protocol
from circuitbreaker_contract.access import User
from circuitbreaker_contract.state import Projection, State
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.processes import free_port
from circuitbreaker_local.redis_cluster import RedisCluster
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from tests.cli.conftest import kubectl_folder
from tests.cli.shell import Shell
from tests.cluster.world import OperatorProcess, World

NAMES = [f"service-{number}" for number in range(6)]


@pytest.fixture(scope="module")
def cluster(redis_server_binary: Path) -> Iterator[RedisCluster]:
    with RedisCluster(redis_server_binary) as running:
        yield running


@pytest.fixture
def world(control_plane: ControlPlane, breaker_crd: str, cluster: RedisCluster, tmp_path: Path) -> Iterator[World]:
    """A namespace, and a Cluster in place of the one Redis."""
    world = World(control_plane, cluster.nodes[0], tmp_path)
    with world.through(cluster.client(decode_responses=True)):
        yield world
    world.close()


@pytest.fixture
def operator(world: World) -> Iterator[OperatorProcess]:
    """Without sweeps: what is seen at once came from hints."""
    with world.operator(REDIS_CLUSTER="true", SWEEP_INTERVAL="1h") as operator:
        yield operator.wait_ready()


def direct(node: RedisServer) -> Any:
    return redis.Redis.from_url(node.url, protocol=2)


def has_library(node: RedisServer) -> bool:
    call = protocol.version()
    with direct(node) as client:
        try:
            return call.read(client.execute_command(*call.command())).digest == library.digest()
        except redis.ResponseError:
            return False


def test_breakers_on_every_node(world: World, cluster: RedisCluster, operator: OperatorProcess) -> None:
    """Their whole lives; the shared hash is the operator's work, the messages are the functions'."""
    assert all(map(has_library, cluster.nodes))
    with direct(cluster.nodes[2]) as client, client.pubsub() as listener:
        listener.subscribe(world.keys.updates, world.keys.updates_of(world.namespace))
        for name in NAMES:
            world.whole_life(name)
        heard = list(iter(lambda: listener.get_message(timeout=0.2), None))
    messages = [message["channel"].decode() for message in heard if message["type"] == "message"]
    assert messages.count(world.keys.updates) == messages.count(world.keys.updates_of(world.namespace)) == 30
    nodes = {world.redis.get_node_from_key(world.fleet(name).key).port for name in NAMES}
    assert nodes == {node.port for node in cluster.nodes}
    assert world.redis.dbsize(target_nodes="primaries") == 0


def test_the_plugin_reads_as_the_viewer(
    world: World, cluster: RedisCluster, operator: OperatorProcess, tmp_path: Path
) -> None:
    """What its rule grants finds every breaker, on whichever node it is."""
    for node in cluster.nodes:
        with direct(node) as client:
            client.execute_command("ACL", "SETUSER", *access.rule(User.VIEWER, secret=">pw").split(" ")[1:])
    for name in NAMES:
        world.create(name)
    world.until_ready(*NAMES)
    folder = kubectl_folder(world.plane, tmp_path)
    shell = Shell(world.plane.kubeconfig, folder, world.namespace, {"CB_REDIS_CLUSTER": "true"})
    viewer = world.server.url.replace("://", "://circuitbreaker-viewer:pw@")
    for name in NAMES:
        told = shell.run("history", name, "--redis-url", viewer, "-o", "json").json
        assert [each["reason"] for each in told["transitions"]] == ["Created"]
    found = shell.run("doctor", "--redis-url", viewer, "-o", "json").json["findings"]
    assert {each["verdict"] for each in found if each["check"] in {"Redis", "functions", "orphans"}} == {"ok"}
    for name in NAMES:
        world.delete(name)
    world.until(lambda: world.redis.dbsize(target_nodes="primaries") == 0, "nothing to be left")


def test_purge_reaches_every_node(world: World, cluster: RedisCluster) -> None:
    """Breakers of this owner and what the operator wrote of them into the shared hash; not those of others."""
    with world.operator(REDIS_CLUSTER="true", OWNER="mine", NAMESPACES=world.namespace) as operator:
        operator.wait_ready()
        for name in NAMES:
            world.create(name)
        world.until_ready(*NAMES)
        world.until(lambda: len(world.redis.hgetall(world.keys.states)) == len(NAMES), "the shared hash")
        policy = world.fleet(NAMES[0]).observe().policy.to_json()
    world.redis.execute_command("FCALL", "cb_configure", 1, "cb:{other/x}", "theirs", "u", 0, policy, 2)
    world.redis.hset(world.keys.states, "other/x", "Closed")
    command = [str(Path(sys.executable).with_name("circuitbreaker-operator")), "purge", "--yes"]
    environment = {"CB_REDIS_URL": world.server.url, "CB_REDIS_CLUSTER": "true", "CB_OWNER": "mine"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, f"removed {len(NAMES)} breakers" in done.stdout) == (0, True), done
    assert set(world.redis.scan_iter()) == {world.keys.states, "cb:{other/x}", "cb:{other/x}:history"}
    assert world.redis.hgetall(world.keys.states) == {"other/x": "Closed"}
    world.redis.flushall(target_nodes="primaries")


def test_the_shared_hash_is_repaired(world: World) -> None:
    """What is missing, wrong or left over in it is put right by a sweep."""
    with world.operator(REDIS_CLUSTER="true", SWEEP_INTERVAL="1s") as operator:
        operator.wait_ready()
        world.create("missing")
        world.create("wrong")
        world.until_ready("missing", "wrong")
        assert world.fleet("wrong").observe().projection is Projection.MESSAGES
        world.until(lambda: world.shown("missing") == world.shown("wrong") == "Closed", "the shared hash")
        world.redis.hdel(world.keys.states, f"{world.namespace}/missing")
        world.redis.hset(world.keys.states, mapping={f"{world.namespace}/wrong": "Open", "nobody/ghost": "Open"})
        expected = {f"{world.namespace}/missing": "Closed", f"{world.namespace}/wrong": "Closed"}
        world.until(lambda: world.redis.hgetall(world.keys.states) == expected, "the shared hash to be right again")


def test_a_primary_is_added_and_a_slot_moves(
    world: World, cluster: RedisCluster, operator: OperatorProcess, redis_server_binary: Path
) -> None:
    """The new one has no library until the operator puts it there; a breaker that moves there keeps its state."""
    fleet = world.fleet("moving")
    world.create("moving", recoveryTimeout="1h", successThreshold=1)
    world.until_ready("moving")
    fleet.open()
    world.until_state("moving", "Open")
    slot, home = world.redis.keyslot(fleet.key), world.redis.get_node_from_key(fleet.key).port
    source = next(node for node in cluster.nodes if node.port == home)
    bus = free_port()
    arguments = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "2000"]
    with RedisServer(redis_server_binary, arguments=arguments) as target, direct(source) as old, direct(target) as new:
        old.execute_command("CLUSTER MEET", "127.0.0.1", target.port, bus)
        assert not has_library(target)
        wait_until(lambda: has_library(target), timeout_seconds=15, what="the library on the new primary")
        old_id, new_id = (each.execute_command("CLUSTER", "MYID").decode() for each in (old, new))
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
        # Nothing has moved yet: its functions may not look for keys that are not there, and nothing is wrong with it.
        world.patch("moving", {"spec": {"recoveryTimeout": "3h"}})
        world.until(lambda: "its slot of the Redis Cluster is being moved" in operator.log, "a word of it")
        assert operator.ready
        assert world.condition("moving")[0] == "True"
        world.until_events("moving", ["PolicyApplied", "CircuitOpened"])
        keys = old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
        old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
        # The slot is still the old one's, which sends everybody on for this once.
        world.until(
            lambda: world.status("moving")["policy"]["recoveryTimeout"] == "3h", "the first edit to be in force"
        )
        world.patch("moving", {"spec": {"recoveryTimeout": "2h"}})
        world.until(lambda: world.status("moving")["policy"]["recoveryTimeout"] == "2h", "the edit to be in force")
        for node in (target, *cluster.nodes):
            with direct(node) as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)
        assert fleet.observe().state is State.OPEN
        world.patch("moving", {"spec": {"recoveryTimeout": "100ms"}})
        world.until_state("moving", "HalfOpen")
        fleet.recover()
        world.until_state("moving", "Closed")
        assert operator.ready
        # Somebody empties all of them: the library comes back, on the new one too.
        for node in (*cluster.nodes, target):
            with direct(node) as client:
                client.execute_command("FUNCTION", "FLUSH")
        wait_until(lambda: all(map(has_library, (*cluster.nodes, target))), timeout_seconds=15, what="the library")
        world.until(lambda: operator.ready, "the operator to be ready")
        world.delete("moving")
        world.until(lambda: not world.keys_of("moving"), "the keys to go")
        for node in (source, *cluster.nodes, target):  # the slot is empty, and goes home before the new one ends
            with direct(node) as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", old_id)


def test_a_replica_is_promoted(
    control_plane: ControlPlane, breaker_crd: str, redis_server_binary: Path, tmp_path: Path
) -> None:
    """SIGKILL of a primary: the operator finds the one that took its place, and what it holds goes on."""
    bus = free_port()
    arguments = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "2000"]
    with RedisCluster(redis_server_binary) as own, RedisServer(redis_server_binary, arguments=arguments) as replica:
        doomed = own.nodes[-1]
        with direct(doomed) as old, direct(replica) as new:
            identity = old.execute_command("CLUSTER", "MYID").decode()
            old.execute_command("CLUSTER MEET", "127.0.0.1", replica.port, bus)
            wait_until(lambda: identity in str(new.execute_command("CLUSTER", "NODES")), timeout_seconds=10, what="it")
            new.execute_command("CLUSTER", "REPLICATE", identity)
        world = World(control_plane, own.nodes[0], tmp_path)
        client = own.client(decode_responses=True)
        with world.through(client), world.operator(REDIS_CLUSTER="true", SWEEP_INTERVAL="1h") as operator:
            operator.wait_ready()
            name = next(each for each in NAMES if client.get_node_from_key(world.fleet(each).key).port == doomed.port)
            world.create(name, recoveryTimeout="1h", successThreshold=1)
            world.until_ready(name)
            world.fleet(name).open()
            world.until_state(name, "Open")
            wait_until(
                lambda: has_library(replica), timeout_seconds=10, what="the replica to have what its primary has"
            )
            doomed.kill()
            with direct(replica) as new:
                wait_until(lambda: new.info("replication")["role"] == "master", timeout_seconds=20, what="promotion")
            world.until(lambda: operator.ready, "the operator to be ready again")
            world.patch(name, {"spec": {"recoveryTimeout": "100ms"}})
            world.until_state(name, "HalfOpen")
        with own.client(decode_responses=True) as found, world.through(found):
            assert world.fleet(name).observe().state is State.HALF_OPEN
        world.close()


def test_mistakes_are_said_with_the_remedy(world: World, redis_server: RedisServer) -> None:
    """A node of a Cluster taken for the one Redis, and the reverse."""
    with world.operator() as operator:
        world.until(lambda: "set CB_REDIS_CLUSTER=true" in operator.log, "the advice")
    with world.operator(REDIS_CLUSTER="true", REDIS_URL=redis_server.url) as operator:
        world.until(lambda: "leave CB_REDIS_CLUSTER out" in operator.log, "the advice")
