"""`kubectl breaker explain`: what it says of a spec that is not in force. Pure."""

from typing import Any

import pytest

from circuitbreaker_cli.breakers import patches
from circuitbreaker_cli.breakers.explaining import next_steps, why
from circuitbreaker_cli.breakers.view import View

NOW_MS = 1_900_000_000_000
INVALID = {"type": "Ready", "status": "False", "reason": "InvalidSpec", "message": "spec.backoff.max: too short"}
AWAY = {"type": "Ready", "status": "Unknown", "reason": "StoreUnavailable", "message": "Redis does not answer"}
READY = {"type": "Ready", "status": "True", "reason": "PolicyInForce", "message": ""}
CLOSED = {"state": "Closed", "reason": "Created", "message": "no outcome has changed it yet", "observedGeneration": 1}
OVERRIDE = {"override": {"state": "Open", "reason": "maintenance"}}
LEFT_OVER = "spec.override has no effect: its until is past"
WAITS = "its last edit is not in force yet (generation 2, status of 1); `kubectl breaker doctor` looks why"


def view(status: dict[str, Any], *, generation: int = 1, spec: dict[str, Any] | None = None) -> View:
    metadata = {"namespace": "shop", "name": "pay", "generation": generation}
    return View({"metadata": metadata, "spec": spec or {}, "status": status})


@pytest.mark.parametrize("condition", [INVALID, AWAY], ids=lambda each: each["reason"])
def test_one_that_never_was_in_force_says_what_stops_it(condition: dict[str, str]) -> None:
    """The operator has written why: nobody is sent to look for an operator."""
    never = view({"conditions": [condition]}, spec=OVERRIDE)
    said = f"({condition['reason']}): {condition['message']}"
    assert why(never, NOW_MS) == [f"the spec as it is now is not in force {said}"]
    assert next_steps(never, NOW_MS) == ["it comes into force once that is mended"]
    assert condition["message"] in patches.obstacle(never)


def test_one_that_no_operator_has_seen() -> None:
    unseen = view({}, spec=OVERRIDE)
    assert why(unseen, NOW_MS) == ["no operator has written a status for it yet"]
    assert "looks for one" in next_steps(unseen, NOW_MS)[0]
    assert "no operator" in patches.obstacle(unseen)


def test_an_override_that_waits_is_not_one_that_is_over() -> None:
    """Redis may be away, or the operator: it comes into force later, and then holds."""
    status = CLOSED | {"conditions": [READY]}
    assert why(view(status, generation=2, spec=OVERRIDE), NOW_MS)[1:] == [WAITS]
    assert why(view(status | {"observedGeneration": 2}, generation=2, spec=OVERRIDE), NOW_MS)[1:] == [LEFT_OVER]
    assert why(view(status), NOW_MS)[1:] == []
