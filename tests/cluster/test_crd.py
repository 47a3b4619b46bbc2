"""The resource on a real API server: what it takes, what it refuses and in which words, and how kubectl shows it.

Each bad manifest has one mistake and gets one message; only for a fraction, where a whole number is due, the API
server itself always has two. The operator's model reads the same manifests and must agree. Messages are compared whole:
the texts around ours are those of the Kubernetes version that the tests run against.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.waiting import wait_until
from circuitbreaker_operator.models import CircuitBreakerSpec, InvalidSpecError, parse_spec

pytestmark = pytest.mark.usefixtures("breaker_crd")

CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "circuitbreakers.yaml").read_text())
ROOT = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


class Cause(NamedTuple):
    """One entry of `details.causes` of the API server's answer."""

    field: str
    message: str


# The API server adds it where a mistake kept it from running the CEL rules; kubectl prints it as a second line.
NOT_ALL_CHECKED = Cause(
    "<nil>",
    (
        "Invalid value: null: some validation rules were not checked because the object was invalid; "
        "correct the existing errors to complete validation"
    ),
)


class Refused(Exception):  # noqa: N818 - it is what the API server did
    """The API server's Status."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        super().__init__(status["message"])
        self.code: int = status["code"]
        self.reason: str = status["reason"]
        self.message: str = status["message"]
        self.causes = [
            cause
            for cause in (Cause(each["field"], each["message"]) for each in status["details"]["causes"])
            if cause != NOT_ALL_CHECKED
        ]


@dataclass(frozen=True)
class Breakers:
    """The resources of one namespace, by one HTTP connection."""

    api: client.CustomObjectsApi
    namespace: str

    def create(self, spec: object = None, *, name: str = "payments", **rest: object) -> dict[str, Any]:
        """The stored resource. With a spec of None the manifest has none."""
        metadata = {"name": name, "namespace": self.namespace}
        body = {"apiVersion": "circuitbreaker.dev/v1alpha1", "kind": "CircuitBreaker", "metadata": metadata, **rest}
        if spec is not None:
            body["spec"] = spec
        return self._call("create_namespaced_custom_object", body=body)

    def get(self, name: str = "payments") -> dict[str, Any]:
        return self._call("get_namespaced_custom_object", name=name)

    def names(self) -> set[str]:
        items = self._call("list_namespaced_custom_object")["items"]
        return {item["metadata"]["name"] for item in items}

    def patch(self, body: object, *, name: str = "payments") -> dict[str, Any]:
        return self._call(
            "patch_namespaced_custom_object", name=name, body=body, _content_type="application/merge-patch+json"
        )

    def patch_status(self, body: object, *, name: str = "payments") -> dict[str, Any]:
        return self._call(
            "patch_namespaced_custom_object_status", name=name, body=body, _content_type="application/merge-patch+json"
        )

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        where = {
            "group": "circuitbreaker.dev",
            "version": "v1alpha1",
            "namespace": self.namespace,
            "plural": "circuitbreakers",
        }
        try:
            answer: dict[str, Any] = getattr(self.api, method)(**where, **arguments)
        except ApiException as error:
            raise Refused(json.loads(error.body or "")) from None
        return answer


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[client.CustomObjectsApi]:
    with config.new_client_from_config(str(control_plane.kubeconfig)) as connection:  # type: ignore[no-untyped-call]
        yield client.CustomObjectsApi(connection)


@pytest.fixture(scope="module", autouse=True)
def _none_stays(control_plane: ControlPlane) -> Iterator[None]:
    """An operator of another file would serve them, too."""
    yield
    control_plane.kubectl("delete", "circuitbreakers", "--all", "--all-namespaces")


@pytest.fixture(scope="module")
def refusing(api: client.CustomObjectsApi, control_plane: ControlPlane) -> Breakers:
    """One namespace for all that must be refused: nothing is ever stored there."""
    return Breakers(api, control_plane.create_namespace())


@pytest.fixture
def fresh_name() -> str:
    """So that a manifest taken by mistake fails its own test only."""
    return f"x{uuid.uuid4().hex}"


@pytest.fixture
def breakers(api: client.CustomObjectsApi, namespace: str) -> Breakers:
    return Breakers(api, namespace)


# -- what it takes

GOOD: dict[str, dict[str, Any]] = {
    "an empty spec": {},
    "lowest numbers": {"failureThreshold": 1, "halfOpenLimit": 1, "successThreshold": 1, "minimumCalls": 1},
    "highest numbers": {
        "failureThreshold": 1_000_000,
        "halfOpenLimit": 1_000,
        "successThreshold": 1_000,
        "minimumCalls": 10_000,
    },
    "shortest durations": {
        "recoveryTimeout": "100ms",
        "probeTimeout": "100ms",
        "window": {"duration": "1s"},
        "slowCallDuration": "1ms",
        "slowCallRatePercent": 1,
        "backoff": {"factor": 1, "max": "100ms", "jitterPercent": 0},
    },
    "longest durations": {
        "recoveryTimeout": "24h",
        "probeTimeout": "1h",
        "window": {"duration": "1h"},
        "slowCallDuration": "1h",
        "slowCallRatePercent": 100,
        "backoff": {"factor": 10, "max": "24h", "jitterPercent": 50},
    },
    "the same duration in other words": {"recoveryTimeout": "1440m", "probeTimeout": "59m59s1000ms"},
    "parts of a duration in any order": {"recoveryTimeout": "30s1m", "probeTimeout": "1s1s1s1s"},
    "only a failure rate": {"failureThreshold": 0, "failureRatePercent": 50},
    "only a rate of slow calls": {"failureThreshold": 0, "slowCallDuration": "2s", "slowCallRatePercent": 80},
    "a window of calls": {"window": {"calls": 1}, "failureRatePercent": 1},
    "the largest window of calls": {"window": {"calls": 10_000}, "minimumCalls": 10_000, "failureRatePercent": 100},
    "minimumCalls as large as the window": {"window": {"calls": 20}, "minimumCalls": 20},
    "minimumCalls beside a window of time": {"window": {"duration": "10s"}, "minimumCalls": 5_000},
    "more successes than slots": {"halfOpenLimit": 1, "successThreshold": 10},
    "backoff without jitter": {"backoff": {"factor": 2, "max": "5m"}},
    "backoff that ends where it begins": {"recoveryTimeout": "1m30s", "backoff": {"factor": 2, "max": "90s"}},
    "a quorum": {"quorum": {"minReporters": 1}},
    "the largest quorum": {"quorum": {"minReporters": 1_000}},
    "mode Enforce with an override": {"mode": "Enforce", "override": {"state": "Open", "reason": "maintenance"}},
    "mode Observe": {"mode": "Observe"},
    "mode Observe held Closed": {"mode": "Observe", "override": {"state": "Closed", "reason": "load test"}},
    "an override with an end": {
        "override": {"state": "Closed", "until": "2030-01-31T18:00:00Z", "reason": "load test"},
    },
    "an override that ends in another zone, to the nanosecond": {
        "override": {"state": "Open", "until": "2030-01-31T18:00:00.123456789+05:45", "reason": "maintenance"},
    },
    "an override that ends on the 29th of February": {
        "override": {"state": "Open", "until": "2028-02-29T23:59:59Z", "reason": "maintenance"},
    },
    "an override whose end is past": {
        "override": {"state": "Open", "until": "2001-01-01T00:00:00Z", "reason": "maintenance"},
    },
    "a reason in any script, with signs": {"override": {"state": "Open", "reason": 'Wartung "A" — 保守 🔧 {#42}'}},
    "the longest reason": {"override": {"state": "Open", "reason": "ü" * 256}},
}


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD)
def test_takes(spec: dict[str, Any], breakers: Breakers) -> None:
    """What is stored is what was sent, and the operator's model reads it."""
    breakers.create(spec)
    assert breakers.get()["spec"] == spec
    parse_spec(spec)


def test_a_missing_spec_is_stored_as_an_empty_one(breakers: Breakers) -> None:
    """So the operator always finds one."""
    breakers.create()
    assert breakers.get()["spec"] == {}


def test_null_is_a_field_left_out(breakers: Breakers) -> None:
    breakers.create({"failureThreshold": None, "window": None, "mode": "Observe"})
    assert breakers.get()["spec"] == {"mode": "Observe"}
    assert parse_spec({"failureThreshold": None, "window": None, "mode": "Observe"}) == CircuitBreakerSpec(
        mode="Observe"
    )


def test_a_number_with_nothing_behind_the_point_is_whole(breakers: Breakers) -> None:
    breakers.create({"halfOpenLimit": 5.0})
    stored = breakers.get()["spec"]
    assert stored == {"halfOpenLimit": 5}
    assert parse_spec({"halfOpenLimit": 5.0}) == parse_spec(stored)


def test_an_unknown_field_is_pruned(breakers: Breakers) -> None:
    breakers.create({"failureThreshold": 3, "colour": "red", "window": {"calls": 5, "percentile": 99}})
    assert breakers.get()["spec"] == {"failureThreshold": 3, "window": {"calls": 5}}


def test_kubectl_says_which_field_it_does_not_know(control_plane: ControlPlane, namespace: str) -> None:
    manifest = {
        "apiVersion": "circuitbreaker.dev/v1alpha1",
        "kind": "CircuitBreaker",
        "metadata": {"name": "payments"},
        "spec": {"failureTreshold": 3},
    }
    with pytest.raises(LocalError, match=r'strict decoding error: unknown field "spec\.failureTreshold"$'):
        control_plane.apply(yaml.safe_dump(manifest), namespace=namespace)


# -- what it refuses


@dataclass(frozen=True)
class Bad:
    """A manifest with one mistake: what the API server says of which field, and what the model says of it."""

    spec: object
    causes: tuple[Cause, ...]
    model: str

    @classmethod
    def rule(cls, spec: object, field: str, words: str, *, value: object = None) -> Self:
        """Refused by a CEL rule: both say the same words. `value` is what the API server quotes, of a single field."""
        quoted = "" if value is None else f"{json.dumps(value, ensure_ascii=False)}: "
        return cls(spec, (Cause(field, f"Invalid value: {quoted}{words}"),), f"{field}: {words}")

    @classmethod
    def schema(cls, spec: object, field: str, problem: str, words: str) -> Self:
        """Refused by the schema: `problem` is the API server's word, `words` the model's."""
        return cls(spec, (Cause(field, problem),), f"{field}: {words}")

    @classmethod
    def number(cls, spec: object, field: str, lowest: int, highest: int) -> Self:
        """A whole number below `lowest` or above `highest`."""
        value = _value_at(spec, field)
        bound = f"greater than or equal to {lowest}" if value < lowest else f"less than or equal to {highest}"
        problem = f"Invalid value: {value}: {field} in body should be {bound}"
        return cls.schema(spec, field, problem, f"must be a whole number from {lowest} to {highest}")

    @classmethod
    def no_number(cls, spec: object, field: str, lowest: int, highest: int, *, kind: str) -> Self:
        """Something else than a whole number: a JSON value of that kind."""
        problem = f'Invalid value: "{kind}": {field} in body must be of type integer: "{kind}"'
        return cls.schema(spec, field, problem, f"must be a whole number from {lowest} to {highest}")

    @classmethod
    def fraction(cls, spec: object, field: str, lowest: int, highest: int) -> Self:
        """The one mistake for which the API server always has two messages."""
        bad = cls.no_number(spec, field, lowest, highest, kind="number")
        second = f'Invalid value: "": Checked value must be of type integer (default format) in {field}'
        return cls(spec, (*bad.causes, Cause("<nil>", second)), bad.model)

    @classmethod
    def duration(cls, spec: object, field: str, shortest: str, longest: str) -> Self:
        words = f"must be a duration from {shortest} to {longest}, like 30s or 1m30s"
        return cls.rule(spec, field, words, value=_value_at(spec, field))


def _value_at(spec: Any, field: str) -> Any:
    for name in field.removeprefix("spec.").split("."):
        spec = spec[name]
    return spec


def _override(**fields: object) -> dict[str, Any]:
    return {"override": {"state": "Open", "reason": "maintenance", **fields}}


def _until(value: str) -> Bad:
    words = "must be a time in RFC 3339 form, like 2030-01-31T18:00:00Z"
    return Bad.rule(_override(until=value), "spec.override.until", words, value=value)


def _reason(value: str) -> Bad:
    return Bad.rule(_override(reason=value), "spec.override.reason", "must say why, in one line", value=value)


def _recovery(value: str) -> Bad:
    return Bad.duration({"recoveryTimeout": value}, "spec.recoveryTimeout", "100ms", "24h")


_ONE_WINDOW = "set exactly one of calls and duration"
_ONLY_RULE = "0 turns off the only rule; set failureRatePercent or slowCallRatePercent as well"
_OBSERVE = "Open refuses calls and mode Observe never does; set mode Enforce first"
_WHOLE_THRESHOLD = ("spec.failureThreshold", 0, 1_000_000)

BAD: dict[str, Bad] = {
    # whole numbers
    "failureThreshold below 0": Bad.number({"failureThreshold": -1}, *_WHOLE_THRESHOLD),
    "failureThreshold above 1000000": Bad.number({"failureThreshold": 1_000_001}, *_WHOLE_THRESHOLD),
    "failureThreshold beyond 32 bits": Bad.number({"failureThreshold": 2**40}, *_WHOLE_THRESHOLD),
    "failureThreshold as text": Bad.no_number({"failureThreshold": "5"}, *_WHOLE_THRESHOLD, kind="string"),
    "failureThreshold as a fraction": Bad.fraction({"failureThreshold": 5.5}, *_WHOLE_THRESHOLD),
    "failureThreshold as a boolean": Bad.no_number({"failureThreshold": True}, *_WHOLE_THRESHOLD, kind="boolean"),
    "failureThreshold as a list": Bad.no_number({"failureThreshold": [5]}, *_WHOLE_THRESHOLD, kind="array"),
    "halfOpenLimit 0": Bad.number({"halfOpenLimit": 0}, "spec.halfOpenLimit", 1, 1_000),
    "halfOpenLimit above 1000": Bad.number({"halfOpenLimit": 1_001}, "spec.halfOpenLimit", 1, 1_000),
    "successThreshold 0": Bad.number({"successThreshold": 0}, "spec.successThreshold", 1, 1_000),
    "successThreshold above 1000": Bad.number({"successThreshold": 1_001}, "spec.successThreshold", 1, 1_000),
    "minimumCalls 0": Bad.number({"minimumCalls": 0}, "spec.minimumCalls", 1, 10_000),
    "minimumCalls above 10000": Bad.number({"minimumCalls": 10_001}, "spec.minimumCalls", 1, 10_000),
    "minimumCalls too large by itself and for the window": Bad.number(
        {"minimumCalls": 10_001, "window": {"calls": 10}}, "spec.minimumCalls", 1, 10_000
    ),
    "failureRatePercent 0": Bad.number({"failureRatePercent": 0}, "spec.failureRatePercent", 1, 100),
    "failureRatePercent above 100": Bad.number({"failureRatePercent": 101}, "spec.failureRatePercent", 1, 100),
    "failureRatePercent as a fraction": Bad.fraction({"failureRatePercent": 1.5}, "spec.failureRatePercent", 1, 100),
    "slowCallRatePercent 0": Bad.number(
        {"slowCallRatePercent": 0, "slowCallDuration": "1s"}, "spec.slowCallRatePercent", 1, 100
    ),
    "slowCallRatePercent above 100": Bad.number(
        {"slowCallRatePercent": 101, "slowCallDuration": "1s"}, "spec.slowCallRatePercent", 1, 100
    ),
    "window.calls 0": Bad.number({"window": {"calls": 0}}, "spec.window.calls", 1, 10_000),
    "window.calls 0 and minimumCalls": Bad.number(
        {"window": {"calls": 0}, "minimumCalls": 1}, "spec.window.calls", 1, 10_000
    ),
    "window.calls above 10000": Bad.number({"window": {"calls": 10_001}}, "spec.window.calls", 1, 10_000),
    "backoff.factor 0": Bad.number({"backoff": {"factor": 0, "max": "1m"}}, "spec.backoff.factor", 1, 10),
    "backoff.factor above 10": Bad.number({"backoff": {"factor": 11, "max": "1m"}}, "spec.backoff.factor", 1, 10),
    "backoff.factor as a fraction": Bad.fraction(
        {"backoff": {"factor": 1.5, "max": "1m"}}, "spec.backoff.factor", 1, 10
    ),
    "backoff.jitterPercent below 0": Bad.number(
        {"backoff": {"factor": 2, "max": "1m", "jitterPercent": -1}}, "spec.backoff.jitterPercent", 0, 50
    ),
    "backoff.jitterPercent above 50": Bad.number(
        {"backoff": {"factor": 2, "max": "1m", "jitterPercent": 51}}, "spec.backoff.jitterPercent", 0, 50
    ),
    "quorum.minReporters 0": Bad.number({"quorum": {"minReporters": 0}}, "spec.quorum.minReporters", 1, 1_000),
    "quorum.minReporters above 1000": Bad.number(
        {"quorum": {"minReporters": 1_001}}, "spec.quorum.minReporters", 1, 1_000
    ),
    # durations
    "recoveryTimeout below 100ms": _recovery("99ms"),
    "recoveryTimeout above 24h": _recovery("24h1ms"),
    "recoveryTimeout 0s": _recovery("0s"),
    "recoveryTimeout without a unit": _recovery("30"),
    "recoveryTimeout with an unknown unit": _recovery("1d"),
    "recoveryTimeout with a fraction": _recovery("1.5s"),
    "recoveryTimeout with a sign": _recovery("-30s"),
    "recoveryTimeout with a space": _recovery("1m 30s"),
    "recoveryTimeout with a line end": _recovery("30s\n"),
    "recoveryTimeout in ISO 8601": _recovery("PT30S"),
    "recoveryTimeout empty": _recovery(""),
    "recoveryTimeout in five parts": _recovery("1h1m1s1ms1ms"),
    "recoveryTimeout of six digits": _recovery("100000ms"),
    "recoveryTimeout as a number": Bad.schema(
        {"recoveryTimeout": 30},
        "spec.recoveryTimeout",
        'Invalid value: "integer": spec.recoveryTimeout in body must be of type string: "integer"',
        "must be a duration from 100ms to 24h, like 30s or 1m30s",
    ),
    "recoveryTimeout longer than any duration": Bad.schema(
        {"recoveryTimeout": "0" * 32 + "1s"},
        "spec.recoveryTimeout",
        "Too long: may not be more than 32 bytes",
        "must be a duration from 100ms to 24h, like 30s or 1m30s",
    ),
    "probeTimeout below 100ms": Bad.duration({"probeTimeout": "99ms"}, "spec.probeTimeout", "100ms", "1h"),
    "probeTimeout above 1h": Bad.duration({"probeTimeout": "61m"}, "spec.probeTimeout", "100ms", "1h"),
    "window.duration below 1s": Bad.duration({"window": {"duration": "999ms"}}, "spec.window.duration", "1s", "1h"),
    "window.duration above 1h": Bad.duration({"window": {"duration": "1h1s"}}, "spec.window.duration", "1s", "1h"),
    "slowCallDuration 0ms": Bad.duration(
        {"slowCallDuration": "0ms", "slowCallRatePercent": 50}, "spec.slowCallDuration", "1ms", "1h"
    ),
    "slowCallDuration above 1h": Bad.duration(
        {"slowCallDuration": "2h", "slowCallRatePercent": 50}, "spec.slowCallDuration", "1ms", "1h"
    ),
    "backoff.max below 100ms": Bad.duration(
        {"backoff": {"factor": 2, "max": "1ms"}}, "spec.backoff.max", "100ms", "24h"
    ),
    "backoff.max too short by itself and for recoveryTimeout": Bad.duration(
        {"recoveryTimeout": "30s", "backoff": {"factor": 2, "max": "1ms"}}, "spec.backoff.max", "100ms", "24h"
    ),
    "backoff.max above 24h": Bad.duration({"backoff": {"factor": 2, "max": "25h"}}, "spec.backoff.max", "100ms", "24h"),
    "backoff.max that is none": Bad.duration(
        {"recoveryTimeout": "30s", "backoff": {"factor": 2, "max": "never"}}, "spec.backoff.max", "100ms", "24h"
    ),
    "recoveryTimeout above 24h with a backoff": Bad.duration(
        {"recoveryTimeout": "25h", "backoff": {"factor": 2, "max": "24h"}}, "spec.recoveryTimeout", "100ms", "24h"
    ),
    # several fields together
    "failureThreshold 0 and no rate": Bad.rule({"failureThreshold": 0}, "spec.failureThreshold", _ONLY_RULE),
    "failureThreshold 0 with a window alone": Bad.rule(
        {"failureThreshold": 0, "window": {"calls": 100}, "minimumCalls": 10}, "spec.failureThreshold", _ONLY_RULE
    ),
    "an empty window": Bad.rule({"window": {}}, "spec.window", _ONE_WINDOW),
    "a window of both kinds": Bad.rule({"window": {"calls": 10, "duration": "10s"}}, "spec.window", _ONE_WINDOW),
    "a window with a null": Bad.rule({"window": {"calls": None}}, "spec.window", _ONE_WINDOW),
    "minimumCalls larger than the window": Bad.rule(
        {"minimumCalls": 11, "window": {"calls": 10}}, "spec.minimumCalls", "must not be larger than window.calls"
    ),
    "slowCallDuration alone": Bad.rule(
        {"slowCallDuration": "1s"}, "spec.slowCallDuration", "has no effect alone; set slowCallRatePercent as well"
    ),
    "slowCallRatePercent alone": Bad.rule(
        {"slowCallRatePercent": 50}, "spec.slowCallRatePercent", "has no effect alone; set slowCallDuration as well"
    ),
    "backoff.max shorter than recoveryTimeout": Bad.rule(
        {"recoveryTimeout": "1m", "backoff": {"factor": 2, "max": "59s999ms"}},
        "spec.backoff.max",
        "must not be shorter than recoveryTimeout",
    ),
    "mode Observe held Open": Bad.rule({"mode": "Observe", **_override()}, "spec.override.state", _OBSERVE),
    # objects, words and what is required
    "a spec that is a list": Bad.schema(
        [], "spec", 'Invalid value: "array": spec in body must be of type object: "array"', "must be an object"
    ),
    "a spec that is text": Bad.schema(
        "x", "spec", 'Invalid value: "string": spec in body must be of type object: "string"', "must be an object"
    ),
    "a window that is a duration": Bad.schema(
        {"window": "60s"},
        "spec.window",
        'Invalid value: "string": spec.window in body must be of type object: "string"',
        "must be an object",
    ),
    "backoff without max": Bad.schema({"backoff": {"factor": 2}}, "spec.backoff.max", "Required value", "is required"),
    "backoff without factor": Bad.schema(
        {"backoff": {"max": "1m"}}, "spec.backoff.factor", "Required value", "is required"
    ),
    "an empty backoff": Bad(
        {"backoff": {}},
        (Cause("spec.backoff.factor", "Required value"), Cause("spec.backoff.max", "Required value")),
        "spec.backoff.factor: is required; spec.backoff.max: is required",
    ),
    "an empty quorum": Bad.schema({"quorum": {}}, "spec.quorum.minReporters", "Required value", "is required"),
    "mode in lower case": Bad.schema(
        {"mode": "observe"},
        "spec.mode",
        'Unsupported value: "observe": supported values: "Enforce", "Observe"',
        "must be 'Enforce' or 'Observe'",
    ),
    "mode empty": Bad.schema(
        {"mode": ""},
        "spec.mode",
        'Unsupported value: "": supported values: "Enforce", "Observe"',
        "must be 'Enforce' or 'Observe'",
    ),
    "an override to HalfOpen": Bad.schema(
        _override(state="HalfOpen"),
        "spec.override.state",
        'Unsupported value: "HalfOpen": supported values: "Open", "Closed"',
        "must be 'Open' or 'Closed'",
    ),
    "an override without a state": Bad.schema(
        {"override": {"reason": "maintenance"}}, "spec.override.state", "Required value", "is required"
    ),
    "an override without a reason": Bad.schema(
        {"override": {"state": "Open"}}, "spec.override.reason", "Required value", "is required"
    ),
    "an override with an empty reason": _reason(""),
    "an override with a blank reason": _reason("  "),
    "an override with a reason of two lines": _reason("one\ntwo"),
    "an override with a reason that is too long": Bad.schema(
        _override(reason="x" * 257),
        "spec.override.reason",
        "Too long: may not be more than 256 bytes",
        "must have at most 256 characters",
    ),
    # times
    "until in words": _until("tomorrow"),
    "until empty": _until(""),
    "until without a time of day": _until("2030-01-31"),
    "until without a zone": _until("2030-01-31T18:00:00"),
    "until without seconds": _until("2030-01-31T18:00Z"),
    "until with a space": _until("2030-01-31 18:00:00Z"),
    "until in lower case": _until("2030-01-31t18:00:00z"),
    "until on the 30th of February": _until("2030-02-30T00:00:00Z"),
    "until on the 29th of February of a common year": _until("2030-02-29T00:00:00Z"),
    "until in month 13": _until("2030-13-01T00:00:00Z"),
    "until at 24 o'clock": _until("2030-01-31T24:00:00Z"),
    "until at a leap second": _until("2030-06-30T23:59:60Z"),
    "until in a zone that is none": _until("2030-01-31T18:00:00+24:00"),
    "until in the year 0": _until("0000-01-01T00:00:00Z"),
    "until with something behind it": _until("2030-01-31T18:00:00ZT1"),
    "until with a line end": _until("2030-01-31T18:00:00Z\n"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_refuses(bad: Bad, refusing: Breakers, fresh_name: str) -> None:
    """In one message, without storing anything; the operator's model refuses it too."""
    with pytest.raises(Refused) as refused:
        refusing.create(bad.spec, name=fresh_name)
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    assert sorted(refused.value.causes) == sorted(bad.causes)
    assert fresh_name not in refusing.names()
    with pytest.raises(InvalidSpecError) as invalid:
        parse_spec(bad.spec)  # type: ignore[arg-type]
    assert str(invalid.value) == bad.model


def test_two_mistakes_are_two_messages(refusing: Breakers) -> None:
    with pytest.raises(Refused) as refused:
        refusing.create({"recoveryTimeout": "soon", "window": {}})
    assert sorted(refused.value.causes) == [
        Cause(
            "spec.recoveryTimeout",
            'Invalid value: "soon": must be a duration from 100ms to 24h, like 30s or 1m30s',
        ),
        Cause("spec.window", "Invalid value: set exactly one of calls and duration"),
    ]


def test_one_mistake_reads_like_this(refusing: Breakers) -> None:
    with pytest.raises(Refused) as refused:
        refusing.create({"recoveryTimeout": "soon"})
    assert refused.value.message == (
        'CircuitBreaker.circuitbreaker.dev "payments" is invalid: spec.recoveryTimeout: Invalid value: "soon": must be'
        " a duration from 100ms to 24h, like 30s or 1m30s"
    )


def test_an_edit_is_checked_like_a_new_one(breakers: Breakers) -> None:
    breakers.create({"recoveryTimeout": "1m"})
    with pytest.raises(Refused) as refused:
        breakers.patch({"spec": {"backoff": {"factor": 2, "max": "30s"}}})
    assert refused.value.causes == [
        Cause("spec.backoff.max", "Invalid value: must not be shorter than recoveryTimeout"),
    ]
    assert breakers.get()["spec"] == {"recoveryTimeout": "1m"}


_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


@pytest.mark.parametrize("name", ["a", "payments.v2", "1-2", "a" * 63])
def test_takes_a_name(name: str, breakers: Breakers) -> None:
    breakers.create(name=name)
    assert breakers.names() == {name}


@pytest.mark.parametrize(
    ("name", "problem"),
    {
        "a" * 64: "Too long: may not be more than 63 bytes",
        "Payments": f'Invalid value: "Payments": {_SUBDOMAIN}',
        "pay_ments": f'Invalid value: "pay_ments": {_SUBDOMAIN}',
        "payments-": f'Invalid value: "payments-": {_SUBDOMAIN}',
        "a..b": f'Invalid value: "a..b": {_SUBDOMAIN}',
        "pay{ments}": f'Invalid value: "pay{{ments}}": {_SUBDOMAIN}',
    }.items(),
)
def test_refuses_a_name(name: str, problem: str, refusing: Breakers) -> None:
    """A name is part of Redis keys, where braces would be a hash tag."""
    with pytest.raises(Refused) as refused:
        refusing.create(name=name)
    assert refused.value.causes == [Cause("metadata.name", problem)]
    assert name not in refusing.names()


# -- status

STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "state": "Open",
    "since": "2020-06-01T12:00:00.000Z",
    "reason": "ConsecutiveFailures",
    "message": "5 consecutive failures reached failureThreshold 5.",
    "incarnation": 1_591_012_800_000,
    "stateGeneration": 7,
    "catchUp": {"incarnation": 1_591_012_800_000, "stateGeneration": 15, "skipped": 3},
    "forced": False,
    "openUntil": "2020-06-01T12:00:30.250Z",
    "attempt": 1,
    "consecutiveFailures": 5,
    "window": {"calls": 12, "failures": 7, "slow": 0, "failureRatePercent": 58.3, "slowCallRatePercent": 0},
    "totals": {"successes": 5, "failures": 7, "slow": 0, "ignored": 1, "notPermitted": 40, "late": 2},
    "reporters": 3,
    "shadow": {
        "state": "Open",
        "since": "2020-06-01T12:00:00.000Z",
        "openUntil": "2020-06-01T12:00:30.000Z",
        "attempt": 1,
        "wouldHaveOpened": 2,
        "notPermitted": 9,
    },
    "lastReset": "2020-05-31",
    "trips": 4,
    "transitions": [
        {
            "from": "",
            "to": "Closed",
            "at": "2020-06-01T11:00:00.001Z",
            "reason": "Created",
            "stateGeneration": 1,
        },
        {
            "from": "Closed",
            "to": "Open",
            "at": "2020-06-01T12:00:00.000Z",
            "reason": "ConsecutiveFailures",
            "stateGeneration": 7,
        },
    ],
    "policy": {
        "failureThreshold": 5,
        "recoveryTimeout": "30s",
        "halfOpenLimit": 3,
        "successThreshold": 3,
        "probeTimeout": "30s",
        "window": {"duration": "1m"},
        "minimumCalls": 10,
        "failureRatePercent": 50,
        "slowCallDuration": "2s",
        "slowCallRatePercent": 80,
        "backoff": {"factor": 2, "max": "5m", "jitterPercent": 10},
        "quorum": {"minReporters": 2},
        "mode": "Enforce",
        "override": {"state": "Open", "until": "2030-01-31T18:00:00Z", "reason": "maintenance"},
    },
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2020-06-01T11:00:00Z",
            "reason": "PolicyApplied",
            "message": "",
        },
        {
            "type": "Healthy",
            "status": "False",
            "observedGeneration": 1,
            "lastTransitionTime": "2020-06-01T12:00:00Z",
            "reason": "Open",
            "message": "The breaker is open.",
        },
    ],
}


def _paths(schema: Mapping[str, Any], value: Any, path: str = "status") -> Iterator[str]:
    """Paths of the schema that `value` does not use."""
    for name, child in schema.get("properties", {}).items():
        if name in value:
            yield from _paths(child, value[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}"
    if "items" in schema:
        yield from _paths(schema["items"], value[-1], f"{path}[]")


def test_a_whole_status_is_stored_as_it_was_sent(breakers: Breakers) -> None:
    """The example has every field there is, except that a window in force has one kind only."""
    assert list(_paths(ROOT["properties"]["status"], STATUS)) == ["status.policy.window.calls"]
    breakers.create()
    breakers.patch_status({"status": STATUS})
    assert breakers.get()["status"] == STATUS


def _owners_of_status(resource: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(field manager, what of the status it owns) each."""
    entries = resource["metadata"]["managedFields"]
    return [(each["manager"], each["fieldsV1"]["f:status"]) for each in entries if each.get("subresource") == "status"]


def test_a_status_is_owned_as_a_whole(breakers: Breakers) -> None:
    """To say who owns which field of it would be a third of what a write costs; one that says so is shortened."""
    breakers.create()
    stored = breakers.patch_status({"status": STATUS})
    ((manager, owned),) = _owners_of_status(stored)
    assert owned == {}
    entry = next(
        each for each in stored["metadata"]["managedFields"] if each["manager"] == manager and "subresource" in each
    )
    by_field = entry | {"fieldsV1": {"f:status": {"f:state": {}, "f:totals": {"f:late": {}}}}}
    others = [each for each in stored["metadata"]["managedFields"] if each is not entry]
    breakers.patch({"metadata": {"managedFields": [*others, by_field]}})
    again = breakers.patch_status({"status": {"trips": 5}})
    assert _owners_of_status(again) == [(manager, {})]
    assert again["status"] == STATUS | {"trips": 5}


BAD_STATUS: dict[str, tuple[dict[str, Any], Cause]] = {
    "an unknown state": (
        {"state": "Broken"},
        Cause("status.state", 'Unsupported value: "Broken": supported values: "Closed", "Open", "HalfOpen"'),
    ),
    "a time that is none": (
        {"openUntil": "soon"},
        Cause(
            "status.openUntil",
            'Invalid value: "soon": openUntil in body must be of type date-time: "soon"',
        ),
    ),
    "a rate above 100": (
        {"window": {"failureRatePercent": 100.1}},
        Cause(
            "status.window.failureRatePercent",
            "Invalid value: 100.1: window.failureRatePercent in body should be less than or equal to 100",
        ),
    ),
    "a negative total": (
        {"totals": {"late": -1}},
        Cause(
            "status.totals.late",
            "Invalid value: -1: totals.late in body should be greater than or equal to 0",
        ),
    ),
    "a message of more than 1024 characters": (
        {"message": "x" * 1025},
        Cause("status.message", "Too long: may not be more than 1024 bytes"),
    ),
    "six transitions": (
        {"transitions": [STATUS["transitions"][0]] * 6},
        Cause("status.transitions", "Too many: 6: must have at most 5 items"),
    ),
    "the same condition twice": (
        {"conditions": [STATUS["conditions"][0]] * 2},
        Cause("status.conditions[1]", 'Duplicate value: {"type":"Ready"}'),
    ),
    "a condition without a reason": (
        {"conditions": [{key: value for key, value in STATUS["conditions"][0].items() if key != "reason"}]},
        Cause("status.conditions[0].reason", "Required value"),
    ),
}


@pytest.mark.parametrize(("status", "cause"), BAD_STATUS.values(), ids=BAD_STATUS)
def test_refuses_a_status(status: dict[str, Any], cause: Cause, breakers: Breakers) -> None:
    breakers.create()
    with pytest.raises(Refused) as refused:
        breakers.patch_status({"status": status})
    assert refused.value.causes == [cause]
    assert "status" not in breakers.get()


def test_status_and_spec_are_written_through_doors_of_their_own(breakers: Breakers) -> None:
    """And only a change of spec raises metadata.generation."""
    created = breakers.create({"failureThreshold": 3}, status=STATUS)
    assert "status" not in created
    assert created["metadata"]["generation"] == 1

    by_status = breakers.patch_status({"spec": {"failureThreshold": 4}, "status": STATUS})
    assert by_status["spec"] == {"failureThreshold": 3}
    assert by_status["status"] == STATUS
    assert by_status["metadata"]["generation"] == 1

    by_spec = breakers.patch({"spec": {"failureThreshold": 5}, "status": {"state": "Closed"}})
    assert by_spec["spec"] == {"failureThreshold": 5}
    assert by_spec["status"] == STATUS
    assert by_spec["metadata"]["generation"] == 2


# -- kubectl


@pytest.fixture
def shown(breakers: Breakers) -> Breakers:
    """Three breakers: one open, one closed below minimumCalls, and one that no operator has seen."""
    breakers.create(name="open")
    breakers.patch_status({"status": STATUS}, name="open")
    breakers.create(name="closed")
    closed = {
        "state": "Closed",
        "since": "2020-06-01T12:00:00.000Z",
        "reason": "ProbesSucceeded",
        "consecutiveFailures": 0,
        "window": {"calls": 2, "failures": 0, "slow": 0},
        "trips": 0,
        "policy": {"failureThreshold": 5, "mode": "Observe"},
        "conditions": [STATUS["conditions"][0] | {"status": "Unknown", "reason": "StoreUnavailable"}],
    }
    breakers.patch_status({"status": closed}, name="closed")
    breakers.create(name="unseen")
    return breakers


def _table(text: str) -> list[dict[str, str]]:
    """The rows of a table of kubectl; a cell begins where its header does, so it may be empty."""
    header, *rows = text.rstrip("\n").split("\n")
    starts = [found.start() for found in re.finditer(r"\S+", header)]
    cells = [slice(start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return [{header[cell].strip(): row[cell].strip() for cell in cells} for row in rows]


OPEN_ROW = {
    "NAME": "open",
    "STATE": "Open",
    "REASON": "ConsecutiveFailures",
    "FAILURES": "5",
    "RATE": "58.3",
    "RETRY-AT": "2020-06-01T12:00:30.250Z",
    "READY": "True",
}
CLOSED_ROW = {
    "NAME": "closed",
    "STATE": "Closed",
    "REASON": "ProbesSucceeded",
    "FAILURES": "0",
    "RATE": "",
    "RETRY-AT": "",
    "READY": "Unknown",
}
UNSEEN_ROW = {"NAME": "unseen"} | dict.fromkeys(["STATE", "REASON", "FAILURES", "RATE", "RETRY-AT", "READY"], "")


def test_kubectl_get_shows_the_columns_in_this_order(control_plane: ControlPlane, shown: Breakers) -> None:
    table = _table(control_plane.kubectl("get", "breakers", "-n", shown.namespace))
    assert [list(row) for row in table] == [
        ["NAME", "STATE", "REASON", "FAILURES", "RATE", "RETRY-AT", "READY", "AGE"],
    ] * 3
    assert all(re.fullmatch(r"\d+s", row.pop("AGE")) for row in table)
    assert table == [CLOSED_ROW, OPEN_ROW, UNSEEN_ROW]


def test_kubectl_get_wide_shows_four_more(control_plane: ControlPlane, shown: Breakers) -> None:
    table = _table(control_plane.kubectl("get", "breakers", "-n", shown.namespace, "-o", "wide"))
    assert list(table[0])[-5:] == ["AGE", "SINCE", "THRESHOLD", "TRIPS", "MODE"]
    closed, opened, unseen = table
    assert re.fullmatch(r"\d+y(\d+d)?", opened["SINCE"])
    assert (opened["THRESHOLD"], opened["TRIPS"], opened["MODE"]) == ("5", "4", "Enforce")
    assert (closed["THRESHOLD"], closed["TRIPS"], closed["MODE"]) == ("5", "0", "Observe")
    assert [unseen[name] for name in ("SINCE", "THRESHOLD", "TRIPS", "MODE")] == [""] * 4


@pytest.mark.parametrize("word", ["breaker", "breakers", "circuitbreaker", "circuitbreakers", "resilience"])
def test_kubectl_knows_the_names_and_the_category(word: str, control_plane: ControlPlane, breakers: Breakers) -> None:
    breakers.create()
    listed = control_plane.kubectl("get", word, "-n", breakers.namespace, "-o", "name")
    assert listed == "circuitbreaker.circuitbreaker.dev/payments\n"


def test_breakers_are_selected_by_state(control_plane: ControlPlane, shown: Breakers) -> None:
    def selected(selector: str) -> str:
        return control_plane.kubectl(
            "get", "breakers", "-n", shown.namespace, "--field-selector", selector, "-o", "name"
        )

    assert selected("status.state=Open") == "circuitbreaker.circuitbreaker.dev/open\n"
    assert selected("status.state=HalfOpen") == ""
    assert selected("status.state=") == "circuitbreaker.circuitbreaker.dev/unseen\n"


def test_kubectl_waits_for_a_state_and_for_a_condition(control_plane: ControlPlane, shown: Breakers) -> None:
    for what in ("jsonpath={.status.state}=Open", "condition=Ready"):
        control_plane.kubectl("wait", f"--for={what}", "breaker/open", "-n", shown.namespace, "--timeout=5s")
    with pytest.raises(LocalError, match="timed out waiting for the condition"):
        control_plane.kubectl(
            "wait", "--for=condition=Ready", "breaker/closed", "-n", shown.namespace, "--timeout=100ms"
        )


@pytest.fixture(scope="module")
def published(control_plane: ControlPlane) -> None:
    """The API server publishes the descriptions (OpenAPI) some seconds after it serves the resource."""

    def is_explained() -> bool:
        try:
            return bool(control_plane.kubectl("explain", "breaker"))
        except LocalError:
            return False

    wait_until(is_explained, timeout_seconds=60, what="the OpenAPI document of the resource")


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("path", ["", "spec", "spec.recoveryTimeout", "spec.backoff.max", "status.totals.late"])
def test_kubectl_explains_every_field(path: str, control_plane: ControlPlane) -> None:
    schema = ROOT
    for name in filter(None, path.split(".")):
        schema = schema["properties"][name]
    explained = " ".join(control_plane.kubectl("explain", f"breaker.{path}".rstrip(".")).split())
    assert schema["description"] in explained
    for name, child in schema.get("properties", {}).items():
        if name not in {"apiVersion", "kind", "metadata"}:  # of these kubectl tells its own story
            assert child["description"] in explained


def test_the_definition_has_no_complaint_of_the_api_server(breaker_crd: str, control_plane: ControlPlane) -> None:
    crd = json.loads(control_plane.kubectl("get", "crd", breaker_crd, "-o", "json"))
    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert crd["status"]["storedVersions"] == ["v1alpha1"]
