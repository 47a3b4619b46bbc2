"""docs/client.md and docs/migrate/: every block of code runs, and the tables say what the code does."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from circuitbreaker_client import settings
from circuitbreaker_client._breakers import BreakersBase
from circuitbreaker_client.prometheus import CircuitBreakerCollector
from circuitbreaker_client.settings import Settings
from circuitbreaker_operator.models import CircuitBreakerSpec
from tests.client_around.guide import GUIDE, rendered

MIGRATIONS = sorted((GUIDE.parent / "migrate").glob("*.md"))
PAGES = [GUIDE, *MIGRATIONS]
ROOT = GUIDE.parents[1]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def environment(shared_redis, monkeypatch) -> None:
    """What a reader without Kubernetes would set."""
    monkeypatch.setenv("REDIS_URL", shared_redis.url)
    monkeypatch.setenv("CB_REDIS_URL", shared_redis.url)
    monkeypatch.setenv("CB_DEFINE_MISSING", "true")
    monkeypatch.setenv("CB_REDIS_TIMEOUT", "2s")


def run(code: str, names: dict[str, object], what: str) -> None:
    exec(compile(code, what, "exec", dont_inherit=True), names)


def closed(names: dict[str, object]) -> None:
    for each in names.values():
        if isinstance(each, BreakersBase):
            each._engine.stop().wait(5)


def test_the_guide_runs(environment) -> None:
    """From top to bottom, each block with the names of those before it, as one reads it."""
    names: dict[str, object] = {}
    try:
        for number, code in enumerate(blocks(GUIDE, "python"), 1):
            run(code, names, f"client.md, block {number}")
    finally:
        closed(names)
    assert names["charge"]("1") == "charged 1"
    assert names["pay"]("1") == "paid 1"


@pytest.mark.parametrize("page", MIGRATIONS, ids=lambda page: page.stem)
def test_before_and_after_run(page: Path, environment) -> None:
    """Both are whole programs; the one before needs nothing of ours, the one after nothing of theirs."""
    before, after = blocks(page, "python")
    library = re.search(r"^(?:import|from) (pybreaker|aiobreaker|purgatory|interlock)", before, re.MULTILINE)
    assert library is not None
    assert "circuitbreaker_client" not in before
    assert library[1] not in after
    for name, code in (("before", before), ("after", after)):
        names: dict[str, object] = {}
        try:
            run(code, names, f"{page.name}, {name}")
        finally:
            closed(names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_resources_are_valid(page: Path) -> None:
    """Every spec that a page shows has fields of the resource only, and values that it takes."""
    for text in blocks(page, "yaml"):
        spec = yaml.safe_load(text)["spec"]
        assert (
            CircuitBreakerSpec.model_validate(spec).model_dump(by_alias=True, exclude_unset=True).keys() == spec.keys()
        )


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "README.md", ROOT / "examples" / "README.md"], ids=lambda page: page.stem
)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
    assert links
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_tables_are_the_codes() -> None:
    """`python -m tests.client_around.guide` writes them anew."""
    assert rendered(GUIDE.read_text(encoding="utf-8")) == GUIDE.read_text(encoding="utf-8")


def test_the_docstrings_table_has_every_option() -> None:
    """Names, variables and defaults, against the values themselves."""
    rows = re.findall(r"^\| `(\w+)` \| `(CB_\w+)`[^|]*\| (.*) \|$", settings.__doc__, re.MULTILINE)
    assert [option for option, _, _ in rows] == [each.name for each in fields(Settings)]
    variables = {option: variable for option, variable, _ in rows if option != "policy"}
    assert variables == {option: variable for option, (variable, _) in settings._VARIABLES.items()}
    told = {option: re.split("[;:] ", default)[0].strip("`") for option, _, default in rows}
    own = Settings()
    for option in ("redis_url", "key_prefix"):
        assert told[option] == getattr(own, option)
    for option in ("redis_timeout_seconds", "flush_interval_seconds", "max_staleness_seconds", "max_breakers"):
        assert float(told[option]) == getattr(own, option)
    for option in ("state_sync", "define_missing", "strict"):
        assert told[option] == str(getattr(own, option)).lower()


def test_the_reference_names_every_metric(breakers) -> None:
    breakers["payments"].call(str)
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    names = {sample.name for family in CircuitBreakerCollector(breakers).collect() for sample in family.samples}
    assert {name for name in names if f"`{name}`" not in text} == set()
