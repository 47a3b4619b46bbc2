"""A Flask service whose calls to a backend are protected: a refusal becomes 503 with `Retry-After`.

    pip install '.[requests,prometheus]' flask     # in a clone; not on PyPI yet
    BACKEND_URL=http://localhost:9000 flask --app examples/flask_service run --port 8000

Fit for forking servers: `gunicorn -w 4 --chdir examples flask_service:app`, with or without `--preload`.
"""

import math
import os
from typing import Any

import requests
from flask import Flask, Response, jsonify
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from circuitbreaker_client import CallNotPermittedError, CircuitBreakerHealth, CircuitBreakers
from circuitbreaker_client.prometheus import MetricsWsgiApp
from circuitbreaker_client.requests import server_error

breakers = CircuitBreakers.from_env()  # sends nothing before the first call
health = CircuitBreakerHealth(breakers)

app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
    app.wsgi_app, {"/metrics/circuit_breaker": MetricsWsgiApp(breakers)}
)


@breakers["payments"](failure=(requests.RequestException,), result=server_error)
def charge_backend() -> requests.Response:
    """The protected call: no answer is a failure, and so is a status of 500 and more. A 404 is an answer."""
    return requests.get(f"{os.environ['BACKEND_URL']}/charge", timeout=2.0)


@app.errorhandler(CallNotPermittedError)
def not_permitted(error: CallNotPermittedError) -> Response:
    """Once for the whole service. Without an end (a person holds the breaker open) there is no Retry-After."""
    response = jsonify(error=f"{error.breaker} is not available")
    response.status_code = 503
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    return response


@app.errorhandler(requests.RequestException)
def failed(error: requests.RequestException) -> tuple[Response, int]:
    """The backend was called, and what it said is of no use."""
    return jsonify(error=str(error)), 502


@app.get("/charge")
def charge() -> dict[str, str]:
    """A call to the backend."""
    answer = charge_backend()
    answer.raise_for_status()
    return {"backend": answer.text}


@app.get("/health")
def show_health() -> dict[str, Any]:
    """For people and dashboards; not a readiness probe."""
    return health.check_health()
