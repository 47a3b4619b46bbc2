"""A 200 that is none of the API server's (a page of what stands before it) ended the operator, or its lease."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_operator.cluster import Cluster
from circuitbreaker_operator.credentials import Credentials
from circuitbreaker_operator.errors import ClusterUnavailableError
from tests.unit.breakers import a_resource

KEY = BreakerKey("shop", "pay")
BODIES = (b"<html>under maintenance</html>", b"", b"null", b"[]", b'"ok"', b'{"kind":"Lis', b"\xff")
REQUESTS: dict[str, Callable[[Cluster], Awaitable[Any]]] = {
    "owner": lambda cluster: cluster.namespace_uid("kube-system"),
    "kind": lambda cluster: cluster.serves_circuitbreakers(),
    "list": lambda cluster: cluster.list_all(()),
    "get": lambda cluster: cluster.get(KEY),
    "status": lambda cluster: cluster.patch_status(a_resource(), {"state": "Open"}),
    "lease": lambda cluster: cluster.get_lease("system", "operator"),
    "renewal": lambda cluster: cluster.update_lease("system", "operator", {}),
}


@pytest.fixture
async def page() -> AsyncIterator[tuple[Cluster, list[bytes]]]:
    """Something that answers all requests alike."""
    body = [b""]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body[0])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    cluster = Cluster(Credentials(), ApiClient(configuration), says=False)
    yield cluster, body
    await cluster.close()
    await runner.cleanup()


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_it_is_an_outage(page: tuple[Cluster, list[bytes]], request_: Any) -> None:
    cluster, body = page
    for body[0] in BODIES:
        with pytest.raises(ClusterUnavailableError):
            await request_(cluster)
        assert not cluster.answers
