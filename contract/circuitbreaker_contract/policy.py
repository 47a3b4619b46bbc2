"""A breaker's policy: what opens it, how long, what closes it. Resolved (no field left open), checked when built."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from circuitbreaker_contract.errors import InvalidPolicyError

_DAY_MS = 24 * 60 * 60 * 1000
_HOUR_MS = 60 * 60 * 1000

# name in JSON -> (lowest, highest). The Lua twin is functions/policy.lua; a test holds both to the same table.
BOUNDS: dict[str, tuple[int, int]] = {
    "failureThreshold": (1, 1_000_000),
    "recoveryTimeoutMs": (100, _DAY_MS),
    "halfOpenLimit": (1, 1_000),
    "successThreshold": (1, 1_000),
    "probeTimeoutMs": (100, _HOUR_MS),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The numbers that the rules work with; times in milliseconds. Raises InvalidPolicyError when out of bounds."""

    failure_threshold: int
    recovery_timeout_ms: int
    half_open_limit: int
    success_threshold: int
    probe_timeout_ms: int

    def __post_init__(self) -> None:
        for name, value in self._items():
            low, high = BOUNDS[name]
            if type(value) is not int or not low <= value <= high:
                raise InvalidPolicyError(f"{name}: must be a whole number from {low} to {high}")

    def to_json(self) -> str:
        """Canonical text: every field, in a fixed order, without spaces. Equal policies have equal texts."""
        return json.dumps(dict(self._items()), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The policy of a text as `to_json` writes it; raises InvalidPolicyError for anything else."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise InvalidPolicyError(f"not JSON: {error}") from None
        if not isinstance(raw, dict):
            raise InvalidPolicyError("not a JSON object")
        return cls.from_mapping(raw)

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Self:
        """The policy of `{JSON name: value}`; raises InvalidPolicyError for a missing or unknown field."""
        if missing := [name for name in BOUNDS if name not in raw]:
            raise InvalidPolicyError(f"{missing[0]}: missing")
        policy = cls(**{field.name: raw[name] for field, name in zip(fields(cls), BOUNDS, strict=True)})
        if unknown := sorted(set(raw) - set(BOUNDS)):
            raise InvalidPolicyError(f"a field that this version does not know: {unknown[0][:40]}")
        return policy

    def _items(self) -> tuple[tuple[str, Any], ...]:
        return tuple((name, getattr(self, field.name)) for field, name in zip(fields(self), BOUNDS, strict=True))
