"""What the operator keeps of a resource. Ten thousand of them must be cheap, so spec and status stay JSON text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_operator.wording import plain

GROUP = "circuitbreaker.dev"
VERSION = "v1alpha1"
PLURAL = "circuitbreakers"
KIND = "CircuitBreaker"
API_VERSION = f"{GROUP}/{VERSION}"
RESET_ANNOTATION = f"{GROUP}/reset"
CATCH_UP = "catchUp"  # in a status: how far the Events are, while there are many; events.py has the theory
LONGEST_MANAGER = 128  # characters, as the API server has it


@dataclass(frozen=True, slots=True)
class Resource:
    """A CircuitBreaker as the API server last showed it. `reset` is the annotation's value, None without one.

    `override_manager` is who last set spec.override, "" when there is none or nobody knows.
    """

    key: BreakerKey
    uid: str
    generation: int
    resource_version: str
    spec_json: str
    status_json: str
    reset: str | None
    override_manager: str = ""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """The resource of an object of the API; raises ValueError for a name that no key can have."""
        metadata = body["metadata"]
        return cls(
            key=BreakerKey.of(metadata["namespace"], metadata["name"]),
            uid=metadata["uid"],
            generation=int(metadata.get("generation") or 0),
            resource_version=str(metadata["resourceVersion"]),
            spec_json=_text(body.get("spec")),
            status_json=_text(body.get("status")),
            reset=(metadata.get("annotations") or {}).get(RESET_ANNOTATION),
            override_manager=override_manager(body),
        )

    @property
    def spec(self) -> dict[str, Any]:
        return dict(json.loads(self.spec_json))

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.status_json))

    def asks_the_same_as(self, other: "Resource") -> bool:
        """Whether nothing that a person may edit differs: our own writes of status come back as events."""
        return (self.uid, self.generation, self.spec_json, self.reset) == (
            other.uid,
            other.generation,
            other.spec_json,
            other.reset,
        )


def override_manager(body: Mapping[str, Any]) -> str:
    """The field manager that last wrote a field of spec.override. Only its name is kept: managedFields are large."""
    if not (body.get("spec") or {}).get("override"):
        return ""
    owning = [
        each
        for each in body["metadata"].get("managedFields") or []
        if "f:override" in ((each.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    owning.sort(key=lambda each: str(each.get("time") or ""))
    return plain(str(owning[-1].get("manager") or ""), LONGEST_MANAGER) if owning else ""


def _text(part: object) -> str:
    return json.dumps(part, separators=(",", ":"), sort_keys=True) if isinstance(part, dict) else "{}"


def version_number(resource_version: str) -> int:
    """Resource versions grow, and since Kubernetes 1.35 are said to; 0 for one that is no number."""
    return int(resource_version) if resource_version.isdecimal() else 0
