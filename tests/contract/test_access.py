"""Rules of access: derived from the Lua, shipped as a file, held by a real Redis."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.retry import Retry

from circuitbreaker_contract import access, library, protocol
from circuitbreaker_contract.access import User
from circuitbreaker_contract.keys import Keys
from circuitbreaker_contract.state import Decision, Outcome, Projection, State
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from tests.contract.callers import KEYS, POLICY, SHORT, Caller, load, send
from tests.contract.layout import falsified, raw_hash

FILE = Path(__file__).parents[2] / "contract" / "acl" / "users.acl"
# In the tests only: somebody has to look from outside.
ADMINISTRATOR = "user administrator on >administrator ~* &* +@all"


class Users:
    """A Redis that was given the shipped file, filled in for the namespaces shop and bank."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    @contextmanager
    def connected(self, name: str) -> Iterator["redis.Redis[str]"]:
        with redis.Redis(
            port=self.server.port,
            username=name,
            password=name,
            decode_responses=True,
            client_name="test",
            protocol=2,  # as the operator has it
            retry=Retry(NoBackoff(), 0),
        ) as client:
            yield client


@pytest.fixture(scope="module")
def users(redis_server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    path = tmp_path_factory.mktemp("acl") / "users.acl"
    path.touch()
    with RedisServer(
        redis_server_binary, arguments=["--aclfile", str(path), "--enable-debug-command", "yes"]
    ) as server:
        lines = FILE.read_text(encoding="utf-8").splitlines()
        app = next(line for line in lines if "NAMESPACE" in line)
        lines = [line for line in lines if line != app]
        lines += [app.replace("NAMESPACE", namespace) for namespace in ("shop", "bank")]
        # Each one's password is its name.
        lines = [re.sub(r"^user (\S+)(.*) >\w+_PASSWORD", r"user \1\2 >\1", line) for line in lines]
        path.write_text("\n".join([*lines, ADMINISTRATOR]) + "\n", encoding="utf-8")
        with redis.Redis.from_url(server.url) as client:
            client.acl_load()
        yield Users(server)


@pytest.fixture
def admin(users: Users) -> Iterator["redis.Redis[str]"]:
    with users.connected("administrator") as client:
        client.flushall()
        load(client)
        for namespace in ("shop", "bank"):
            Caller(client, namespace=namespace).define(SHORT)
        client.acl_log_reset()
        yield client


@pytest.fixture
def operator(users: Users, admin: Any) -> Iterator["redis.Redis[str]"]:
    with users.connected("circuitbreaker-operator") as client:
        yield client


@pytest.fixture
def app(users: Users, admin: Any) -> Iterator["redis.Redis[str]"]:
    with users.connected("app-shop") as client:
        yield client


@pytest.fixture
def viewer(users: Users, admin: Any) -> Iterator["redis.Redis[str]"]:
    with users.connected("circuitbreaker-viewer") as client:
        yield client


def refused(client: Any, *command: str | int) -> None:
    with pytest.raises(NoPermissionError):
        client.execute_command(*command)


def refusals(admin: Any) -> set[tuple[str, str]]:
    """(reason, what) that Redis has noted, but for what redis-py tells of itself from Redis 7.2 on."""
    return {(entry["reason"], entry["object"]) for entry in admin.acl_log()} - {("command", "client|setinfo")}


def everything(client: Any) -> dict[str, Any]:
    """All that Redis holds."""
    readers = {
        "hash": lambda key: raw_hash(client, key),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": client.xrange,
        "string": client.get,
    }
    return {key: readers[client.type(key)](key) for key in client.keys("*")}


# -- the rules and the text


def test_the_shipped_file_is_what_the_library_needs() -> None:
    """Changed Lua owes the file: `python -m circuitbreaker_contract.access > contract/acl/users.acl`."""
    assert FILE.read_text(encoding="utf-8") == access.template()


def test_commands_are_found_through_calls() -> None:
    """Direct ones, queued ones, those of functions called by functions; not those in comments, texts or elsewhere."""
    text = """#!lua name=x
-- redis.call('FLUSHALL')
local word = "redis.call('KEYS')"
local function deep(b) return redis.pcall('GET', b) end
local function middle(b)
  -- it's a comment
  op(b, 'ZADD', 1)
  return deep(b)
end
local function unused(b) return redis.call('DEL', b) end
local function top(keys) return middle(keys[1]) end
redis.register_function{function_name = 'one', callback = top}
redis.register_function{function_name = 'two', flags = {'no-writes'}, callback = function()
  return redis.call('TIME')
end}
"""
    assert access.commands(text) == {"one": {"get", "zadd"}, "two": {"time"}}


def test_a_command_that_cannot_be_seen_is_an_error() -> None:
    """A rule that leaves one out would stop a function half-way."""
    with pytest.raises(ValueError, match="not written out"):
        access.commands("local function f(name)\n  redis.call(name, 1)\nend\n")


def test_every_function_is_known() -> None:
    found = access.commands(library.source())
    assert set(found) == set(library.FUNCTIONS)
    assert found["cb_observe"] <= {"hmget", "hgetall", "time", "xrevrange", "zcount", "zrangebyscore"}
    written = set(re.findall(r"\bp?call\('(\w+)'|\bop\(\w+, '(\w+)'", library.source()))
    assert {each.lower() for pair in written for each in pair if each} == set().union(*found.values())


@pytest.mark.parametrize("namespace", ["", "shop*", "shop/x", "a b", "Shop", "shop}"])
def test_a_namespace_is_never_a_pattern(namespace: str) -> None:
    with pytest.raises(ValueError, match="must be a name"):
        access.rule(User.APP, namespace=namespace)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    access._main(["--user", "app", "--namespace", "shop", "--prefix", "team:", "--name", "checkout"])
    line = capsys.readouterr().out
    assert line.startswith("user checkout reset on >APP_PASSWORD ~team:{shop/* &team:circuit_breaker_updates:shop +")
    access._main([])
    assert capsys.readouterr().out == access.template()
    with pytest.raises(SystemExit):
        access._main(["--user", "app"])
    assert "--namespace is needed" in capsys.readouterr().err


# -- everybody


def test_nobody_comes_in_without_a_name(users: Users, admin: Any) -> None:
    with (
        redis.Redis(port=users.server.port, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(AuthenticationError),
    ):
        client.ping()


ADMINISTRATION = (
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "CONFIG GET *",
    "CONFIG SET maxmemory 1",
    "ACL LIST",
    "ACL SETUSER me +@all",
    "DEBUG SLEEP 0",
    "EVAL return(1) 0",
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "FUNCTION DELETE circuitbreaker",
    "FUNCTION DUMP",
    "FUNCTION RESTORE x",
    "SHUTDOWN",
    "MONITOR",
    "REPLICAOF NO ONE",
    "CLIENT KILL TYPE normal",
    "CLIENT LIST",
    "PSUBSCRIBE *",
    "SAVE",
    "MODULE LIST",
    "SWAPDB 0 1",
    "MIGRATE 127.0.0.1 1 x 0 1",
    "GET foreign",
    "SET foreign 1",
    "HSET foreign a b",
    "HGETALL foreign",
    "DEL foreign",
)


@pytest.mark.parametrize("name", ["circuitbreaker-operator", "app-shop", "circuitbreaker-viewer"])
def test_nobody_administers(users: Users, admin: Any, name: str) -> None:
    """No command that reaches beyond breakers, and no key that is none."""
    before = everything(admin)
    with users.connected(name) as client:
        for command in ADMINISTRATION:
            refused(client, *command.split(" "))
    assert everything(admin) == before


# -- an application


def test_an_application_uses_its_own_breakers(app: Any, admin: Any) -> None:
    """Every path of a client's calls; the one command that Redis refuses inside is the write of the shared hash."""
    caller = Caller(app, namespace="shop")
    send(app, protocol.version())
    caller.report(("S", 5), ("L", 2), ("M", 1), ("I", 1), ("N", 3), ("S", 1))
    caller.open()
    assert caller.acquire("l0").decision is Decision.NOT_PERMITTED
    wait_until(lambda: caller.acquire("first").decision is Decision.PROBE, timeout_seconds=5, what="HalfOpen")
    caller.settle("first", Outcome.IGNORED)
    for number in range(1_000):  # more settled leases than are kept: trimming needs a command too
        assert caller.acquire(f"l{number}").decision is Decision.PROBE
        caller.settle(f"l{number}", Outcome.IGNORED)
    assert admin.zcard(f"{caller.key}:probes") == 1_000
    listener = app.pubsub()
    listener.subscribe(f"{KEYS.updates}:shop")
    assert listener.get_message(timeout=5)["type"] == "subscribe"
    listener.close()
    assert caller.acquire("last").decision is Decision.PROBE
    assert caller.settle("last").state is State.CLOSED
    assert refusals(admin) == {("key", KEYS.states)}


def test_an_application_with_windows_and_rates(app: Any, admin: Any) -> None:
    """The commands of count windows, time windows, quorum and mode Observe."""
    for name, policy in {
        "count": replace(
            POLICY, window_ms=0, window_calls=4, failure_rate_percent=50, minimum_calls=2, min_reporters=2
        ),
        "time": replace(POLICY, window_ms=1_000, failure_rate_percent=100, minimum_calls=9, min_reporters=2),
    }.items():
        Caller(admin, name, namespace="shop").define(policy)
        caller = Caller(app, name, namespace="shop")
        for client in ("a", "b", "a"):
            caller.report(("S", 9), ("F", 1), ("S", 3), ("F", 2), client=client)
        assert caller.observe(history=256).totals.failures > 0
    assert refusals(admin) <= {("key", KEYS.states)}


def test_an_application_reaches_no_other_namespace(app: Any, admin: Any) -> None:
    """Neither functions nor plain commands read or change what belongs to another, nor its channel."""
    bank = Caller(admin, namespace="bank")
    bank.report(("F", 1))
    before = everything(admin)
    order = bank.observe().order[:2]
    key = bank.key
    for command in (
        ("FCALL", "cb_acquire", 1, key, "a", "l"),
        ("FCALL", "cb_report", 1, key, "a", 1, *order, "F9"),
        ("FCALL", "cb_settle", 1, key, "a", "l", *order, "S"),
        ("FCALL_RO", "cb_observe", 1, key),
        ("HGETALL", key),
        ("HSET", key, "state", "Open"),
        ("DEL", key),
        ("XREVRANGE", f"{key}:history", "+", "-"),
        ("ZADD", f"{key}:probes", 1, "x"),
        ("HDEL", KEYS.states, "bank/payments"),
        ("HSET", KEYS.states, "bank/payments", "Open"),
        ("HGETALL", KEYS.states),
        ("HSET", KEYS.deferred, "mine", 1),
        ("HGETALL", KEYS.deferred),
        ("SCAN", 0),
        ("SUBSCRIBE", KEYS.updates),
        ("SUBSCRIBE", f"{KEYS.updates}:bank"),
        ("PUBLISH", f"{KEYS.updates}:bank", "x"),
    ):
        refused(app, *command)
    refused(app, "FCALL", "cb_acquire", 2, Caller(app, namespace="shop").key, key, "a", "l")
    assert everything(admin) == before


def test_an_application_does_not_do_the_operators_work(app: Any, admin: Any) -> None:
    """It cannot define, reset, delete, nor put functions in place, not even in its own namespace."""
    shop = Caller(app, namespace="shop")
    before = everything(admin)
    for command in (
        ("FCALL", "cb_configure", 1, shop.key, "o", "u", 2, POLICY.to_json(), 1),
        ("FCALL", "cb_reset", 1, shop.key, "u", "t"),
        ("FCALL", "cb_tick", 1, shop.key),
        ("FCALL", "cb_delete", 1, shop.key, "o", "u"),
        ("FUNCTION", "LOAD", "REPLACE", library.source()),
        ("FUNCTION", "LIST"),
    ):
        refused(app, *command)
    assert everything(admin) == before


def test_what_an_application_can_falsify(app: Any, admin: Any) -> None:
    """Its own breakers, since the functions write under its name; and hints, which nobody believes."""
    shop = Caller(app, namespace="shop")
    app.hset(shop.key, "standing", falsified(raw_hash(app, shop.key)[b"standing"], word=2))
    assert shop.observe().state is State.OPEN
    app.publish(KEYS.updates, '{"service":"bank/payments","state":"Open"}')
    assert Caller(admin, namespace="bank").observe().state is State.CLOSED


def test_the_shared_hash_is_put_right_by_the_operator(app: Any, admin: Any, operator: Any) -> None:
    """An opening by an application is published at once; the hash, which it may not write, follows at the next tick."""
    listener = operator.pubsub()
    listener.subscribe(KEYS.updates)
    listener.get_message(timeout=5)
    shop = Caller(app, namespace="shop")
    assert shop.open().state is State.OPEN
    heard = listener.get_message(timeout=5)
    assert heard is not None
    assert (json.loads(heard["data"])["service"], json.loads(heard["data"])["state"]) == ("shop/payments", "Open")
    assert shop.observe().projection_failed is True
    assert admin.hget(KEYS.states, "shop/payments") == "Closed"
    Caller(operator, namespace="shop").tick()
    assert admin.hget(KEYS.states, "shop/payments") == "Open"
    assert shop.observe().projection_failed is False
    listener.close()


def test_applications_that_are_kept_apart(users: Users, admin: Any, app: Any) -> None:
    """With project 2 a change is heard on the namespace's own channel and on the shared one, and nothing is refused."""
    shop = Caller(admin, namespace="shop")
    shop.define(SHORT, project=Projection.MESSAGES)
    with users.connected("app-shop") as listening, users.connected("circuitbreaker-viewer") as viewing:
        own, all_of_them = listening.pubsub(), viewing.pubsub()
        own.subscribe(KEYS.updates_of("shop"))
        all_of_them.subscribe(KEYS.updates)
        assert [each.get_message(timeout=5)["type"] for each in (own, all_of_them)] == ["subscribe"] * 2
        Caller(app, namespace="shop").open()
        said = [each.get_message(timeout=5)["data"] for each in (own, all_of_them)]
        assert said[0] == said[1]
        assert (json.loads(said[0])["service"], json.loads(said[0])["state"]) == ("shop/payments", "Open")
        own.close()
        all_of_them.close()
    assert shop.observe().projection_failed is False
    assert refusals(admin) == set()


def test_an_application_that_is_trusted_with_the_shared_names(users: Users, admin: Any) -> None:
    """`--shared`: it keeps the hash up to date itself and hears every namespace. It can falsify that hash for all."""
    line = access.rule(User.APP, namespace="shop", name="trusted", secret=">trusted", shared=True)
    admin.execute_command("ACL", "SETUSER", *line.split(" ")[1:])
    with users.connected("trusted") as client:
        shop = Caller(client, namespace="shop")
        shop.open()
        assert shop.observe().projection_failed is False
        assert admin.hget(KEYS.states, "shop/payments") == "Open"
        assert refusals(admin) == set()
        with pytest.raises(NoPermissionError):
            Caller(client, namespace="bank").observe()


def test_another_prefix(users: Users, admin: Any) -> None:
    """Two installations on one Redis: the rules of one are nothing in the other."""
    line = access.rule(User.APP, namespace="shop", prefix="team:", name="team", secret=">team")
    admin.execute_command("ACL", "SETUSER", *line.split(" ")[1:])
    Caller(admin, namespace="shop", keys=Keys("team:")).define()
    with users.connected("team") as client:
        assert Caller(client, namespace="shop", keys=Keys("team:")).open().state is State.OPEN
        with pytest.raises(NoPermissionError):
            Caller(client, namespace="shop").observe()


# -- the operator


def test_the_operator_does_its_work(operator: Any, admin: Any) -> None:
    """Each command that its store, sweep, subscription and purge send."""
    operator.ping()
    assert operator.info("memory")["maxmemory_policy"] == "noeviction"
    operator.execute_command("FUNCTION", "LOAD", "REPLACE", library.source())
    assert operator.execute_command("FUNCTION", "LIST")
    assert send(operator, protocol.version()).digest == library.digest()
    caller = Caller(operator, "orders", namespace="anywhere")
    caller.define(SHORT)
    caller.define(POLICY, generation=2)
    assert caller.observe(history=9).state is State.CLOSED
    assert send(operator, protocol.reset(caller.key, uid="u", token="t")).done
    caller.tick()
    assert operator.hget(KEYS.states, "anywhere/orders") == "Closed"
    assert operator.exists(caller.key) == 1
    assert caller.key in operator.scan(0, match=KEYS.breakers_pattern, count=1_000)[1]
    assert "anywhere/orders" in operator.hscan(KEYS.states, 0)[1]
    listener = operator.pubsub()
    listener.subscribe(KEYS.updates)
    assert listener.get_message(timeout=5)["type"] == "subscribe"
    listener.ping()
    assert listener.get_message(timeout=5)["type"] == "pong"
    assert operator.pubsub_numsub(KEYS.updates) == [(KEYS.updates, 1)]
    operator.publish(f"{KEYS.updates}:anywhere", "x")
    assert caller.delete()
    operator.hset(KEYS.states, "gone/gone", "Open")
    assert operator.hdel(KEYS.states, "gone/gone") == 1
    operator.hset(KEYS.deferred, "mine", 1)
    assert operator.hget(KEYS.deferred, "mine") == "1"
    assert operator.hscan(KEYS.deferred, 0)[1] == {"mine": "1"}
    assert operator.hdel(KEYS.deferred, "mine") == 1
    listener.close()
    assert refusals(admin) == set()


def test_the_operator_makes_no_calls_of_clients(operator: Any) -> None:
    """It is never on the trip path."""
    caller = Caller(operator, namespace="shop")
    refused(operator, "FCALL", "cb_acquire", 1, caller.key, "a", "l")
    refused(operator, "FCALL", "cb_report", 1, caller.key, "a", 1, 1, 1, "S1")


# -- the viewer


def test_the_viewer_sees_everything_and_changes_nothing(viewer: Any, admin: Any) -> None:
    shop = Caller(admin, namespace="shop")
    shop.open()
    before = everything(admin)
    for namespace in ("shop", "bank"):
        seen = Caller(viewer, namespace=namespace).observe(history=256)
        assert seen.history
    assert viewer.hgetall(KEYS.states) == {"shop/payments": "Open", "bank/payments": "Closed"}
    listener = viewer.pubsub()
    listener.subscribe(KEYS.updates)
    assert listener.get_message(timeout=5)["type"] == "subscribe"
    listener.close()
    key = shop.key
    calls: list[tuple[str | int, ...]] = [
        ("FCALL", "cb_observe", 1, key),  # as one that could write
        *(
            call.command()
            for call in (
                protocol.acquire(key, client="a", lease="l"),
                protocol.tick(key),
                protocol.reset(key, uid="u", token="t"),
                protocol.delete(key, owner="o", uid="u"),
                protocol.configure(key, owner="o", uid="u", generation=2, policy=POLICY),
                protocol.report(key, client="a", seq=1, order=(1, 1), batch=[("S", 1)]),
            )
        ),
        ("HSET", key, "state", "Closed"),
        ("DEL", key),
        ("HDEL", KEYS.states, "shop/payments"),
        ("PUBLISH", KEYS.updates, "x"),
        ("FUNCTION", "LOAD", "REPLACE", library.source()),
    ]
    for command in calls:
        refused(viewer, *command)
    assert everything(admin) == before
