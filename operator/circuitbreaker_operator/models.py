"""`spec` of the resource as the operator reads it: crds/circuitbreakers.yaml once more, in Python.

The API server has checked a resource before we see it, but perhaps against an older schema: what is stored stays stored
when the schema becomes stricter. So everything is checked here again, with the same bounds and the same words, and a
test holds both sides equal. Durations are text in the resource and whole milliseconds here; the names say so (`_ms`).
None means left out: the operator's default applies.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from circuitbreaker_contract.durations import parse_duration_ms
from circuitbreaker_contract.errors import CircuitBreakerError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The first half of the CRD's rule for a time; the other half, that the day exists, is datetime's work here.
RFC_3339 = (
    "[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?"
    "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VISIBLE = re.compile(r"\S", re.ASCII)  # as CEL's: a no-break space is a character like any other


class InvalidSpecError(CircuitBreakerError, ValueError):
    """A stored spec that cannot be put in force; the text is one line and names each field and its problem."""


class _Form(ABC):
    """How a value is written in the resource and what it is here; stands in `Annotated[int, Whole(1, 10)]`."""

    @abstractmethod
    def read(self, value: object) -> int | str:
        """The value here; raises PydanticCustomError with the words of the CRD."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """The form as the CRD's schema has it, less description and rules."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return self.schema()


@dataclass(frozen=True)
class Whole(_Form):
    """A whole number from `lowest` to `highest`."""

    lowest: int
    highest: int

    def read(self, value: object) -> int:
        # JSON has one kind of number, and to the API server 5.0 is the integer 5. A bool is an int to Python only.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not self.lowest <= value <= self.highest:
            raise _problem(f"must be a whole number from {self.lowest} to {self.highest}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}


@dataclass(frozen=True)
class Length(_Form):
    """A duration from `shortest` to `longest`, both given as durations; milliseconds here."""

    shortest: str
    longest: str

    @property
    def message(self) -> str:
        return f"must be a duration from {self.shortest} to {self.longest}, like 30s or 1m30s"

    def read(self, value: object) -> int:
        try:
            length_ms = parse_duration_ms(value) if isinstance(value, str) else -1
        except ValueError:
            length_ms = -1
        if not parse_duration_ms(self.shortest) <= length_ms <= parse_duration_ms(self.longest):
            raise _problem(self.message)
        return length_ms

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 32}


@dataclass(frozen=True)
class Instant(_Form):
    """An RFC 3339 time; milliseconds since the Unix epoch here, less what is finer than that."""

    message = "must be a time in RFC 3339 form, like 2030-01-31T18:00:00Z"

    def read(self, value: object) -> int:
        if not isinstance(value, str) or not re.fullmatch(RFC_3339, value):
            raise _problem(self.message)
        try:
            return (datetime.fromisoformat(value) - _EPOCH) // timedelta(milliseconds=1)
        except ValueError:  # the 30th of February
            raise _problem(self.message) from None

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 40}


@dataclass(frozen=True)
class Line(_Form):
    """Some text in one line, at most `longest` characters."""

    longest: int
    message = "must say why, in one line"

    def read(self, value: object) -> str:
        if not isinstance(value, str) or not _VISIBLE.search(value) or _CONTROL.search(value):
            raise _problem(self.message)
        if len(value) > self.longest:
            raise _problem(f"must have at most {self.longest} characters")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.longest}


_P = TypeVar("_P", bound="_Part")
_P_contra = TypeVar("_P_contra", bound="_Part", contravariant=True)


class _Part(BaseModel):
    # "ignore": the API server has pruned unknown fields already, and an older operator must outlive a newer CRD.
    model_config = ConfigDict(
        alias_generator=lambda name: to_camel(name.removesuffix("_ms")),
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )


@dataclass(frozen=True)
class Rule(Generic[_P_contra]):
    """A rule over several fields, the twin of a CEL rule; `field` is the path it speaks of, "" for the whole."""

    field: str
    message: str
    holds: Callable[[_P_contra], bool]


class Window(_Part):
    """The sliding window of the two rates: the last calls or a length of time, exactly one of both."""

    calls: Annotated[int, Whole(1, 10_000)] | None = None
    duration_ms: Annotated[int, Length("1s", "1h")] | None = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        _check(self, WINDOW_RULES)
        return self


class Backoff(_Part):
    """How openings in a row grow: recovery_timeout_ms x factor^(n-1), at most max_ms, less a random share."""

    factor: Annotated[int, Whole(1, 10)]
    max_ms: Annotated[int, Length("100ms", "24h")]
    jitter_percent: Annotated[int, Whole(0, 50)] | None = None


class Quorum(_Part):
    """How many distinct client processes must have seen failures before the breaker may open."""

    min_reporters: Annotated[int, Whole(1, 1_000)]


class Override(_Part):
    """A state held by a person, until `until_ms` (Unix epoch) or until it is removed."""

    state: Literal["Open", "Closed"]
    until_ms: Annotated[int, Instant()] | None = None
    reason: Annotated[str, Line(256)]


class CircuitBreakerSpec(_Part):
    """`spec` as stored. A test holds it and crds/ to the same names, bounds and messages.

    Values are given as the resource has them, so durations and times as text, under either name.
    """

    failure_threshold: Annotated[int, Whole(0, 1_000_000)] | None = None
    recovery_timeout_ms: Annotated[int, Length("100ms", "24h")] | None = None
    half_open_limit: Annotated[int, Whole(1, 1_000)] | None = None
    success_threshold: Annotated[int, Whole(1, 1_000)] | None = None
    probe_timeout_ms: Annotated[int, Length("100ms", "1h")] | None = None
    window: Window | None = None
    minimum_calls: Annotated[int, Whole(1, 10_000)] | None = None
    failure_rate_percent: Annotated[int, Whole(1, 100)] | None = None
    slow_call_duration_ms: Annotated[int, Length("1ms", "1h")] | None = None
    slow_call_rate_percent: Annotated[int, Whole(1, 100)] | None = None
    backoff: Backoff | None = None
    quorum: Quorum | None = None
    mode: Literal["Enforce", "Observe"] | None = None
    override: Override | None = None

    @model_validator(mode="after")
    def _rules(self) -> Self:
        _check(self, SPEC_RULES)
        return self


def _keeps_a_rule(spec: CircuitBreakerSpec) -> bool:
    rates = (spec.failure_rate_percent, spec.slow_call_rate_percent)
    return spec.failure_threshold != 0 or any(rate is not None for rate in rates)


def _minimum_fits_window(spec: CircuitBreakerSpec) -> bool:
    calls = spec.window.calls if spec.window else None
    return spec.minimum_calls is None or calls is None or spec.minimum_calls <= calls


def _backoff_reaches_timeout(spec: CircuitBreakerSpec) -> bool:
    if spec.backoff is None or spec.recovery_timeout_ms is None:
        return True
    return spec.backoff.max_ms >= spec.recovery_timeout_ms


def _observe_refuses_nothing(spec: CircuitBreakerSpec) -> bool:
    return not (spec.mode == "Observe" and spec.override is not None and spec.override.state == "Open")


WINDOW_RULES = (
    Rule[Window](
        "",
        "set exactly one of calls and duration",
        lambda window: (window.calls is None) != (window.duration_ms is None),
    ),
)
SPEC_RULES = (
    Rule(
        "failureThreshold",
        "0 turns off the only rule; set failureRatePercent or slowCallRatePercent as well",
        _keeps_a_rule,
    ),
    Rule("minimumCalls", "must not be larger than window.calls", _minimum_fits_window),
    Rule[CircuitBreakerSpec](
        "slowCallDuration",
        "has no effect alone; set slowCallRatePercent as well",
        lambda spec: spec.slow_call_duration_ms is None or spec.slow_call_rate_percent is not None,
    ),
    Rule[CircuitBreakerSpec](
        "slowCallRatePercent",
        "has no effect alone; set slowCallDuration as well",
        lambda spec: spec.slow_call_rate_percent is None or spec.slow_call_duration_ms is not None,
    ),
    Rule("backoff.max", "must not be shorter than recoveryTimeout", _backoff_reaches_timeout),
    Rule(
        "override.state",
        "Open refuses calls and mode Observe never does; set mode Enforce first",
        _observe_refuses_nothing,
    ),
)


def parse_spec(raw: Mapping[str, Any]) -> CircuitBreakerSpec:
    """The spec of a stored resource, as JSON has it.

    Raises InvalidSpecError with all problems in one line, like
    `spec.recoveryTimeout: must be a duration from 100ms to 24h, like 30s or 1m30s; spec.window: set exactly ...`.
    """
    try:
        return CircuitBreakerSpec.model_validate(raw)
    except ValidationError as error:
        raise InvalidSpecError("; ".join(_readable(error))) from None


def _check(part: _P, rules: Iterable[Rule[_P]]) -> None:
    """Raises ValidationError with every rule that does not hold."""
    broken = [
        InitErrorDetails(type=_problem(rule.message), loc=tuple(filter(None, rule.field.split("."))), input=part)
        for rule in rules
        if not rule.holds(part)
    ]
    if broken:
        raise ValidationError.from_exception_data(type(part).__name__, broken)


def _readable(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        path = ".".join(("spec", *map(str, detail["loc"])))
        yield f"{path}: {_words(detail)}"


def _words(detail: ErrorDetails) -> str:
    """What is wrong, in the words of our own forms and rules, or in place of pydantic's."""
    match detail["type"]:
        case "missing":
            return "is required"
        case "literal_error":
            return f"must be {detail['ctx']['expected']}"
        case "model_type" | "model_attributes_type":
            return "must be an object"
        case _:
            return detail["msg"]


def _problem(message: str) -> PydanticCustomError:
    return PydanticCustomError("circuitbreaker", "{message}", {"message": message})
