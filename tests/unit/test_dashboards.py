"""The Grafana dashboards as files: Grafana's own schema knows every field, and panels stand where they should.

tests/cluster/test_dashboards.py asks their queries of a real Prometheus.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from scripts import dashboards
from tests.unit.series import shown_series

from circuitbreaker_contract.state import State

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "manifests" / "components" / "monitoring"
FILES = sorted((MONITORING / "dashboards").iterdir())
COLOURS = {"Closed": "#0072B2", "HalfOpen": "#E69F00", "Open": "#D55E00"}

each_dashboard = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def test_they_are_what_the_script_writes() -> None:
    """`make dashboards` was run after the last change of it."""
    assert {file.name: file.read_text(encoding="utf-8") for file in FILES} == dashboards.texts()


def test_they_are_in_the_config_map() -> None:
    kustomization = yaml.safe_load((MONITORING / "kustomization.yaml").read_text(encoding="utf-8"))
    (generator,) = kustomization["configMapGenerator"]
    assert sorted(generator["files"]) == [f"dashboards/{file.name}" for file in FILES]
    assert generator["options"]["labels"]["grafana_dashboard"] == "1"
    assert sum(file.stat().st_size for file in FILES) < 250_000  # kubectl apply keeps it in an annotation of 256 KiB


@each_dashboard
def test_grafana_knows_every_field(file: Path) -> None:
    """Read and written by the classes that Grafana makes from its schema: what they do not know would be gone."""
    plugins.register_default_plugins()
    ours = read(file)
    theirs = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(ours)))
    assert list(lost(ours, theirs)) == []


def lost(ours: Any, theirs: Any, path: str = "") -> Any:
    """Where `theirs` lacks or changes something of `ours`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                # Empty and null mean what absent means.
                if value not in (None, {}, []):
                    yield f"{path}.{key}"
            else:
                yield from lost(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from lost(mine, other, f"{path}[{index}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def test_addresses_are_their_own() -> None:
    """A uid is the address of a dashboard, also in links; the file is named after it."""
    assert [read(file)["uid"] for file in FILES] == [file.stem for file in FILES]
    assert len({read(file)["title"] for file in FILES}) == len(FILES) == 3
    text = "".join(file.read_text(encoding="utf-8") for file in FILES)
    assert set(re.findall(r'"/d/([\w-]+)', text)) <= {file.stem for file in FILES}


@each_dashboard
def test_panels(file: Path) -> None:
    """Each says what it shows and in which unit, has a place to itself, and asks the chosen Prometheus."""
    panels = read(file)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        assert re.fullmatch(r"[A-Z].*\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = itertools.product(range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"]))
        cells = set(cells)
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_dashboard
def test_every_variable_is_defined_and_used(file: Path) -> None:
    found = read(file)
    defined = [each["name"] for each in found["templating"]["list"]]
    assert defined[0] == "datasource"
    text = file.read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{?([a-z]\w*)", text))
    assert used == set(defined)


@each_dashboard
def test_queries_are_about_series_that_exist(file: Path) -> None:
    rules = yaml.safe_load((MONITORING / "recording-rules.yaml").read_text(encoding="utf-8"))["spec"]["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"]}
    shown = shown_series()
    found = read(file)
    queries = [target["expr"] for panel in found["panels"] for target in panel["targets"]]
    queries += [each["query"]["query"] for each in found["templating"]["list"][1:]]
    for query in queries:
        used = re.findall(r"((?:\w+:)?\b(?:circuitbreaker|process)_\w+(?::\w+)?)(?:\{([^}]*)\})?", query)
        assert used, query
        for name, selector in used:
            assert name in recorded | set(shown), query
            labels = set(re.findall(r"(\w+)\s*[!=]~?=?\"", selector)) - {"instance"}
            assert not shown.get(name) or labels <= shown[name], query


@each_dashboard
def test_a_state_has_one_colour(file: Path) -> None:
    """Okabe and Ito's, and no other thing has it."""
    assert set(COLOURS) == {state.value for state in State}
    seen = set()
    for node in nodes(read(file)):
        if isinstance(node, dict) and "text" in node and "color" in node:
            seen.add((node["text"], node["color"]))
        if isinstance(node, dict) and node.get("matcher", {}).get("id") == "byName":
            for each in node["properties"]:
                if each["id"] == "color":
                    seen.add((node["matcher"]["options"], each["value"]["fixedColor"]))
    assert {pair for pair in seen if pair[0] in COLOURS or pair[1] in COLOURS.values()} == set(COLOURS.items())
    for panel in read(file)["panels"]:
        legends = {target["legendFormat"] for target in panel["targets"]}
        if legends & {"{{state}}"}:
            coloured = {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]}
            assert set(COLOURS) <= coloured, panel["title"]


def nodes(value: Any) -> Any:
    yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in children:
        yield from nodes(each)
