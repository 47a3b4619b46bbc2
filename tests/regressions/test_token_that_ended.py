"""The credentials of a kubeconfig were read once: when a token had ended, nothing was written any more."""

from pathlib import Path

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient

from circuitbreaker_operator.cluster import Cluster
from circuitbreaker_operator.credentials import Credentials
from circuitbreaker_operator.errors import ClusterUnavailableError, SettingsError
from tests.kubeconfig import kubeconfig_with


async def test_a_token_file_that_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request is refused, the next one has the new token; nobody reads the file with each refusal."""
    valid, loads, token = ["one"], [0], tmp_path / "token"

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {valid[0]}":
            return web.json_response({"kind": "Status", "reason": "Unauthorized"}, status=401)
        return web.json_response({"metadata": {"uid": "u"}})

    class Counted(Credentials):
        async def client(self) -> ApiClient:
            loads[0] += 1
            return await super().client()

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    path, user = tmp_path / "config", {"tokenFile": str(token)}
    kubeconfig_with(path, cluster={"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}, user=user)
    monkeypatch.setenv("KUBECONFIG", str(path))
    token.write_text("one", encoding="utf-8")
    credentials = Counted()
    cluster = Cluster(credentials, await credentials.client(), says=False)
    assert await cluster.namespace_uid("a") == "u"
    valid[0] = "two"
    token.write_text("two", encoding="utf-8")
    with pytest.raises(ClusterUnavailableError):
        await cluster.namespace_uid("a")
    assert await cluster.namespace_uid("a") == "u"
    valid[0] = "three"
    for _ in range(3):
        with pytest.raises(ClusterUnavailableError):
            await cluster.namespace_uid("a")
    assert loads[0] == 2
    kubeconfig_with(path, cluster={"server": "https://another"}, user=user)
    with pytest.raises(SettingsError, match="started again"):
        await credentials.client()
    await cluster.close()
    await runner.cleanup()
