"""The model of `spec` and crds/ say the same, and what the model makes of a stored spec."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from circuitbreaker_contract.durations import GATEWAY_FORM, format_duration, parse_duration_ms
from circuitbreaker_operator.models import (
    RFC_3339,
    SPEC_RULES,
    WINDOW_RULES,
    Backoff,
    CircuitBreakerSpec,
    InvalidSpecError,
    Override,
    Quorum,
    Window,
    parse_spec,
)

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "circuitbreakers.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
ROOT = VERSION["schema"]["openAPIV3Schema"]
SPEC = ROOT["properties"]["spec"]
STATUS = ROOT["properties"]["status"]

# A spec around the field under test, so that nothing else is wrong with it.
AROUND: dict[str, dict[str, Any]] = {
    "slowCallDuration": {"slowCallRatePercent": 50},
    "backoff.max": {"backoff": {"factor": 2}},
    "override.until": {"override": {"state": "Open", "reason": "maintenance"}},
    "override.reason": {"override": {"state": "Open"}},
}


def walk(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema below `schema` with its path, `schema` itself with an empty one; `[]` stands for items."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}".lstrip("."))
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def with_field(path: str, value: object) -> dict[str, Any]:
    """A spec that has `value` at `path` and around it what makes it valid."""
    parent, _, name = path.rpartition(".")
    around = AROUND.get(path, {})
    return {**around, parent: {**around.get(parent, {}), name: value}} if parent else {**around, name: value}


def message_of(spec: Any) -> str:
    with pytest.raises(InvalidSpecError) as caught:
        parse_spec(spec)
    return str(caught.value)


def bare(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of the CRD less what a model does not say: descriptions, CEL rules and the default of `spec`."""
    kept = {k: v for k, v in schema.items() if k not in {"description", "x-kubernetes-validations", "default"}}
    if "properties" in kept:
        kept["properties"] = {name: bare(child) for name, child in kept["properties"].items()}
    return kept


def modelled(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema of pydantic in the form of the CRD: references resolved, null and titles left out."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        (schema,) = (choice for choice in schema["anyOf"] if choice != {"type": "null"})
        return modelled(schema, definitions)
    kept = {k: v for k, v in schema.items() if k not in {"title", "description", "default", "$defs"}}
    if "properties" in kept:
        kept["properties"] = {name: modelled(child, definitions) for name, child in kept["properties"].items()}
    return kept


LEAF_RULES = {
    path: rule
    for path, schema in walk(SPEC)
    if schema["type"] != "object"
    for rule in schema.get("x-kubernetes-validations", [])
}
LENGTHS = {path: rule for path, rule in LEAF_RULES.items() if "duration(self)" in rule["rule"]}


# -- the model and the CRD


def test_model_and_crd_have_the_same_fields_types_bounds_words_and_required_fields() -> None:
    schema = CircuitBreakerSpec.model_json_schema()
    assert modelled(schema, schema["$defs"]) == bare(SPEC)


def test_model_and_crd_have_the_same_rules_over_several_fields() -> None:
    def of_crd(path: str) -> list[tuple[str, str]]:
        rules = dict(walk(SPEC))[path]["x-kubernetes-validations"]
        return [(rule.get("fieldPath", "").lstrip("."), rule["message"]) for rule in rules]

    assert [(rule.field, rule.message) for rule in SPEC_RULES] == of_crd("")
    assert [(rule.field, rule.message) for rule in WINDOW_RULES] == of_crd("window")
    objects = {path for path, schema in walk(SPEC) if schema["type"] == "object"}
    assert {path for path in objects if "x-kubernetes-validations" in dict(walk(SPEC))[path]} == {"", "window"}


def test_each_rule_of_a_single_field_is_one_and_the_model_uses_its_words() -> None:
    assert set(LEAF_RULES) == {*LENGTHS, "override.until", "override.reason"}
    assert len(LEAF_RULES) == sum(
        len(schema.get("x-kubernetes-validations", [])) for _, schema in walk(SPEC) if schema["type"] != "object"
    )
    for path, rule in LEAF_RULES.items():
        assert message_of(with_field(path, "\n")) == f"spec.{path}: {rule['message']}"


@pytest.mark.parametrize("path", LENGTHS)
def test_a_duration_has_the_same_form_and_bounds_in_rule_message_and_model(path: str) -> None:
    rule, message = " ".join(LENGTHS[path]["rule"].split()), LENGTHS[path]["message"]
    found = re.fullmatch(r"must be a duration from (\w+) to (\w+), like 30s or 1m30s", message)
    assert found
    shortest, longest = found.groups()
    assert rule == (
        f"self.matches('^{GATEWAY_FORM}$') && duration(self) >= duration('{shortest}')"
        f" && duration(self) <= duration('{longest}')"
    )
    for inside in (shortest, longest):
        parse_spec(with_field(path, inside))
    for outside_ms in (parse_duration_ms(shortest) - 1, parse_duration_ms(longest) + 1):
        assert message_of(with_field(path, format_duration(outside_ms))) == f"spec.{path}: {message}"


def test_a_time_has_the_same_form_in_rule_and_model() -> None:
    rule = " ".join(LEAF_RULES["override.until"]["rule"].split())
    assert rule == f"self.matches('^{RFC_3339}$') && !format.datetime().validate(self).hasValue()"


# -- the CRD by itself


def test_everything_has_a_description() -> None:
    assert [path for path, schema in walk(ROOT) if not schema.get("description") and path != "metadata"] == []
    assert [column["name"] for column in VERSION["additionalPrinterColumns"] if not column.get("description")] == []


def test_every_rule_has_a_message_and_every_text_that_a_rule_reads_is_bounded() -> None:
    for path, schema in walk(ROOT):
        for rule in schema.get("x-kubernetes-validations", []):
            assert rule["message"], path
            assert schema["type"] == "object" or schema["maxLength"] <= 256, path


def test_spec_may_be_missing_and_no_field_of_it_has_a_default() -> None:
    """Defaults come from the operator's environment."""
    assert SPEC["default"] == {}
    assert [path for path, schema in walk(ROOT) if "default" in schema] == ["spec"]
    assert "required" not in ROOT


def test_status_policy_has_the_fields_of_spec_with_the_same_bounds() -> None:
    def without_required(schema: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in schema.items() if k != "required"}
        if "properties" in kept:
            kept["properties"] = {name: without_required(child) for name, child in kept["properties"].items()}
        return kept

    assert bare(STATUS["properties"]["policy"]) == without_required(bare(SPEC))


def test_fast_counters_say_how_often_they_are_refreshed() -> None:
    """Figures in `.status` cost every watcher, so they are late on purpose; a reader must be told where he reads."""
    slow = {"observedGeneration", "incarnation", "stateGeneration", "attempt", "trips", "transitions[].stateGeneration"}
    slow |= {
        "conditions[].observedGeneration",
        "catchUp.incarnation",
        "catchUp.stateGeneration",
        "catchUp.skipped",
        "shadow.attempt",
        "shadow.wouldHaveOpened",
    }
    counters = {
        path
        for path, schema in walk(STATUS)
        if schema["type"] in {"integer", "number"} and not path.startswith("policy.")
    } - slow
    assert counters >= {"consecutiveFailures", "window.failureRatePercent", "totals.late", "reporters"}
    assert [
        path for path in sorted(counters) if "CB_STATUS_REFRESH" not in dict(walk(STATUS))[path]["description"]
    ] == []
    late = [c["name"] for c in VERSION["additionalPrinterColumns"] if "CB_STATUS_REFRESH" in c["description"]]
    assert late == ["Failures", "Rate"]


def test_columns() -> None:
    columns = [(c["name"].upper(), c.get("priority", 0)) for c in VERSION["additionalPrinterColumns"]]
    assert [name for name, priority in columns if priority == 0] == [
        "STATE", "REASON", "FAILURES", "RATE", "RETRY-AT", "READY", "AGE",
    ]  # fmt: skip
    assert [name for name, priority in columns if priority == 1] == ["SINCE", "THRESHOLD", "TRIPS", "MODE"]


def test_times_of_status_are_marked_as_times_except_where_a_person_wrote_them() -> None:
    times = {path for path, schema in walk(STATUS) if schema.get("format") == "date-time"}
    assert times == {
        "since", "openUntil", "shadow.since", "shadow.openUntil", "transitions[].at", "conditions[].lastTransitionTime",
    }  # fmt: skip


# -- reading a spec


def test_an_empty_spec_leaves_everything_to_the_operators_defaults() -> None:
    spec = parse_spec({})
    assert spec == CircuitBreakerSpec()
    assert set(spec.model_dump().values()) == {None}


def test_every_field_is_read_and_durations_become_milliseconds() -> None:
    spec = parse_spec(
        {
            "failureThreshold": 7,
            "recoveryTimeout": "1m30s",
            "halfOpenLimit": 2,
            "successThreshold": 4,
            "probeTimeout": "5s",
            "window": {"duration": "2m"},
            "minimumCalls": 20,
            "failureRatePercent": 50,
            "slowCallDuration": "750ms",
            "slowCallRatePercent": 80,
            "backoff": {"factor": 2, "max": "10m", "jitterPercent": 10},
            "quorum": {"minReporters": 3},
            "mode": "Enforce",
            "override": {"state": "Open", "until": "2030-01-31T18:00:00.25Z", "reason": "maintenance"},
        }
    )
    assert spec.model_dump() == {
        "failure_threshold": 7,
        "recovery_timeout_ms": 90_000,
        "half_open_limit": 2,
        "success_threshold": 4,
        "probe_timeout_ms": 5_000,
        "window": {"calls": None, "duration_ms": 120_000},
        "minimum_calls": 20,
        "failure_rate_percent": 50,
        "slow_call_duration_ms": 750,
        "slow_call_rate_percent": 80,
        "backoff": {"factor": 2, "max_ms": 600_000, "jitter_percent": 10},
        "quorum": {"min_reporters": 3},
        "mode": "Enforce",
        "override": {"state": "Open", "until_ms": 1_896_112_800_250, "reason": "maintenance"},
    }


def test_a_field_that_this_version_does_not_know_is_ignored() -> None:
    """An older operator must outlive a newer CRD."""
    assert parse_spec({"failureThreshold": 3, "colour": "red", "window": {"calls": 5, "x": 1}}) == CircuitBreakerSpec(
        failure_threshold=3, window=Window(calls=5)
    )


def test_null_is_a_field_left_out_as_the_api_server_has_it() -> None:
    assert parse_spec({"failureThreshold": None, "window": None, "mode": None}) == CircuitBreakerSpec()
    assert message_of({"window": {"calls": None}}) == "spec.window: set exactly one of calls and duration"


def test_any_mapping_is_read() -> None:
    spec = MappingProxyType({"window": MappingProxyType({"calls": 3})})
    assert parse_spec(spec).window == Window(calls=3)


@pytest.mark.parametrize("spec", [None, [], "x", 5], ids=repr)
def test_what_is_no_object_is_refused(spec: object) -> None:
    assert message_of(spec) == "spec: must be an object"


def test_all_problems_are_named_in_one_line() -> None:
    spec = {"recoveryTimeout": "soon", "window": {}, "mode": "Test", "backoff": {"factor": 11}, "quorum": {}}
    assert message_of(spec) == (
        "spec.recoveryTimeout: must be a duration from 100ms to 24h, like 30s or 1m30s; "
        "spec.window: set exactly one of calls and duration; "
        "spec.backoff.factor: must be a whole number from 1 to 10; "
        "spec.backoff.max: is required; "
        "spec.quorum.minReporters: is required; "
        "spec.mode: must be 'Enforce' or 'Observe'"
    )


def test_all_broken_rules_are_named_at_the_field_they_speak_of() -> None:
    spec = {
        "failureThreshold": 0,
        "recoveryTimeout": "1m",
        "window": {"calls": 5},
        "minimumCalls": 6,
        "slowCallDuration": "1s",
        "backoff": {"factor": 2, "max": "59s"},
        "mode": "Observe",
        "override": {"state": "Open", "reason": "maintenance"},
    }
    broken = [rule for rule in SPEC_RULES if rule.field != "slowCallRatePercent"]
    assert message_of(spec) == "; ".join(f"spec.{rule.field}: {rule.message}" for rule in broken)


@pytest.mark.parametrize("value", [True, "5", 5.5, float("nan"), float("inf"), 10**30, [], {}], ids=repr)
def test_a_whole_number_is_nothing_else(value: object) -> None:
    assert message_of({"halfOpenLimit": value}) == "spec.halfOpenLimit: must be a whole number from 1 to 1000"


def test_a_number_with_nothing_behind_the_point_is_whole() -> None:
    spec = parse_spec({"halfOpenLimit": 5.0})
    assert (spec.half_open_limit, type(spec.half_open_limit)) == (5, int)


@pytest.mark.parametrize("value", [30, 30.0, True, "30", "0.5s", "30s\n", " 30s", "1d", "", []], ids=repr)
def test_a_duration_has_its_unit_and_nothing_else(value: object) -> None:
    assert message_of({"recoveryTimeout": value}) == (
        "spec.recoveryTimeout: must be a duration from 100ms to 24h, like 30s or 1m30s"
    )


@pytest.mark.parametrize(
    ("text", "ms"),
    {
        "1970-01-01T00:00:00Z": 0,
        "2030-01-31T18:00:00Z": 1_896_112_800_000,
        "2030-01-31T18:00:00.1Z": 1_896_112_800_100,
        "2030-01-31T18:00:00.123999999Z": 1_896_112_800_123,
        "2030-01-31T20:00:00+02:00": 1_896_112_800_000,
        "2030-01-31T13:30:00.5-04:30": 1_896_112_800_500,
        "2028-02-29T00:00:00Z": 1_835_395_200_000,
        "9999-12-31T23:59:59-23:59": 253_402_387_139_000,
    }.items(),
)
def test_a_time_becomes_milliseconds(text: str, ms: int) -> None:
    override = parse_spec(with_field("override.until", text)).override
    assert override == Override(state="Open", until_ms=text, reason="maintenance")  # type: ignore[arg-type]
    assert override.until_ms == ms


@pytest.mark.parametrize("value", [5, "2030-01-31", "2030-02-30T00:00:00Z", "2030-01-31T18:00:00", "2030-01-31T18:00Z"])
def test_a_time_is_whole_exists_and_has_its_zone(value: object) -> None:
    assert message_of(with_field("override.until", value)) == (
        "spec.override.until: must be a time in RFC 3339 form, like 2030-01-31T18:00:00Z"
    )


def test_a_reason_of_256_characters_is_the_longest() -> None:
    parse_spec(with_field("override.reason", "ü" * 256))
    assert message_of(with_field("override.reason", "ü" * 257)) == (
        "spec.override.reason: must have at most 256 characters"
    )


def test_a_spec_is_frozen_and_rules_hold_however_it_is_built() -> None:
    spec = CircuitBreakerSpec(failure_threshold=3)
    with pytest.raises(ValidationError):
        spec.failure_threshold = 4
    with pytest.raises(ValidationError, match=r"must not be larger than window\.calls"):
        CircuitBreakerSpec(minimum_calls=6, window=Window(calls=5))


def test_a_part_by_itself_is_checked_too() -> None:
    assert Quorum(min_reporters=2).min_reporters == 2
    with pytest.raises(ValidationError, match="set exactly one of calls and duration"):
        Window()
    with pytest.raises(ValidationError, match="must be a whole number from 1 to 10"):
        Backoff(factor=0, max_ms="1m")  # type: ignore[arg-type]
