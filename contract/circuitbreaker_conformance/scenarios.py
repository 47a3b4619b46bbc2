"""Scenarios as data: read from the vectors and checked for form. The format stands in contract/vectors/README.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from circuitbreaker_contract.errors import CircuitBreakerError

FORMAT = 1
ACTIONS = ("configure", "acquire", "report", "settle", "observe", "tick", "reset", "delete")
STEP_FIELDS = frozenset(
    {*ACTIONS, "at", "wait", "client", "seq", "from", "times", "key", "reply", "error", "messages", "shown", "then"}
)
_SCENARIO_FIELDS = frozenset({"name", "policy", "defined", "steps"})

Step = Mapping[str, Any]


class ScenarioError(CircuitBreakerError):
    """The vectors cannot be read; the text says which file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story of one breaker. `defined`: the breaker is there, under `policy`, before the first step."""

    group: str
    name: str
    policy: Mapping[str, Any]
    steps: tuple[Step, ...]
    defined: bool

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def vectors() -> Traversable:
    """The folder of the vectors: in the package once installed, beside it in a checkout."""
    package = files(__package__)
    installed = package / "vectors"
    return installed if installed.is_dir() else package / ".." / "vectors"


def load(folder: Traversable | None = None) -> tuple[Scenario, ...]:
    """Every scenario of `folder`, or of this version's vectors; file by file in order of their names.

    Raises ScenarioError.
    """
    try:
        import yaml  # noqa: PLC0415 - an extra: whoever plays scenarios of their own needs no YAML
    except ImportError:
        raise ScenarioError("the vectors are YAML: pip install 'circuitbreakers[conformance]'") from None
    found: list[Scenario] = []
    for file in sorted((folder or vectors()).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            try:
                found += _scenarios(yaml.safe_load(file.read_text(encoding="utf-8")))
            except (yaml.YAMLError, ScenarioError) as error:
                raise ScenarioError(f"{file.name}: {error}") from error
    return tuple(found)


def _scenarios(document: Any) -> list[Scenario]:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ScenarioError(f"not of format {FORMAT}")
    scenarios = []
    for raw in document["scenarios"]:
        name = raw["name"]
        if unknown := set(raw) - _SCENARIO_FIELDS:
            raise ScenarioError(f"{name}: unknown fields {sorted(unknown)}")
        for number, step in enumerate(raw["steps"], 1):
            if unknown := set(step) - STEP_FIELDS:
                raise ScenarioError(f"{name}: step {number}: unknown fields {sorted(unknown)}")
            if sum(action in step for action in ACTIONS) > 1:
                raise ScenarioError(f"{name}: step {number}: more than one action")
        scenario = Scenario(
            document["group"], name, raw.get("policy", {}), tuple(raw["steps"]), raw.get("defined", True)
        )
        scenarios.append(scenario)
    return scenarios
