"""Each example as a process, with a real Redis and a backend that fails and comes back."""

import sys
from contextlib import contextmanager

import pytest
import redis

from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Totals
from circuitbreaker_local.processes import Process, free_port
from tests.client_around.programs import EXAMPLES, environment, program, retry_after, service
from tests.client_around.waiting import until

FLASK = [sys.executable, "-m", "flask", "--app", "flask_service", "run", "--no-reload", "--port"]


@contextmanager
def running(name: str, log, variables):
    """The web service of that name."""
    if name == "fastapi_service":
        with service("fastapi_service:app", EXAMPLES, log, variables, "/health") as client:
            yield client
    else:
        port = free_port()
        with program([*FLASK, str(port)], EXAMPLES, log, variables, port, "/health") as client:
            yield client


@pytest.mark.parametrize("name", ["fastapi_service", "flask_service"])
def test_a_refusal_becomes_503(name: str, shared_redis, server, tmp_path) -> None:
    """200, then 502 for each failure, then 503 with Retry-After, seen in health and metrics; at its end 200 again.

    A 404 is a 502 too, and no failure: the backend is there.
    """
    variables = {
        "CB_REDIS_URL": shared_redis.url,
        "CB_DEFINE_MISSING": "true",
        "CB_NAMESPACE": "shop",
        "CB_RECOVERY_TIMEOUT": "1500ms",
        "CB_HALF_OPEN_LIMIT": 1,
        "CB_REDIS_TIMEOUT": "2s",
        "BACKEND_URL": server.url,
    }
    breaker = f"shop/{'payments' if name == 'flask_service' else server.breaker.removeprefix('default/')}"
    with running(name, tmp_path / "log", variables) as client:
        assert client.get("/charge").json() == {"backend": "ok"}
        server.status = 404
        assert [client.get("/charge").status_code for _ in range(7)] == [502] * 7
        assert client.get("/health").json()["metrics"]["calls"]["failures"] == 0
        server.status = 500
        statuses = [client.get("/charge").status_code for _ in range(5)]
        assert statuses == [502] * 5
        until(lambda: client.get("/charge").status_code == 503, "it to open")
        served = server.served
        refused = client.get("/charge")
        assert refused.status_code == 503
        assert 1 <= retry_after(refused) <= 2
        assert refused.json() == {"error": f"{breaker} is not available"}
        assert server.served == served
        health = client.get("/health").json()
        assert (health["status"], health["open_circuits"]) == ("degraded", [breaker])
        metrics = client.get("/metrics/circuit_breaker")
        assert metrics.status_code == 200
        labels = f'name="{breaker.removeprefix("shop/")}",namespace="shop",state="Open"'
        assert f"circuitbreaker_client_state{{{labels}}} 1.0" in metrics.text
        server.status = 200
        until(lambda: client.get("/charge").status_code == 200, "it to close again")
        until(lambda: client.get("/health").json()["status"] == "healthy", "health to say so")


def test_the_client_by_plain_calls(shared_redis, server, tmp_path) -> None:
    """It reports, stops when the breaker opens, and closes it by a probe. A 404 opens nothing."""
    key = "cb:{default/payments}"
    policy = Policy(
        failure_threshold=3, recovery_timeout_ms=500, half_open_limit=1, success_threshold=1, probe_timeout_ms=5_000
    )
    command = [sys.executable, "without_a_client.py", "service-1", key, server.host]
    with redis.Redis.from_url(shared_redis.url, decode_responses=True) as client:
        client.function_load(library.source())
        define = protocol.configure(key, owner="test", uid="uid-1", generation=1, policy=policy)
        client.fcall(define.function, len(define.keys), *define.keys, *define.args)

        def state() -> str | None:
            return client.hget("circuit_breaker_states", "default/payments")

        def totals() -> Totals:
            observe = protocol.observe(key)
            return observe.read(client.fcall(observe.function, len(observe.keys), *observe.keys, *observe.args)).totals

        log = tmp_path / "log"
        with Process(command, log=log, env=environment(REDIS_URL=shared_redis.url), cwd=EXAMPLES) as process:
            server.status = 404
            until(lambda: totals().successes >= 8, "404s to be reported")
            assert totals().failures == 0
            server.status = 500
            until(lambda: state() == "Open", "it to open")
            server.status = 200
            until(lambda: state() == "Closed", "it to close")
            assert process.alive, process.obituary()
            until(lambda: "the breaker is Closed" in log.read_text().splitlines()[-1], "it to say so")
    assert "service-1: the breaker is Open, refusing calls for" in log.read_text()
