"""examples/mcp-app: what its compose file starts, as processes on loopback, scraped by a real Prometheus."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from circuitbreaker_local.processes import free_port
from circuitbreaker_local.prometheus_binary import find_prometheus
from tests.client_around.programs import EXAMPLES, command_of, program, retry_after, service
from tests.client_around.waiting import until

APP = EXAMPLES / "mcp-app"
COMPOSE = yaml.safe_load((APP / "compose.yaml").read_text())
PROMETHEUS = yaml.safe_load((APP / "prometheus.yml").read_text())
SCRAPE_SECONDS = 20.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def settings(redis_url: str, upstream: httpx.Client) -> dict[str, Any]:
    """The environment of compose.yaml, with this machine's addresses for the names of compose's network."""
    given = COMPOSE["services"]["mcp-app"]["environment"]
    moved = {"redis://redis:6379/0": redis_url, "http://upstream:9000": str(upstream.base_url)}
    ours = {name: moved.get(value, value) for name, value in given.items()}
    assert {name for name in given if ours[name] != given[name]} == {"CB_REDIS_URL", "UPSTREAM_URL"}
    return ours | {"CB_REDIS_TIMEOUT": "2s"}  # a busy machine is no outage, and not what is tested here


@contextmanager
def prometheus(config: dict[str, Any], folder: Path) -> Iterator[httpx.Client]:
    """A Prometheus with this configuration."""
    port = free_port()
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    words = [
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with program([find_prometheus(), *words], folder, folder / "prometheus.log", {}, port, "/-/ready") as client:
        yield client


def query(client: httpx.Client, expression: str) -> list[tuple[dict[str, str], str]]:
    """(labels, value) of each series."""
    answer = client.get("/api/v1/query", params={"query": expression}).json()
    return [(each["metric"], each["value"][1]) for each in answer["data"]["result"]]


def test_what_compose_says() -> None:
    """The names and numbers that other things rely on; what the image starts is what the test below starts."""
    app = COMPOSE["services"]["mcp-app"]
    wanted = {
        "CB_FAILURE_THRESHOLD": 5,
        "CB_RECOVERY_TIMEOUT": 30,
        "CB_HALF_OPEN_LIMIT": 3,
        "CB_STATE_SYNC": "true",
        "CB_DEFINE_MISSING": "true",
    }
    assert wanted.items() <= app["environment"].items()
    assert app["ports"] == ["8000:8000"]
    assert set(COMPOSE["services"]) == {"mcp-app", "upstream", "redis", "prometheus"}
    (job,) = PROMETHEUS["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("circuit_breaker", "/metrics/circuit_breaker")
    assert job["static_configs"] == [{"targets": ["mcp-app:8000"]}]
    tail = ["--host", "0.0.0.0", "--port"]
    assert command_of(APP / "Dockerfile") == ["uvicorn", "app:app", *tail, "8000"]
    assert COMPOSE["services"]["upstream"]["command"] == ["uvicorn", "upstream:app", *tail, "9000"]
    mount = "./prometheus.yml:/etc/prometheus/prometheus.yml:ro"
    assert COMPOSE["services"]["prometheus"]["volumes"] == [mount]


def test_the_image_holds_what_the_app_imports() -> None:
    """What the Dockerfile copies and installs, against the files of the example."""
    text = (APP / "Dockerfile").read_text()
    assert all(f"examples/mcp-app/{file.name}" in text for file in APP.glob("*.py"))
    assert "pip install --no-cache-dir '/src[prometheus]' fastapi httpx uvicorn" in text
    build = COMPOSE["services"]["mcp-app"]["build"]
    assert (APP / build["context"]).resolve() == EXAMPLES.parent
    assert (EXAMPLES.parent / build["dockerfile"]).samefile(APP / "Dockerfile")


def test_two_copies_share_a_breaker_and_prometheus_sees_it(shared_redis, stack, tmp_path) -> None:
    """The upstream fails: one copy opens the breaker, both refuse, health and Prometheus say so."""
    ports = [free_port(), free_port()]
    targets = [f"127.0.0.1:{port}" for port in ports]
    config = copy.deepcopy(PROMETHEUS)
    config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    watching = stack.enter_context(prometheus(config, tmp_path))  # first: it takes some seconds to look for targets
    upstream = stack.enter_context(service("upstream:app", APP, tmp_path / "upstream.log", {}, "/answer"))
    variables = settings(shared_redis.url, upstream)
    first, second = (
        stack.enter_context(service("app:app", APP, tmp_path / f"app-{port}.log", variables, "/health", port))
        for port in ports
    )
    for client in (first, second):
        assert client.post("/ask").json() == {"answer": "forty-two"}
        assert client.get("/health").json()["status"] == "healthy"
    assert upstream.post("/mood/failing").status_code == 204
    assert [first.post("/ask").status_code for _ in range(5)] == [502] * 5
    until(lambda: second.post("/ask").status_code == 503, "the other copy to refuse")
    for client in (first, second):
        refused = client.post("/ask")
        assert refused.status_code == 503
        assert 25 <= retry_after(refused) <= 30
        health = client.get("/health").json()
        assert (health["status"], health["open_circuits"]) == ("degraded", ["default/upstream"])

    is_open = 'circuitbreaker_client_state{job="circuit_breaker",namespace="default",name="upstream",state="Open"} == 1'
    until(lambda: len(query(watching, is_open)) == 2, "Prometheus to see both Open", SCRAPE_SECONDS)
    assert sorted(labels["instance"] for labels, _ in query(watching, is_open)) == sorted(targets)
    failures = f'sum(circuitbreaker_client_calls_total{{instance="{targets[0]}",outcome="failure"}})'
    until(lambda: query(watching, failures) == [({}, "5")], "the failures to be counted", SCRAPE_SECONDS)
    assert {value for _, value in query(watching, 'up{job="circuit_breaker"}')} == {"1"}


def test_an_answer_is_no_failure(stack, server, tmp_path) -> None:
    """An upstream that says 404 is there: what is wrong is the question."""
    server.status = 404
    variables = {"UPSTREAM_URL": server.url, "CB_STATE_SYNC": "false"}
    app = stack.enter_context(service("app:app", APP, tmp_path / "app.log", variables, "/health"))
    assert [app.post("/ask").status_code for _ in range(7)] == [502] * 7
    assert app.get("/health").json()["metrics"]["calls"]["failures"] == 0


def test_without_sync_every_process_is_alone(stack, tmp_path) -> None:
    """CB_STATE_SYNC=false: no Redis at all, and what one copy knows the other does not."""
    upstream = stack.enter_context(service("upstream:app", APP, tmp_path / "upstream.log", {}, "/answer"))
    variables = {
        **settings("redis://127.0.0.1:1/0", upstream),
        "CB_STATE_SYNC": "false",
    }
    first, second = (
        stack.enter_context(service("app:app", APP, tmp_path / f"app-{number}.log", variables, "/health"))
        for number in (1, 2)
    )
    upstream.post("/mood/failing")
    assert [first.post("/ask").status_code for _ in range(6)] == [502] * 5 + [503]
    assert second.post("/ask").status_code == 502
    assert second.get("/health").json()["status"] == "healthy"
