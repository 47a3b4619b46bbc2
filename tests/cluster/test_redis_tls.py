"""The operator and Redis over TLS: an authority and a client certificate of one's own, and who is not trusted."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from circuitbreaker_contract import access
from circuitbreaker_contract.access import User
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.processes import Process, free_port
from circuitbreaker_local.redis_cluster import RedisCluster
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import Store
from tests.authority import Authority
from tests.cluster.world import World


def tls_server(binary: Path, authority: Authority, *identities: str) -> tuple[RedisServer, int]:
    """A Redis that asks for a client's certificate on its second port; the first is for the test."""
    certificate, key = authority.issue("server", *identities)
    port = free_port()
    arguments = {"--tls-port": port, "--tls-cert-file": certificate, "--tls-key-file": key}
    arguments |= {"--tls-ca-cert-file": authority.ca, "--tls-auth-clients": "yes"}
    return RedisServer(binary, arguments=[str(word) for pair in arguments.items() for word in pair]), port


def test_over_tls(control_plane: ControlPlane, breaker_crd: str, redis_server_binary: Path, tmp_path: Path) -> None:
    """The whole life of a breaker, with an authority of one's own and a certificate for the operator."""
    authority = Authority(tmp_path / "pki")
    server, port = tls_server(redis_server_binary, authority, "127.0.0.1")
    certificate, key = authority.issue("operator", "operator.example")
    files = {"REDIS_CA_FILE": str(authority.ca), "REDIS_CERT_FILE": str(certificate), "REDIS_KEY_FILE": str(key)}
    with server:
        world = World(control_plane, server, tmp_path)
        with world.operator(**files, REDIS_URL=f"rediss://127.0.0.1:{port}", SWEEP_INTERVAL="1h") as operator:
            operator.wait_ready()
            world.whole_life("payments")
        world.close()


async def test_who_is_not_trusted(redis_server_binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server of another authority or another name, an operator without a certificate."""
    authority, other = Authority(tmp_path / "pki"), Authority(tmp_path / "other")
    server, port = tls_server(redis_server_binary, authority, "redis.example")
    certificate, key = authority.issue("operator", "operator.example")
    shown = {"redis_cert_file": certificate, "redis_key_file": key}

    with server:
        url = f"rediss://127.0.0.1:{port}"
        assert await serves(url, redis_ca_file=authority.ca, redis_verify="ca", **shown)
        assert await serves(url, redis_verify="none", **shown)
        assert not await serves(url, redis_ca_file=authority.ca, **shown), "its certificate names another host"
        assert not await serves(url, redis_ca_file=other.ca, redis_verify="ca", **shown), "another authority signed it"
        assert not await serves(url, redis_verify="ca", **shown), "the system's authorities did not sign it"
        assert "check CB_REDIS_CA_FILE" in caplog.text
        assert not await serves(url, redis_ca_file=authority.ca, redis_verify="ca"), "it asks for a certificate"


async def test_renewed_certificates(redis_server_binary: Path, tmp_path: Path) -> None:
    """Another authority signs all of them anew, in the same files: taken up without a restart."""
    authority = Authority(tmp_path)
    server, port = tls_server(redis_server_binary, authority, "127.0.0.1")
    certificate, key = authority.issue("operator", "operator.example")
    files = {"redis_ca_file": authority.ca, "redis_cert_file": certificate, "redis_key_file": key}
    with server:
        async with opened(f"rediss://127.0.0.1:{port}", **files) as store:
            assert await store.probe()
            another = Authority(tmp_path)
            another.issue("server", "127.0.0.1")
            server.restart(empty=True)
            assert not await store.probe(), "the operator still shows what it had"
            another.issue("operator", "operator.example")
            assert any([await store.probe() for _ in range(2)]), "what is refused begins anew, with the new files"


async def test_a_cluster_over_tls(redis_server_binary: Path, tmp_path: Path) -> None:
    """Nodes tell of each other's ports for TLS; as the shipped user of the operator, on every node."""
    authority = Authority(tmp_path / "pki")
    certificate, key = authority.issue("node", "127.0.0.1")
    tls = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(authority.ca)]
    shown = {"redis_ca_file": authority.ca, "redis_cert_file": certificate, "redis_key_file": key}
    rule = access.rule(User.OPERATOR, name="operator", secret=">secret").split(" ")[1:]
    (tmp_path / "password").write_text("secret", encoding="utf-8")
    with RedisCluster(redis_server_binary, tls=tls) as cluster:
        for node in cluster.nodes:
            with redis.Redis.from_url(node.url) as client:
                client.execute_command("ACL", "SETUSER", *rule)
        url = f"rediss://operator@127.0.0.1:{cluster.tls_ports[1]}"
        async with opened(url, redis_cluster=True, redis_password_file=tmp_path / "password", **shown) as store:
            assert await store.probe()
            assert {each.port for each in store.primaries} == set(cluster.tls_ports)
            store.up.set()
            keys = [BreakerKey("shop", f"b{number}") for number in range(12)]
            await store.show_states(dict.fromkeys(keys, "Open"))
            assert [key async for key in store.breakers()] == []
            assert await store.hide_states(keys) == 12
        for node in cluster.nodes:
            with redis.Redis.from_url(node.url, decode_responses=True) as client:
                assert [each["object"] for each in client.acl_log()] == []


async def test_sentinels_over_tls_with_their_own_user(redis_server_binary: Path, tmp_path: Path) -> None:
    """They have a password of their own, and are asked for nothing but the primary."""
    authority = Authority(tmp_path / "pki")
    server, port = tls_server(redis_server_binary, authority, "127.0.0.1")
    certificate, key = authority.issue("both", "127.0.0.1")
    shown = {"redis_ca_file": authority.ca, "redis_cert_file": certificate, "redis_key_file": key}
    (tmp_path / "password").write_text("secret", encoding="utf-8")
    (tmp_path / "wrong").write_text("guess", encoding="utf-8")
    its_port = free_port()
    lines = (
        f"port 0\ntls-port {its_port}\ndir {tmp_path}\ntls-replication yes\ntls-auth-clients yes",
        f"tls-cert-file {certificate}\ntls-key-file {key}\ntls-ca-cert-file {authority.ca}",
        "user default off\nuser asking on >secret +sentinel|master +client|setname",
        f"sentinel monitor group 127.0.0.1 {port} 1",
    )
    (tmp_path / "sentinel.conf").write_text("\n".join(lines), encoding="utf-8")
    asked = {"redis_sentinel": f"127.0.0.1:{its_port}", "redis_sentinel_master": "group", **shown}
    asked |= {"redis_sentinel_user": "asking", "redis_sentinel_password_file": tmp_path / "password"}
    with (
        server,
        Process([redis_server_binary, tmp_path / "sentinel.conf", "--sentinel"], log=tmp_path / "sentinel.log"),
    ):
        wait_until(lambda: _listens(its_port), timeout_seconds=10, what="the sentinel")
        assert await serves("rediss:///0", **asked)
        assert not await serves("rediss:///0", **asked | {"redis_sentinel_password_file": tmp_path / "wrong"})


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Store]:
    store = Store(Settings.load(redis_url=url, **settings), Metrics())
    try:
        yield store
    finally:
        await store.close()


async def serves(url: str, **settings: Any) -> bool:
    async with opened(url, **settings) as store:
        return await store.probe()
