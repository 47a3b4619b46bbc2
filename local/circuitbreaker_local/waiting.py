"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable

from circuitbreaker_local.errors import LocalError

POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float, what: str) -> None:
    """Return as soon as `condition()` is true; raise `LocalError("... what ...")` when the time is up."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise LocalError(f"waited {timeout_seconds:g} s for {what}, in vain")
        time.sleep(POLL_SECONDS)
