"""A small service on port 8000 that asks an upstream through a breaker, and needs no Kubernetes.

| path | what |
|---|---|
| `POST /ask` | asks the upstream: its answer; 502 when it fails; 503 with `Retry-After` while it is not to be called |
| `GET /health` | status, metrics, open circuits |
| `GET /metrics/circuit_breaker` | for Prometheus |
"""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from circuitbreaker_client import AsyncCircuitBreakers, CallNotPermittedError, CircuitBreakerHealth
from circuitbreaker_client.httpx import server_error
from circuitbreaker_client.prometheus import MetricsApp

breakers = AsyncCircuitBreakers.from_env()
health = CircuitBreakerHealth(breakers)
upstream = httpx.AsyncClient(base_url=os.environ.get("UPSTREAM_URL", "http://localhost:9000"), timeout=2.0)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """At the end the last outcomes are reported."""
    async with breakers, upstream:
        yield


app = FastAPI(title="mcp-app", lifespan=lifespan)
app.add_route("/metrics/circuit_breaker", MetricsApp(breakers))


@breakers["upstream"](failure=(httpx.HTTPError,), result=server_error)
async def ask_upstream() -> httpx.Response:
    """The one call that needs protection. A status of 500 and more is a failure as well as no answer; a 404 is none."""
    return await upstream.get("/answer")


@app.post("/ask")
async def ask() -> dict[str, str]:
    """What the upstream says."""
    answer = await ask_upstream()
    answer.raise_for_status()
    return {"answer": answer.text}


@app.exception_handler(CallNotPermittedError)
async def not_permitted(_: Request, error: CallNotPermittedError) -> JSONResponse:
    """Refused without a call."""
    wait = error.retry_after_seconds
    headers = {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
    return JSONResponse({"error": "the upstream is not available"}, status_code=503, headers=headers)


@app.exception_handler(httpx.HTTPError)
async def failed(_: Request, error: httpx.HTTPError) -> JSONResponse:
    """Called, and what it said is of no use."""
    return JSONResponse({"error": str(error)}, status_code=502)


@app.get("/health")
async def show_health() -> dict[str, Any]:
    """For people and dashboards; an open circuit is no reason to restart the service."""
    return health.check_health()
