"""A breaker's policy: what opens it, how long, what closes it. Resolved (no field left open), checked when built.

In JSON a field that is left out means that the rule is off, or the default that its bounds name here. The Lua twin is
functions/policy.lua, with the same words for what is wrong.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from circuitbreaker_contract.errors import InvalidPolicyError

_DAY_MS = 24 * 60 * 60 * 1000
_HOUR_MS = 60 * 60 * 1000
LATEST_MS: Final = 9_000_000_000_000  # the year 2255; a time beyond it is a mistake

DEFAULT_WINDOW_MS: Final = 60_000
DEFAULT_MINIMUM_CALLS: Final = 10


def number_of(value: Any) -> Any:
    """A number of a JSON text as we write it: JSON has one kind, and 3.0 is 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Bounds(NamedTuple):
    """A number of the policy: its name in JSON, the lowest and the highest value, and whether it must be there."""

    name: str
    low: int
    high: int
    required: bool = False


# field of Policy -> bounds, in the order of the canonical text
BOUNDS: Final[Mapping[str, Bounds]] = {
    "failure_threshold": Bounds("failureThreshold", 0, 1_000_000, required=True),
    "recovery_timeout_ms": Bounds("recoveryTimeoutMs", 100, _DAY_MS, required=True),
    "half_open_limit": Bounds("halfOpenLimit", 1, 1_000, required=True),
    "success_threshold": Bounds("successThreshold", 1, 1_000, required=True),
    "probe_timeout_ms": Bounds("probeTimeoutMs", 100, _HOUR_MS, required=True),
    "window_calls": Bounds("windowCalls", 1, 10_000),
    "window_ms": Bounds("windowMs", 1_000, _HOUR_MS),
    "minimum_calls": Bounds("minimumCalls", 1, 10_000),
    "failure_rate_percent": Bounds("failureRatePercent", 1, 100),
    "slow_call_duration_ms": Bounds("slowCallDurationMs", 1, _HOUR_MS),
    "slow_call_rate_percent": Bounds("slowCallRatePercent", 1, 100),
    "backoff_factor": Bounds("backoffFactor", 1, 10),
    "backoff_max_ms": Bounds("backoffMaxMs", 100, _DAY_MS),
    "jitter_percent": Bounds("jitterPercent", 0, 50),
    "min_reporters": Bounds("minReporters", 1, 1_000),
}
_WORDS = ("mode", "overrideState", "overrideUntil", "overrideReason")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Mode(StrEnum):
    """Observe counts and says what it would have done, and never rejects."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


@dataclass(frozen=True, slots=True)
class Override:
    """A state that a person holds the breaker in. `state` is Open or Closed; `until_ms` 0: until it is taken away."""

    state: str
    until_ms: int
    reason: str

    def __post_init__(self) -> None:
        if self.state not in ["Open", "Closed"]:
            raise InvalidPolicyError("overrideState: must be Open or Closed")
        if not _is_whole(self.until_ms, 0, LATEST_MS):
            raise InvalidPolicyError(f"overrideUntil: must be a whole number from 0 to {LATEST_MS}")
        text = self.reason
        if not isinstance(text, str) or not 1 <= len(text.encode()) <= 1024 or _CONTROL.search(text):
            raise InvalidPolicyError("overrideReason: must be 1 to 1024 bytes without control characters")


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers that the rules work with; times in milliseconds. Raises InvalidPolicyError when they do not fit.

    0 turns off `failure_threshold`, `failure_rate_percent`, `slow_call_duration_ms` with `slow_call_rate_percent`, and
    `backoff_factor` with `backoff_max_ms` and `jitter_percent`. Of `window_calls` and `window_ms` exactly one is set.
    """

    failure_threshold: int
    recovery_timeout_ms: int
    half_open_limit: int
    success_threshold: int
    probe_timeout_ms: int
    window_calls: int = 0
    window_ms: int = 0
    minimum_calls: int = 0
    failure_rate_percent: int = 0
    slow_call_duration_ms: int = 0
    slow_call_rate_percent: int = 0
    backoff_factor: int = 0
    backoff_max_ms: int = 0
    jitter_percent: int | None = None
    min_reporters: int = 1
    mode: Mode = Mode.ENFORCE
    override: Override | None = None

    def __post_init__(self) -> None:
        for field, (name, low, high, required) in BOUNDS.items():
            value = getattr(self, field)
            if (required or value not in {0, None}) and not _is_whole(value, low, high):
                raise InvalidPolicyError(f"{name}: must be a whole number from {low} to {high}")
        if self.window_calls and self.window_ms:
            raise InvalidPolicyError("windowCalls: set only one of windowCalls and windowMs")
        if not self.window_calls and not self.window_ms:
            object.__setattr__(self, "window_ms", DEFAULT_WINDOW_MS)
        if not self.minimum_calls:
            fitting = min(DEFAULT_MINIMUM_CALLS, self.window_calls or DEFAULT_MINIMUM_CALLS)
            object.__setattr__(self, "minimum_calls", fitting)
        if contradiction := self._contradiction():
            raise InvalidPolicyError(contradiction)

    @property
    def counts_slow(self) -> bool:
        """Whether slow calls can open it; then a slow success fails a probe."""
        return self.slow_call_rate_percent > 0

    def to_json(self) -> str:
        """Canonical text: fixed order, no spaces, nothing that is off. Equal policies have equal texts."""
        raw: dict[str, Any] = {}
        for field, bounds in BOUNDS.items():
            value = getattr(self, field)
            if bounds.required or (field == "jitter_percent" and value is not None) or value:
                raw[bounds.name] = value
        raw["mode"] = self.mode.value
        if self.override is not None:
            raw["overrideState"] = self.override.state
            raw["overrideUntil"] = self.override.until_ms
            raw["overrideReason"] = self.override.reason
        return json.dumps(raw, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def stored(cls, text: str) -> Self:
        """The policy of a text that the functions stored: fields of a newer edition are passed over.

        Raises InvalidPolicyError for anything else.
        """
        return cls.from_json(text, strict=False)

    @classmethod
    def from_json(cls, text: str, *, strict: bool = True) -> Self:
        """The policy of a JSON text; raises InvalidPolicyError for anything else."""
        try:
            raw = json.loads(text)
        except ValueError:
            raise InvalidPolicyError("not a JSON object") from None
        if not isinstance(raw, dict):
            raise InvalidPolicyError("not a JSON object")
        return cls.from_mapping(raw, strict=strict)

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any], *, strict: bool = True) -> Self:
        """The policy of `{JSON name: value}`; raises InvalidPolicyError for a missing, wrong or unknown field."""
        values: dict[str, Any] = {}
        for field, (name, low, high, required) in BOUNDS.items():
            if name not in raw:
                if required:
                    raise InvalidPolicyError(f"{name}: missing")
                continue
            value = number_of(raw[name])
            if not _is_whole(value, low, high):
                raise InvalidPolicyError(f"{name}: must be a whole number from {low} to {high}")
            values[field] = value
        if "window_calls" in values and "window_ms" in values:
            raise InvalidPolicyError("windowCalls: set only one of windowCalls and windowMs")
        if raw.get("mode", Mode.ENFORCE) not in list(Mode):
            raise InvalidPolicyError("mode: must be Enforce or Observe")
        values["mode"] = Mode(raw.get("mode", Mode.ENFORCE))
        if "overrideState" in raw:
            values["override"] = Override(
                raw["overrideState"], number_of(raw.get("overrideUntil", 0)), raw.get("overrideReason", "")
            )
        elif "overrideUntil" in raw or "overrideReason" in raw:
            raise InvalidPolicyError("overrideState: missing")
        known = {bounds.name for bounds in BOUNDS.values()} | set(_WORDS)
        if strict and (unknown := sorted(set(raw) - known)):
            raise InvalidPolicyError(f"a field that this version does not know: {unknown[0][:40]}")
        return cls(**values)

    def _contradiction(self) -> str | None:
        """What one field by itself cannot say."""
        if self.window_calls and self.minimum_calls > self.window_calls:
            return "minimumCalls: must not be larger than windowCalls"
        if not (self.failure_threshold or self.failure_rate_percent or self.slow_call_rate_percent):
            return "failureThreshold: 0 turns off the only rule; set failureRatePercent or slowCallRatePercent"
        if bool(self.slow_call_duration_ms) != bool(self.slow_call_rate_percent):
            return "slowCallDurationMs: set slowCallDurationMs and slowCallRatePercent together"
        if bool(self.backoff_factor) != bool(self.backoff_max_ms):
            return "backoffFactor: set backoffFactor and backoffMaxMs together"
        if self.jitter_percent is not None and not self.backoff_factor:
            return "jitterPercent: set backoffFactor as well"
        if self.backoff_max_ms and self.backoff_max_ms < self.recovery_timeout_ms:
            return "backoffMaxMs: must not be shorter than recoveryTimeoutMs"
        if self.mode is Mode.OBSERVE and self.override is not None and self.override.state == "Open":
            return "overrideState: Open refuses calls and mode Observe never does"
        return None


def _is_whole(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high
