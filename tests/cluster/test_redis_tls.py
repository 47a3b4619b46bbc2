"""The operator and Redis over TLS: an authority and a client certificate of one's own, and who is not trusted."""

from pathlib import Path
from typing import Any

import pytest
import trustme

from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.processes import free_port
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.settings import Settings, table
from circuitbreaker_operator.store import Store
from tests.cluster.world import World


class Authority:
    """A CA, and what it has signed, as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._ca, self._folder = trustme.CA(), folder
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str, *identities: str) -> tuple[Path, Path]:
        """(certificate, key)."""
        signed = self._ca.issue_cert(*identities)
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        signed.cert_chain_pems[0].write_to_path(str(certificate))
        signed.private_key_pem.write_to_path(str(key))
        return certificate, key


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


async def test_who_is_not_trusted(redis_server_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of another authority or another name, an operator without a certificate."""
    for variable, _, _ in table():
        monkeypatch.delenv(variable, raising=False)
    authority, other = Authority(tmp_path / "pki"), Authority(tmp_path / "other")
    server, port = tls_server(redis_server_binary, authority, "redis.example")
    certificate, key = authority.issue("operator", "operator.example")
    shown = {"redis_cert_file": certificate, "redis_key_file": key}

    async def answers(**settings: Any) -> bool:
        store = Store(Settings.load(redis_url=f"rediss://127.0.0.1:{port}", **settings), Metrics())
        try:
            return await store.probe()
        finally:
            await store.close()

    with server:
        assert await answers(redis_ca_file=authority.ca, redis_verify="ca", **shown)
        assert await answers(redis_verify="none", **shown)
        assert not await answers(redis_ca_file=authority.ca, **shown), "its certificate names another host"
        assert not await answers(redis_ca_file=other.ca, redis_verify="ca", **shown), "another authority signed it"
        assert not await answers(redis_verify="ca", **shown), "the system's authorities did not sign it"
        assert not await answers(redis_ca_file=authority.ca, redis_verify="ca"), "it asks for a certificate"
