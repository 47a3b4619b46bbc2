"""The faults: each is a context manager that does it to the stage, and takes it back at the end.

Nothing here judges. A fault that needs a relay says so by `ways`; the stage is made with it.
"""

import http.client
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer
from tests.chaos.stage import CLIENTS, LATE_SECONDS, OPERATOR, SECRET, Stage, Ways
from tests.relay import Relay

Fault = Callable[[Stage], AbstractContextManager[None]]
STOP_SECONDS = 10.0
USERS = (OPERATOR, *CLIENTS)


# -- relays

Roads = Callable[[ControlPlane, RedisServer], AbstractContextManager[Ways]]


@contextmanager
def direct(plane: ControlPlane, server: RedisServer) -> Iterator[Ways]:
    yield Ways()


@contextmanager
def to_api(plane: ControlPlane, server: RedisServer) -> Iterator[Ways]:
    with Relay(plane.api_server.port) as relay:
        yield Ways(operator_to_api=relay)


@contextmanager
def to_redis(plane: ControlPlane, server: RedisServer) -> Iterator[Ways]:
    with Relay(server.port) as mine, Relay(server.port) as theirs:
        yield Ways(operator_to_redis=mine, clients_to_redis=theirs)


@contextmanager
def first_to_redis(plane: ControlPlane, server: RedisServer) -> Iterator[Ways]:
    with Relay(server.port) as relay:
        yield Ways(first_client_to_redis=relay)


@contextmanager
def to_etcd(plane: ControlPlane, server: RedisServer) -> Iterator[Ways]:
    """The API server reaches its etcd through a relay: it is told another port, and started anew."""
    port = plane.etcd.port
    with Relay(port) as relay:
        try:
            plane.kill_api_server()
            plane.etcd.port = relay.port
            plane.start_api_server()
        finally:
            plane.etcd.port = port
        try:
            yield Ways(api_to_etcd=relay)
        finally:
            plane.kill_api_server()
            plane.start_api_server()


def _relays(stage: Stage) -> list[Relay]:
    return [each for each in vars(stage.ways).values() if each is not None]


@contextmanager
def slow(stage: Stage) -> Iterator[None]:
    for relay in _relays(stage):
        relay.delay_seconds = LATE_SECONDS
    try:
        yield
    finally:
        for relay in _relays(stage):
            relay.delay_seconds = 0.0


@contextmanager
def half_open(stage: Stage) -> Iterator[None]:
    for relay in _relays(stage):
        relay.swallow()
    try:
        yield
    finally:
        for relay in _relays(stage):
            relay.heal()


# -- the API server and etcd


@contextmanager
def api_server_stopped(stage: Stage) -> Iterator[None]:
    stage.plane.stop_api_server()
    yield
    stage.plane.start_api_server()


@contextmanager
def api_server_killed(stage: Stage) -> Iterator[None]:
    stage.plane.kill_api_server()
    yield
    stage.plane.start_api_server()


@contextmanager
def api_server_paused(stage: Stage) -> Iterator[None]:
    stage.plane.pause_api_server()
    yield
    stage.plane.resume_api_server()


@contextmanager
def api_server_restarted(stage: Stage) -> Iterator[None]:
    stage.plane.stop_api_server()
    stage.plane.start_api_server()
    yield


def token_refused(stage: Stage) -> AbstractContextManager[None]:
    return operator_refused(stage.plane)


@contextmanager
def operator_refused(plane: ControlPlane) -> Iterator[None]:
    """The API server reads its list of tokens when it starts: 401 for the operator, until it is started once more."""
    tokens = plane.folder / "tokens.csv"
    right = tokens.read_text()
    wrong = "".join(
        f"wrong-{line}" if line.split(",")[1] == OPERATOR else line for line in right.splitlines(keepends=True)
    )
    try:
        tokens.write_text(wrong)
        plane.kill_api_server()
        plane.start_api_server()
        yield
    finally:
        tokens.write_text(right)
        plane.kill_api_server()
        plane.start_api_server()


@contextmanager
def etcd_stopped(stage: Stage) -> Iterator[None]:
    stage.plane.stop_etcd()
    yield
    stage.plane.start_etcd()


@contextmanager
def etcd_killed(stage: Stage) -> Iterator[None]:
    stage.plane.kill_etcd()
    yield
    stage.plane.start_etcd()


@contextmanager
def etcd_paused(stage: Stage) -> Iterator[None]:
    stage.plane.pause_etcd()
    yield
    stage.plane.resume_etcd()


@contextmanager
def etcd_restarted(stage: Stage) -> Iterator[None]:
    stage.plane.stop_etcd()
    stage.plane.start_etcd()
    yield


def etcd_full(stage: Stage) -> AbstractContextManager[None]:
    return etcd_writes_nothing(stage.plane)


@contextmanager
def etcd_writes_nothing(plane: ControlPlane) -> Iterator[None]:
    """The alarm that a full disk raises in etcd: it reads, and refuses to write."""
    _alarm(plane, "ACTIVATE")
    try:
        yield
    finally:
        _alarm(plane, "DEACTIVATE")


def _alarm(plane: ControlPlane, action: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", plane.etcd.port, timeout=10)
    member = _post(connection, "/v3/maintenance/status", {})["header"]["member_id"]
    _post(connection, "/v3/maintenance/alarm", {"action": action, "memberID": member, "alarm": "NOSPACE"})
    connection.close()


def _post(connection: http.client.HTTPConnection, path: str, body: dict[str, str]) -> dict[str, dict[str, str]]:
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == 200, (path, text)
    return json.loads(text)


def compact(plane: ControlPlane) -> None:
    """etcd forgets all revisions but the present one: a watch that goes on from an older one is answered 410 Gone."""
    connection = http.client.HTTPConnection("127.0.0.1", plane.etcd.port, timeout=10)
    revision = _post(connection, "/v3/maintenance/status", {})["header"]["revision"]
    _post(connection, "/v3/kv/compaction", {"revision": revision})
    connection.close()


# -- Redis


@contextmanager
def redis_stopped(stage: Stage) -> Iterator[None]:
    stage.server.process.stop(STOP_SECONDS)
    yield
    stage.server.start()


@contextmanager
def redis_killed(stage: Stage) -> Iterator[None]:
    stage.server.kill()
    yield
    stage.server.start()


@contextmanager
def redis_paused(stage: Stage) -> Iterator[None]:
    stage.server.pause()
    yield
    stage.server.resume()


@contextmanager
def redis_restarted(stage: Stage) -> Iterator[None]:
    stage.server.process.stop(STOP_SECONDS)
    stage.server.start()
    yield


@contextmanager
def redis_emptied(stage: Stage) -> Iterator[None]:
    """Keys and functions, while every connection and subscription stays as it is."""
    with stage.world.redis.pipeline() as pipeline:
        pipeline.flushall()
        pipeline.function_flush()
        pipeline.execute()
    yield


@contextmanager
def logins_refused(stage: Stage, users: tuple[str, ...] = USERS) -> Iterator[None]:
    """Another password, and connections that were there are closed."""

    def password(word: str) -> None:
        for user in users:
            stage.world.redis.execute_command("ACL", "SETUSER", user, "resetpass", f">{word}")
            stage.world.redis.execute_command("CLIENT", "KILL", "USER", user)

    password("another")
    try:
        yield
    finally:
        password(SECRET)


def first_login_refused(stage: Stage) -> AbstractContextManager[None]:
    return logins_refused(stage, CLIENTS[:1])


@contextmanager
def memory_full(stage: Stage) -> Iterator[None]:
    stage.world.redis.config_set("maxmemory", "1b")
    try:
        yield
    finally:
        stage.world.redis.config_set("maxmemory", "0")


@contextmanager
def disk_full(stage: Stage) -> Iterator[None]:
    """A snapshot that cannot be written makes Redis refuse all writes (MISCONF): a folder is in its place."""
    occupied = stage.server.folder / "data" / "dump.rdb"
    occupied.mkdir()
    (occupied / "file").touch()
    redis = stage.world.redis
    redis.config_set("save", "3600 1")
    try:
        redis.bgsave()
        stage.until(
            lambda: redis.info("persistence")["rdb_last_bgsave_status"] == "err", "Redis to fail to write its snapshot"
        )
        yield
    finally:
        redis.config_set("save", "")
        shutil.rmtree(occupied)


# -- the operator


@contextmanager
def operator_stopped(stage: Stage) -> Iterator[None]:
    stage.operator.process.stop(STOP_SECONDS)
    assert stage.operator.process.returncode == 0
    yield
    stage.start_operator()


@contextmanager
def operator_killed(stage: Stage) -> Iterator[None]:
    stage.operator.process.kill()
    yield
    stage.start_operator()


@contextmanager
def operator_paused(stage: Stage) -> Iterator[None]:
    stage.operator.process.pause()
    yield
    stage.operator.process.resume()


@contextmanager
def operator_restarted(stage: Stage) -> Iterator[None]:
    stage.operator.process.stop(STOP_SECONDS)
    stage.start_operator()
    yield


# -- the first of the clients; the second one sees nothing of it


@contextmanager
def client_stopped(stage: Stage) -> Iterator[None]:
    stage.clients[0].process.stop(STOP_SECONDS)
    assert stage.clients[0].process.returncode == 0
    yield
    stage.start_client("third")


@contextmanager
def client_killed(stage: Stage) -> Iterator[None]:
    stage.clients[0].process.kill()
    yield
    stage.start_client("third")


@contextmanager
def client_paused(stage: Stage) -> Iterator[None]:
    stage.clients[0].process.pause()
    yield
    stage.clients[0].process.resume()


@contextmanager
def client_restarted(stage: Stage) -> Iterator[None]:
    stage.clients[0].process.stop(STOP_SECONDS)
    stage.start_client("third")
    yield
