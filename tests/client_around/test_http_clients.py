"""httpx, requests and aiohttp, each with a real server: one breaker a host, the same rules in all of them."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from circuitbreaker_client import CallNotPermittedError, Outcome, State
from circuitbreaker_client.aiohttp import CircuitBreakerMiddleware
from circuitbreaker_client.httpx import AsyncCircuitBreakerTransport, CircuitBreakerTransport
from circuitbreaker_client.requests import CircuitBreakerAdapter

TIMEOUT_SECONDS = 0.3


@dataclass
class Client:
    """`get` makes one request and gives the status; `statistics` are of the breaker with that name."""

    get: Callable[[str], Awaitable[int]]
    breakers: Any

    def outcomes(self, name: str) -> dict[str, int]:
        return {letter.name: count for letter, count in self.breakers.statistics()[name].outcomes.items() if count}


LIBRARIES = ("httpx", "httpx async", "requests", "aiohttp")


@pytest.fixture(params=LIBRARIES)
async def make(request, breakers, async_breakers):
    """Makes a client of the library, with the options of its breaker part."""
    closing = []

    def made(**options: Any) -> Client:
        match request.param:
            case "httpx":
                client = httpx.Client(transport=CircuitBreakerTransport(breakers, **options), timeout=TIMEOUT_SECONDS)
                closing.append(client.close)

                async def get(url: str) -> int:
                    return client.get(url, follow_redirects=True).status_code

                return Client(get, breakers)
            case "httpx async":
                transport = AsyncCircuitBreakerTransport(async_breakers, **options)
                async_client = httpx.AsyncClient(transport=transport, timeout=TIMEOUT_SECONDS)
                closing.append(async_client.aclose)

                async def get(url: str) -> int:
                    return (await async_client.get(url, follow_redirects=True)).status_code

                return Client(get, async_breakers)
            case "requests":
                session = requests.Session()
                session.mount("http://", CircuitBreakerAdapter(breakers, **options))
                closing.append(session.close)

                async def get(url: str) -> int:
                    return session.get(url, timeout=TIMEOUT_SECONDS).status_code

                return Client(get, breakers)
            case _:
                web = aiohttp.ClientSession(
                    middlewares=(CircuitBreakerMiddleware(async_breakers, **options),),
                    timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
                )
                closing.append(web.close)

                async def get(url: str) -> int:
                    async with web.get(url) as response:
                        return response.status

                return Client(get, async_breakers)

    yield made
    for close in closing:
        closed = close()
        if closed is not None:
            await closed


async def flush(client: Client) -> None:
    flushed = client.breakers.flush()
    if flushed is not None:
        await flushed


async def opened(client: Client, url: str) -> None:
    """Calls until it is refused; five failures in a row do it."""
    for _ in range(5):
        await client.get(url)
    await flush(client)


async def test_server_errors_open_the_breaker_of_their_host(make, server, shared_state) -> None:
    """Five answers of 500 and more: the sixth request does not leave, and says when to come back."""
    client = make()
    server.status = 503
    await opened(client, f"{server.url}/charge")
    with pytest.raises(CallNotPermittedError) as refused:
        await client.get(f"{server.url}/charge")
    assert refused.value.breaker == server.breaker
    assert 25 < refused.value.retry_after_seconds <= 30
    assert server.served == 5
    assert shared_state(server.breaker) == "Open"


async def test_what_the_backend_answers_to_the_caller_is_no_failure(make, server) -> None:
    """404 is the caller's mistake; the backend works."""
    client = make()
    server.status = 404
    for _ in range(6):
        assert await client.get(f"{server.url}/charge") == 404
    await flush(client)
    assert client.outcomes(server.breaker) == {"SUCCESS": 6}


async def test_a_redirect_is_a_call_of_its_own(make, server) -> None:
    client = make()
    assert await client.get(f"{server.url}/redirect") == 200
    await flush(client)
    assert client.outcomes(server.breaker) == {"SUCCESS": 2}


async def test_nobody_listens(make) -> None:
    """An error of the transport counts, and reaches the caller as the library's own."""
    client = make()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises((httpx.ConnectError, requests.ConnectionError, aiohttp.ClientConnectionError)):
        await client.get(f"http://127.0.0.1:{port}/")
    await flush(client)
    assert client.outcomes(f"default/127.0.0.1-{port}") == {"FAILURE": 1}


async def test_a_timeout_counts(make, server) -> None:
    client = make()
    server.silent.set()
    with pytest.raises((httpx.ReadTimeout, requests.Timeout, TimeoutError)):
        await client.get(f"{server.url}/charge")
    await flush(client)
    assert client.outcomes(server.breaker) == {"FAILURE": 1}


async def test_the_classifier_can_be_set(make, server) -> None:
    """`is_failure` judges answers; `name` says which breaker it is."""
    client = make(is_failure=lambda _: True, name=lambda _: "shop/payments")
    assert await client.get(f"{server.url}/charge") == 200
    await flush(client)
    assert client.outcomes("shop/payments") == {"FAILURE": 1}
    assert list(client.breakers) == ["shop/payments"]


async def test_exceptions_can_be_ignored(make, server) -> None:
    client = make(ignore=(Exception,))
    server.silent.set()
    with pytest.raises((httpx.ReadTimeout, requests.Timeout, TimeoutError)):
        await client.get(f"{server.url}/charge")
    await flush(client)
    assert client.outcomes(server.breaker) == {"IGNORED": 1}


async def test_one_host_does_not_stop_another(make, server) -> None:
    """`127.0.0.1` and `localhost` are two hosts here."""
    client = make()
    server.status = 500
    await opened(client, f"{server.url}/charge")
    server.status = 200
    assert await client.get(f"http://localhost:{server.port}/charge") == 200
    assert client.breakers[server.breaker].state is State.OPEN


async def test_a_free_connection_is_not_the_hosts_business(breakers, server) -> None:
    """httpx: a pool without a free connection says nothing about the backend."""
    limits = httpx.Limits(max_connections=1)
    transport = CircuitBreakerTransport(breakers, httpx.HTTPTransport(limits=limits))
    timeout = httpx.Timeout(TIMEOUT_SECONDS, pool=0.05)
    with (
        httpx.Client(transport=transport, timeout=timeout) as client,
        client.stream("GET", server.url),
        pytest.raises(httpx.PoolTimeout),
    ):
        client.get(server.url)
    breakers.flush()
    outcomes = breakers.statistics()[server.breaker].outcomes
    assert (outcomes[Outcome.SUCCESS], outcomes[Outcome.IGNORED], outcomes[Outcome.FAILURE]) == (1, 1, 0)
