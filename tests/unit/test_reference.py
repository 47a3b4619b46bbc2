"""docs/reference/ is what `make reference` writes, and what it writes is so."""

import re
from pathlib import Path

import pytest
import yaml
from scripts import reference
from tests.unit.series import shown_series

from circuitbreaker_operator.exposition import FAMILIES
from circuitbreaker_operator.settings import Settings, table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return reference.texts()


def test_the_pages_are_what_the_script_writes(texts: dict[str, str]) -> None:
    found = {page.name: page.read_text(encoding="utf-8") for page in FOLDER.iterdir()}
    assert found.keys() == texts.keys()
    stale = sorted(name for name, text in texts.items() if found[name] != text)
    assert stale == [], "run `make reference` and commit what it writes"


def test_every_field_of_the_resource_is_there(texts: dict[str, str]) -> None:
    """Counted apart from the script: each property of the schema is one row."""
    crd = yaml.safe_load((ROOT / "crds" / "circuitbreakers.yaml").read_text(encoding="utf-8"))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]

    def fields(node: object) -> int:
        if isinstance(node, list):
            return sum(map(fields, node))
        if not isinstance(node, dict):
            return 0
        own = node["properties"] if isinstance(node.get("properties"), dict) else {}
        return len(own) + sum(map(fields, node.values()))

    for part, begin, end in (("spec", "## spec", "## Rules"), ("status", "## status", "## Columns")):
        section = texts["crd.md"].split(f"{begin}\n")[1].split(end)[0]
        assert len(re.findall(r"^\| `", section, re.MULTILINE)) == fields(schema[part]) > 20
    messages = set(re.findall(r"^ +message: (.+)$", (ROOT / "crds" / "circuitbreakers.yaml").read_text(), re.MULTILINE))
    lengths = {each for each in messages if each.startswith("must be a duration")}
    assert len(messages - lengths) == 9
    plain = texts["crd.md"].replace("`", "")
    assert [each for each in messages - lengths if each not in plain] == []


def test_every_setting_is_there_with_its_bounds(texts: dict[str, str]) -> None:
    page = texts["settings.md"]
    assert sorted(re.findall(r"^\| `(CB_\w+)` \|", page, re.MULTILINE)) == sorted(name for name, _, _ in table())
    assert "| `CB_SUCCESS_THRESHOLD` | whole number from 1 to 1000 |" in page
    assert "| `CB_REDIS_TIMEOUT` | duration from 10ms to 1m |" in page
    assert "| `CB_REDIS_VERIFY` | one of `full`, `ca`, `none` |" in page
    assert len(Settings.model_fields) > 30


def test_every_series_is_there(texts: dict[str, str]) -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", texts["metrics.md"], re.MULTILINE))
    ours = {name for name in shown_series() if name.startswith("circuitbreaker_")}
    bases = {name: re.sub(r"_(total|bucket|count|sum)$", "", name) for name in ours}
    assert {name for name, base in bases.items() if not listed & {name, base, f"{base}_total"}} == set()
    assert len(listed) > 40


def test_a_family_has_the_labels_that_it_says() -> None:
    shown = shown_series()
    for family in FAMILIES:
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        if shown.get(name):
            assert {"namespace", "name", *family.labels} == shown[name], name
