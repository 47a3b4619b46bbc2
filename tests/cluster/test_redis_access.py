"""The operator and a Redis that lets nobody in without a name: ACL users as shipped, passwords that change."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from circuitbreaker_contract import access
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer
from tests.cluster.world import World

SHIPPED = Path(__file__).parents[2] / "contract" / "acl" / "users.acl"
ADMINISTRATOR = "user administrator on >administrator ~* &* +@all"  # somebody has to look from outside


@pytest.fixture
def world(control_plane: ControlPlane, breaker_crd: str, redis_server_binary: Path, tmp_path: Path) -> Iterator[World]:
    """A Redis with the shipped ACL file, filled in for the world's namespace; each one's password is its name."""
    path = tmp_path / "users.acl"
    path.touch()
    with RedisServer(redis_server_binary, arguments=["--aclfile", str(path)]) as server:
        world = World(control_plane, server, tmp_path)
        text = SHIPPED.read_text(encoding="utf-8").replace(access.NAMESPACE_PLACEHOLDER, world.namespace)
        text = re.sub(r"^user (\S+)(.*) >\w+_PASSWORD", r"user \1\2 >\1", text, flags=re.MULTILINE)
        path.write_text(f"{text}{ADMINISTRATOR}\n", encoding="utf-8")
        world.redis.acl_load()
        with world.through(user(server, "administrator")):
            yield world
        world.close()


def user(server: RedisServer, name: str) -> Any:
    return redis.Redis(port=server.port, username=name, password=name, decode_responses=True, protocol=2)


def url_of(server: RedisServer) -> str:
    return f"redis://circuitbreaker-operator@127.0.0.1:{server.port}"


def denied(client: Any) -> set[tuple[str, str]]:
    """(user, what) that Redis has refused, but for what redis-py tells of itself from Redis 7.2 on."""
    return {(each["username"], each["object"]) for each in client.acl_log() if each["object"] != "client|setinfo"}


def test_isolated_namespaces(world: World) -> None:
    """An application opens its breaker and hears so on its own channel, of nobody else; the shared hash is right."""
    secret = world.folder / "password"
    secret.write_text("circuitbreaker-operator\n", encoding="utf-8")
    others, app = world.new_namespace(), f"app-{world.namespace}"
    settings = {"REDIS_PASSWORD_FILE": str(secret), "ISOLATED_NAMESPACES": "true", "SWEEP_INTERVAL": "1h"}
    settings["NAMESPACES"] = f"{world.namespace},{others}"  # the hash is compared whole: without what other tests left
    with world.operator(REDIS_URL=url_of(world.server), **settings) as operator, user(world.server, app) as hearing:
        operator.wait_ready()
        listener = hearing.pubsub(ignore_subscribe_messages=True)
        listener.subscribe(world.keys.updates_of(world.namespace))
        assert listener.get_message(timeout=5) is None
        world.whole_life("theirs", namespace=others)
        world.create("payments", recoveryTimeout="700ms", successThreshold=1)
        world.until_ready("payments")
        with world.through(user(world.server, app)):  # the application itself calls the functions
            world.fleet("payments").open()
        world.until_state("payments", "HalfOpen")
        world.until(lambda: world.shown("payments") == "HalfOpen", "the shared hash to say HalfOpen")
        with world.through(user(world.server, app)):
            world.fleet("payments").recover()
        world.until_events("payments", ["PolicyApplied", "CircuitOpened", "CircuitHalfOpen", "CircuitClosed"])
        expected = {f"{world.namespace}/payments": "Closed"}
        world.until(lambda: world.redis.hgetall(world.keys.states) == expected, "the shared hash to say Closed")
        world.delete("payments")
        world.until(lambda: not world.redis.keys("*"), "nothing to be left")
        heard = [json.loads(message["data"]) for message in iter(lambda: listener.get_message(timeout=0.5), None)]
        listener.close()
        assert {each["service"] for each in heard} == {f"{world.namespace}/payments"}, "nothing of the other namespace"
        assert [each["state"] for each in heard] == ["Closed", "Open", "HalfOpen", "Closed", ""]
        assert denied(world.redis) == set(), "nobody needed more than the file grants"
        for command in (
            ("HGETALL", world.keys.states),
            ("HSET", world.keys.states, f"{world.namespace}/payments", "Open"),
            ("SUBSCRIBE", world.keys.updates),
            ("SUBSCRIBE", world.keys.updates_of(others)),
            ("PUBLISH", world.keys.updates_of(others), "x"),
            ("FCALL_RO", "cb_observe", 1, world.fleet("theirs", others).key),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                hearing.execute_command(*command)


def test_purge_tells_that_an_operator_runs(world: World) -> None:
    """As the shipped user too; nothing is removed, and nothing is said once the operator is gone."""
    secret = world.folder / "password"
    secret.write_text("circuitbreaker-operator", encoding="utf-8")
    settings = {"REDIS_URL": url_of(world.server), "REDIS_PASSWORD_FILE": str(secret)}
    command = [str(Path(sys.executable).with_name("circuitbreaker-operator")), "purge", "--dry-run"]
    environment = {f"CB_{name}": value for name, value in settings.items()} | {"CB_OWNER": "mine"}

    def purge() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    with world.operator(OWNER="mine", NAMESPACES=world.namespace, **settings) as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        told = purge()
    assert (told.returncode, "an operator seems to run here" in told.stderr) == (0, True), told
    alone = purge()
    assert (alone.returncode, alone.stderr) == (0, ""), alone
    assert told.stdout == alone.stdout
    assert "would remove" in alone.stdout
    assert denied(world.redis) == set()


def test_a_password_is_changed(world: World) -> None:
    """In Redis first, or in the file first: connections are refused meanwhile, and nobody restarts anything."""
    secret = world.folder / "password"
    secret.write_text("circuitbreaker-operator", encoding="utf-8")

    def change(password: str) -> None:
        world.redis.execute_command("ACL", "SETUSER", "circuitbreaker-operator", "resetpass", f">{password}")

    def disconnect() -> None:
        world.redis.execute_command("CLIENT", "KILL", "USER", "circuitbreaker-operator")

    with world.operator(REDIS_URL=url_of(world.server), REDIS_PASSWORD_FILE=str(secret)) as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1h", successThreshold=1)
        world.until_ready("payments")

        change("second")
        disconnect()
        world.until(lambda: not operator.ready, "readiness to tell")
        assert "Redis refuses the login" in operator.log
        secret.write_text("second", encoding="utf-8")
        world.until(lambda: operator.ready, "the operator to take up the password")

        secret.write_text("third", encoding="utf-8")
        disconnect()
        world.until(lambda: not operator.ready, "readiness to tell")
        change("third")
        world.until(lambda: operator.ready, "the operator to come back")

        secret.unlink()
        disconnect()
        world.until(lambda: "the password cannot be read from" in operator.log, "the cause")
        secret.write_text("third", encoding="utf-8")
        world.until(lambda: operator.ready, "the operator to come back")
        world.fleet("payments").open()
        world.until_state("payments", "Open")
        assert not re.search(r"\b(second|third)\b", operator.log)
