"""The command as a person meets it: what it leaves behind, what it asks, and what it says of a bad kubeconfig."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from tests.kubeconfig import kubeconfig_with

from circuitbreaker_operator import cli
from circuitbreaker_operator.credentials import Credentials
from circuitbreaker_operator.errors import SettingsError
from circuitbreaker_operator.web import Web

OPENSSL = shutil.which("openssl")
COMMAND = [sys.executable, "-c", "from circuitbreaker_operator.cli import main; main()"]


def a_kubeconfig(folder: Path) -> Path:
    """One with embedded certificates, of a server that is not there."""
    key, certificate, path = folder / "key", folder / "certificate", folder / "kubeconfig"
    what = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
    made = [OPENSSL or "", *what, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    embedded = {each: base64.b64encode(each.read_bytes()).decode() for each in (key, certificate)}
    cluster = {"server": "https://127.0.0.1:9", "certificate-authority-data": embedded[certificate]}
    user = {"client-certificate-data": embedded[certificate], "client-key-data": embedded[key]}
    return kubeconfig_with(path, cluster=cluster, user=user)


def an_environment(tmp_path: Path) -> tuple[dict[str, str], Path]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    others = {name: value for name, value in os.environ.items() if not name.startswith(("CB_", "KUBE"))}
    ours = {"KUBECONFIG": str(a_kubeconfig(tmp_path)), "TMPDIR": str(temporary), "CB_HTTP_PORT": "0"}
    return others | ours | {"CB_REDIS_URL": "redis://127.0.0.1:9/0", "CB_HTTP_HOST": "127.0.0.1"}, temporary


@pytest.mark.skipif(OPENSSL is None, reason="makes the certificates")
def test_no_key_is_left_behind(tmp_path: Path) -> None:
    """Not while it runs, and not when it has ended; a signal that comes again is one."""
    environment, temporary = an_environment(tmp_path)
    with subprocess.Popen([*COMMAND, "run"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = ""
            while "API server at" not in said:
                line = process.stderr.readline() if process.stderr else ""
                assert line, said
                said += line
            while_running = list(temporary.iterdir())
            process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            while "stopped" not in said and (line := process.stderr.readline() if process.stderr else ""):
                said += line
            while process.poll() is None:  # the interpreter winds up
                process.send_signal(signal.SIGTERM)
                time.sleep(0.002)
            said += process.communicate(timeout=20)[1]
        finally:
            process.kill()
    assert (process.returncode, while_running, list(temporary.iterdir())) == (0, [], []), said
    assert "stopping at once" not in said


@pytest.mark.skipif(OPENSSL is None, reason="makes the certificates")
def test_a_purge_without_an_api_server(tmp_path: Path) -> None:
    """It neither starts nor waits, and leaves no key behind either."""
    environment, temporary = an_environment(tmp_path)
    done = subprocess.run([*COMMAND, "purge"], env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, list(temporary.iterdir())) == (cli.BAD_SETTINGS, [])
    assert "cannot purge" in done.stderr
    assert "cannot start" not in done.stderr
    assert "waiting" not in done.stderr


BAD_KUBECONFIGS = {
    "empty": b"",
    "a word": b"hello",
    "a list": b"- 1",
    "no YAML": b"a: [1\nb: }",
    "no text": b"\xff\xfe\x00\x81",
    "null everywhere": b"clusters: [null]\ncontexts: 5\nusers: {}",
    "no contexts": b"clusters: []",
}


@pytest.mark.parametrize("content", BAD_KUBECONFIGS.values(), ids=BAD_KUBECONFIGS)
async def test_a_kubeconfig_that_is_none(monkeypatch, tmp_path: Path, content: bytes) -> None:
    """One line, whatever the file has."""
    path = tmp_path / "kubeconfig"
    path.write_bytes(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(SettingsError) as raised:
        await Credentials().client()
    assert "KUBECONFIG" in str(raised.value)
    assert "\n" not in str(raised.value)


PROXY = "http://proxy.example:3128"
PROXIES: dict[str, tuple[str, dict[str, str], str | None]] = {
    "none": ("https://api.example:6443", {}, None),
    "for https": ("https://api.example:6443", {"HTTPS_PROXY": PROXY}, PROXY),
    "for http alone": ("https://api.example:6443", {"HTTP_PROXY": PROXY}, None),
    "not for this one": ("https://api.example:6443", {"HTTPS_PROXY": PROXY, "NO_PROXY": "other,api.example"}, None),
    "an address": ("https://10.0.0.1:6443", {"HTTPS_PROXY": PROXY}, PROXY),
    "kind": ("https://127.0.0.1:6443", {"HTTPS_PROXY": PROXY}, None),
    "another of the loopback": ("https://127.8.8.8:6443", {"HTTPS_PROXY": PROXY}, None),
    "its IPv6": ("https://[::1]:6443", {"HTTPS_PROXY": PROXY}, None),
    "kubectl proxy": ("http://localhost:8001", {"HTTP_PROXY": PROXY}, None),
}


@pytest.mark.parametrize(("server", "environment", "proxy"), PROXIES.values(), ids=PROXIES)
async def test_a_proxy_to_the_api_server(monkeypatch, tmp_path: Path, server, environment, proxy: str | None) -> None:
    """Taken from the environment once, and not for the loopback. The session asks for none, nor for ~/.netrc."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    path = kubeconfig_with(tmp_path / "kubeconfig", cluster={"server": server}, user={"token": "secret"})
    monkeypatch.setenv("KUBECONFIG", str(path))
    async with await Credentials().client() as client, client.rest_client._create_pool_manager() as session:
        assert client.configuration.proxy == proxy
        assert session.trust_env is False


async def test_a_kubeconfig_that_is_not_there(monkeypatch) -> None:
    """The path is said as it was given."""
    monkeypatch.setenv("KUBECONFIG", "/nope")
    with pytest.raises(SettingsError, match=r"\AKUBECONFIG: no file at /nope\Z"):
        await Credentials().client()


async def test_no_kubeconfig_at_all(monkeypatch, tmp_path: Path) -> None:
    """What to do about it is said."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.aio.config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"no way to the API server: .*set KUBECONFIG"):
        await Credentials().client()


ANSWERS = {
    "yes": ("y", True),
    "no": ("n", False),
    "Enter": ("", False),
    "Ctrl-D": (EOFError(), False),
    "Ctrl-C": (KeyboardInterrupt(), False),
}


@pytest.mark.parametrize(("answer", "agreed"), ANSWERS.values(), ids=ANSWERS)
def test_the_question(monkeypatch, capsys, answer: str | BaseException, agreed: bool) -> None:
    """Ctrl-C works while it is asked, and whoever does not agree reads that nothing happened."""

    def asked(_: str) -> str:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", asked)
    before = signal.getsignal(signal.SIGINT)
    assert cli._agreed() is agreed
    assert signal.getsignal(signal.SIGINT) is before
    assert ("nothing removed" in capsys.readouterr().err) is not agreed


async def test_the_paths_are_said() -> None:
    """Whoever opens the port in a browser finds the way; other paths are still not found."""
    web = Web(CollectorRegistry(), page=None, checks=dict, health=dict, alive=lambda: True)
    await web.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{web.port}") as session:
            async with session.get("/") as answer:
                lines = (await answer.text()).splitlines()
            async with session.get("/other") as other:
                assert other.status == 404
    finally:
        await web.close()
    paths = ["/health", "/healthz", "/metrics", "/metrics/circuit_breaker", "/readyz"]
    assert (answer.status, lines) == (200, ["circuitbreaker-operator", *paths])
