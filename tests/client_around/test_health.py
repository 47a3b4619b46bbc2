"""`check_health()`: what is in it, and that it costs no round trip."""

import json
from contextlib import suppress

import pytest

from circuitbreaker_client import CallNotPermittedError, CircuitBreakerHealth, CircuitBreakers
from tests.client_around.waiting import until


class BackendError(Exception):
    pass


def fail() -> None:
    raise BackendError


def fails(breakers: CircuitBreakers, name: str, times: int) -> None:
    for _ in range(times):
        with suppress(BackendError):
            breakers[name].call(fail)


def test_nothing_yet(breakers) -> None:
    assert CircuitBreakerHealth(breakers).check_health() == {
        "status": "healthy",
        "metrics": {
            "circuits": {"total": 0, "closed": 0, "open": 0, "half_open": 0},
            "calls": {"permitted": 0, "not_permitted": 0, "failures": 0, "ignored": 0},
            "error_rate_percent": None,
            "reports": {"acknowledged": 0, "buffered": 0, "dropped": 0},
            "without_shared_state": [],
        },
        "open_circuits": [],
    }


def test_an_open_circuit_degrades(breakers) -> None:
    """Two breakers, one of them open: it is named, and every call is counted once."""
    health = CircuitBreakerHealth(breakers)
    fails(breakers, "payments", 5)
    for _ in range(15):
        breakers["search"].call(str)
    breakers.flush()
    until(lambda: breakers["payments"].state == "Open", "payments to open")
    with pytest.raises(CallNotPermittedError):
        breakers["payments"].call(str)
    breakers.flush()
    until(lambda: health.check_health()["metrics"]["reports"]["acknowledged"] == 21, "all to be acknowledged")
    found = health.check_health()
    assert found == {
        "status": "degraded",
        "metrics": {
            "circuits": {"total": 2, "closed": 1, "open": 1, "half_open": 0},
            "calls": {"permitted": 20, "not_permitted": 1, "failures": 5, "ignored": 0},
            "error_rate_percent": 25.0,
            "reports": {"acknowledged": 21, "buffered": 0, "dropped": 0},
            "without_shared_state": [],
        },
        "open_circuits": ["default/payments"],
    }
    assert json.loads(json.dumps(found)) == found


def test_without_redis(redis_server, options) -> None:
    """Shared state that is gone degrades; the question itself is answered at once, Redis or not."""
    with CircuitBreakers(
        **{**options, "redis_url": redis_server.url, "redis_timeout_seconds": 0.1, "max_staleness_seconds": 1.0}
    ) as breakers:
        health = CircuitBreakerHealth(breakers)
        breakers["payments"].call(str)
        breakers.flush()
        assert health.check_health()["status"] == "healthy"
        redis_server.kill()
        breakers["payments"].call(str)
        until(lambda: health.check_health()["status"] == "degraded", "the loss to be noticed", 15)
        found = health.check_health()
        assert found["metrics"]["without_shared_state"] == ["default/payments"]
        assert found["open_circuits"] == []
