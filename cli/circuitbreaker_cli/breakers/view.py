"""A resource as the API server showed it, read with care: anybody with the right may have written its status. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuitbreaker_cli.words import safe
from circuitbreaker_contract.durations import parse_duration_ms
from circuitbreaker_operator import times
from circuitbreaker_operator.resource import override_manager


@dataclass(frozen=True, slots=True)
class View:
    """One breaker. Texts are safe to print; numbers that are not there are 0 or None."""

    raw: Mapping[str, Any]

    @property
    def namespace(self) -> str:
        return safe(self._metadata.get("namespace", ""), 63)

    @property
    def name(self) -> str:
        return safe(self._metadata.get("name", ""), 253)

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def uid(self) -> str:
        return str(self._metadata.get("uid", ""))

    @property
    def resource_version(self) -> str:
        return str(self._metadata.get("resourceVersion", ""))

    @property
    def generation(self) -> int:
        return whole(self._metadata, "generation")

    @property
    def created_ms(self) -> int | None:
        return instant(self._metadata, "creationTimestamp")

    @property
    def spec(self) -> Mapping[str, Any]:
        return part(self.raw, "spec")

    @property
    def status(self) -> Mapping[str, Any]:
        return part(self.raw, "status")

    @property
    def policy(self) -> Mapping[str, Any]:
        """The policy in force, in the words of spec."""
        return part(self.status, "policy")

    @property
    def state(self) -> str:
        return self.text("state")

    @property
    def reason(self) -> str:
        return self.text("reason")

    @property
    def forced(self) -> bool:
        return self.status.get("forced") is True

    @property
    def observes(self) -> bool:
        return self.policy.get("mode") == "Observe"

    @property
    def since_ms(self) -> int | None:
        return instant(self.status, "since")

    @property
    def open_until_ms(self) -> int | None:
        return instant(self.status, "openUntil")

    @property
    def override(self) -> Mapping[str, Any]:
        """`spec.override`, in force or not."""
        return part(self.spec, "override")

    @property
    def override_manager(self) -> str:
        """Who last wrote spec.override; "" when nobody knows."""
        return override_manager(self.raw)

    @property
    def annotations(self) -> Mapping[str, Any]:
        return part(self._metadata, "annotations")

    def text(self, name: str) -> str:
        """A text of the status."""
        value = self.status.get(name)
        return safe(value) if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        """A whole number of the status."""
        return whole(self.status, name)

    def rate(self, name: str) -> float | None:
        """A rate of the window in percent; None below minimumCalls."""
        value = part(self.status, "window").get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def condition(self, kind: str) -> tuple[str, str, str]:
        """(status, reason, message); empty ones while there is none."""
        for each in self.status.get("conditions") or []:
            if isinstance(each, Mapping) and each.get("type") == kind:
                status, reason, message = (safe(each.get(name, "")) for name in ("status", "reason", "message"))
                return status, reason, message
        return "", "", ""

    def policy_ms(self, name: str) -> int:
        """A duration of the policy in force; 0 when it is not there."""
        return duration_ms(self.policy.get(name))

    @property
    def _metadata(self) -> Mapping[str, Any]:
        return part(self.raw, "metadata")


def part(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, Mapping) else {}


def whole(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def instant(raw: Mapping[str, Any], name: str) -> int | None:
    try:
        return times.to_ms(raw.get(name))
    except ValueError:
        return None


def duration_ms(text: object) -> int:
    try:
        return parse_duration_ms(text) if isinstance(text, str) else 0
    except ValueError:
        return 0
