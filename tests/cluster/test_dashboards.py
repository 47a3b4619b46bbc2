"""Dashboards and recording rules on a real Prometheus that scrapes a real operator: every query finds something."""

import json
import math
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from circuitbreaker_contract.state import Decision, Outcome
from circuitbreaker_local.processes import free_port
from circuitbreaker_local.prometheus_binary import find_prometheus
from tests.client_around.programs import program
from tests.cluster.world import Fleet, OperatorProcess, World

MONITORING = Path(__file__).parents[2] / "manifests" / "components" / "monitoring"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
BREAKERS = ("closed", "forced", "half", "observed", "open")
# Its tile is three minutes wide; here it is two seconds, so that a day is known at once.
RECORDING = (
    (MONITORING / "recording-rules.yaml").read_text().replace("3m]", "5s]").replace("interval: 3m", "interval: 2s")
)
ALERTS = (MONITORING / "alerts.yaml").read_text()


class Grafana:
    """Does with a dashboard what Grafana does: puts values for variables, and asks Prometheus."""

    def __init__(self, prometheus: httpx.Client, began: float) -> None:
        self.prometheus, self.began = prometheus, began

    def ask(self, path: str, **parameters: Any) -> Any:
        answer = self.prometheus.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", (answer, parameters)
        return answer["data"]

    def values_of(self, expression: str, variables: dict[str, str]) -> list[str]:
        """What `label_values(selector, label)` offers."""
        selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", expression).groups()
        return self.ask(f"label/{label}/values", **{"match[]": filled(selector, variables)})

    def points(self, target: dict[str, Any], variables: dict[str, str]) -> list[tuple[dict[str, str], list[float]]]:
        """(labels, numbers that are numbers) of each series that has any."""
        expression = filled(target["expr"], variables)
        now = time.time()
        if target["instant"]:
            series = [(each["metric"], [each["value"]]) for each in self.ask("query", query=expression)["result"]]
        else:
            found = self.ask("query_range", query=expression, start=self.began, end=now, step=1)["result"]
            series = [(each["metric"], each["values"]) for each in found]
        numbers = [(labels, [float(value) for _, value in values]) for labels, values in series]
        kept = [(labels, [each for each in values if math.isfinite(each)]) for labels, values in numbers]
        return [(labels, values) for labels, values in kept if values]


def filled(text: str, variables: dict[str, str]) -> str:
    """Longest names first: `$name` begins `$namespace`."""
    for name in sorted(variables, key=len, reverse=True):
        text = text.replace(f"${name}", variables[name])
    assert "$" not in text, text
    return text


def scraping(operator: OperatorProcess) -> dict[str, Any]:
    """As service-monitor.yaml has it, once a second."""
    (endpoint,) = yaml.safe_load((MONITORING / "service-monitor.yaml").read_text())["spec"]["endpoints"]
    job = {"job_name": "circuitbreaker-operator", "metrics_path": endpoint["path"], "scrape_interval": "1s"}
    job["honor_labels"] = endpoint["honorLabels"]
    # What the Prometheus operator puts on every target.
    job["static_configs"] = [
        {"targets": [f"127.0.0.1:{operator.port}"], "labels": {"namespace": "circuitbreaker-system", "pod": "a"}}
    ]
    return {
        "global": {"evaluation_interval": "1s"},
        "scrape_configs": [job],
        "rule_files": ["recording.yaml", "alerts.yaml"],
    }


def bring_about(world: World) -> None:
    """A breaker in each state, with calls of each kind."""
    fine = {"failureThreshold": 3, "successThreshold": 50}
    world.create(
        "closed", failureThreshold=1000, minimumCalls=4, failureRatePercent=90,
        slowCallDuration="1s", slowCallRatePercent=90,
    )  # fmt: skip
    world.create("open", recoveryTimeout="1h", **fine)
    world.create("half", recoveryTimeout="500ms", **fine)
    world.create("forced", override={"state": "Open", "reason": "maintenance"})
    world.create("observed", mode="Observe", recoveryTimeout="1h", **fine)
    world.until_ready(*BREAKERS)
    world.redis.hset(world.keys.states, f"{world.namespace}/nobody", "Open")  # for a sweep to find
    world.fleet("closed").report(("S", 5), ("F", 2), ("L", 1), ("I", 1))
    world.fleet("observed").report(("F", 3), ("S", 1))
    world.fleet("open").open()
    half = world.fleet("half")
    half.open()
    world.until_state("half", "HalfOpen")
    half.acquire("lease-000000000001")
    half.settle("lease-000000000001", Outcome.SUCCESS)


def keep_calling(closed: Fleet, *refusing: Fleet) -> None:
    """Some more calls, so that all counters are seen to move."""
    closed.report(("S", 2), ("F", 1))
    for fleet in refusing:
        assert fleet.acquire("lease-000000000002").decision is Decision.NOT_PERMITTED


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


@pytest.fixture
def grafana(world: World, stack: ExitStack, tmp_path: Path) -> Grafana:
    began = time.time()
    operator = stack.enter_context(world.operator(STATUS_REFRESH="1s", SWEEP_INTERVAL="1s")).wait_ready()
    for name, text in (("recording.yaml", RECORDING), ("alerts.yaml", ALERTS)):
        (tmp_path / name).write_text(yaml.safe_dump(yaml.safe_load(text)["spec"]))
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(scraping(operator)))
    words = [
        find_prometheus(),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    running = program(words, tmp_path, tmp_path / "prometheus.log", {}, port, "/-/ready")
    return Grafana(stack.enter_context(running), began)


def test_every_query_finds_something(world: World, grafana: Grafana) -> None:
    """Each query of each panel, with each value that the variables offer; then the states are those of the breakers."""
    world.until(lambda: grafana.ask("query", query="circuitbreaker_operator_leader")["result"], "a first scrape", 30)
    bring_about(world)
    callers = [world.fleet(name) for name in ("closed", "open", "forced")]
    callers[0].seqs["a"] = 1
    missing: list[str] = []

    def all_there() -> bool:
        keep_calling(*callers)
        missing[:] = [each for path in DASHBOARDS for each in unanswered(json.loads(path.read_text()), grafana)]
        return not missing

    try:
        world.until(all_there, "every query to find something", 60)
    except Exception as error:
        raise AssertionError("\n".join(missing)) from error

    whole = json.loads((MONITORING / "dashboards" / "circuitbreaker-overview.json").read_text())
    variables = {"namespace": world.namespace, "__range": "60s"}  # others' breakers may not be gone yet
    timeline = next(panel for panel in whole["panels"] if panel["title"] == "States")
    last = {labels["name"]: values[-1] for labels, values in grafana.points(timeline["targets"][0], variables)}
    assert last == {"forced": 2, "half": 1, "open": 2}
    counts = {
        labels["state"]: values[-1] for labels, values in grafana.points(whole["panels"][0]["targets"][0], variables)
    }
    assert counts == {"Closed": 2, "HalfOpen": 1, "Open": 2}
    rules = [rule for group in grafana.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == 13
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    ratio = f'namespace_name:circuitbreaker_availability:ratio1d{{namespace="{world.namespace}"}}'
    shares = grafana.ask("query", query=ratio)["result"]
    share = {each["metric"]["name"]: float(each["value"][1]) for each in shares}
    assert set(share) == set(BREAKERS)
    assert (share["closed"], share["observed"]) == (1, 1)
    assert share["open"] < 0.5
    assert 0 < share["half"] <= 1


def unanswered(dashboard: dict[str, Any], grafana: Grafana) -> Iterator[str]:
    """Each variable that offers nothing, and each query without a number, whatever is chosen."""
    chosen = [{"__rate_interval": "10s", "__range": "60s"}]
    for each in dashboard["templating"]["list"]:
        if each["type"] != "query":
            continue
        offered = [grafana.values_of(each["query"]["query"], variables) for variables in chosen]
        if not any(offered):
            yield f"{dashboard['title']}: {each['name']} offers nothing"
            return
        chosen = [
            variables | {each["name"]: value}
            for variables, values in zip(chosen, offered, strict=True)
            for value in ([f"({'|'.join(values)})"] if each["multi"] else values)
        ]
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            if not any(grafana.points(target, variables) for variables in chosen):
                yield f"{dashboard['title']}: {panel['title']}: {target['expr']}"
