"""After a 401 two threads read the kubeconfig, and one removed the files that the other had yet to read."""

import asyncio
import base64
import json
import ssl
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kubernetes.aio.client import ApiClient

from circuitbreaker_operator.credentials import Credentials
from circuitbreaker_operator.errors import SettingsError
from tests.authority import Authority
from tests.kubeconfig import kubeconfig_with

ROUNDS = 20


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a certificate and its key in it; what becomes a file is in the folder `made` beside it."""
    authority = Authority(tmp_path / "authority")
    certificate, key = (base64.b64encode(each.read_bytes()).decode() for each in authority.issue("me", "127.0.0.1"))
    ca = base64.b64encode(authority.ca.read_bytes()).decode()
    cluster = {"server": "https://127.0.0.1:1", "certificate-authority-data": ca}
    user = {"client-certificate-data": certificate, "client-key-data": key}
    path = kubeconfig_with(tmp_path / "kubeconfig", cluster=cluster, user=user)
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "made"))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


async def test_everyone_has_a_client_and_no_file_is_left(kubeconfig: Path) -> None:
    credentials = Credentials()

    async def many() -> list[ApiClient]:
        return [await credentials.client() for _ in range(ROUNDS)]

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as threads:
        found = await asyncio.gather(
            *(loop.run_in_executor(threads, asyncio.run, many()) for _ in range(2)), *(many() for _ in range(2))
        )
    assert [len(each) for each in found] == [ROUNDS] * 4
    for client in (client for each in found for client in each):
        assert len(client.rest_client.ssl_context.get_ca_certs()) == 1
    assert [*(kubeconfig.parent / "made").iterdir()] == []


async def test_certificates_that_are_none_leave_no_file(kubeconfig: Path) -> None:
    content = json.loads(kubeconfig.read_text(encoding="utf-8"))
    content["users"][0]["user"]["client-key-data"] = base64.b64encode(b"no key").decode()
    kubeconfig.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SettingsError, match="certificates in the kubeconfig cannot be used") as raised:
        await Credentials().client()
    assert isinstance(raised.value.__cause__, ssl.SSLError)
    assert [*(kubeconfig.parent / "made").iterdir()] == []
