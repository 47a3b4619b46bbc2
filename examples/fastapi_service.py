"""A FastAPI service whose calls to a backend are protected: a refusal becomes 503 with `Retry-After`.

    pip install '.[httpx,prometheus]' fastapi uvicorn     # in a clone; not on PyPI yet
    BACKEND_URL=http://localhost:9000 uvicorn --app-dir examples fastapi_service:app --port 8000

The same lines serve Starlette: exception handler and routes are its own. `CB_*` variables set up the breakers
(docs/client.md); the breaker is named after the backend's host.
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
from circuitbreaker_client.httpx import AsyncCircuitBreakerTransport
from circuitbreaker_client.prometheus import MetricsApp

breakers = AsyncCircuitBreakers.from_env()  # sends nothing before the first call
health = CircuitBreakerHealth(breakers)


@asynccontextmanager
async def lifespan(service: FastAPI) -> AsyncIterator[None]:
    """One connection pool for the service's life; at its end the last outcomes are reported."""
    backend = httpx.AsyncClient(
        base_url=os.environ["BACKEND_URL"], transport=AsyncCircuitBreakerTransport(breakers), timeout=2.0
    )
    async with breakers, backend:
        service.state.backend = backend
        yield


app = FastAPI(lifespan=lifespan)
app.add_route("/metrics/circuit_breaker", MetricsApp(breakers))


@app.exception_handler(CallNotPermittedError)
async def not_permitted(_: Request, error: CallNotPermittedError) -> JSONResponse:
    """Once for the whole service. Without an end (a person holds the breaker open) there is no Retry-After."""
    wait = error.retry_after_seconds
    headers = {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
    return JSONResponse({"error": f"{error.breaker} is not available"}, status_code=503, headers=headers)


@app.exception_handler(httpx.HTTPError)
async def failed(_: Request, error: httpx.HTTPError) -> JSONResponse:
    """The backend was called, and failed."""
    return JSONResponse({"error": str(error)}, status_code=502)


@app.get("/charge")
async def charge(request: Request) -> dict[str, str]:
    """A call to the backend."""
    answer = await request.app.state.backend.get("/charge")
    answer.raise_for_status()
    return {"backend": answer.text}


@app.get("/health")
async def show_health() -> dict[str, Any]:
    """For people and dashboards; not a readiness probe."""
    return health.check_health()
