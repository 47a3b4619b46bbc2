"""Waiting for a condition: never blindly, never without an end."""

from collections.abc import Callable

from circuitbreaker_local.waiting import wait_until


def until(condition: Callable[[], bool], what: str, timeout_seconds: float = 5.0) -> None:
    """Raises LocalError that names what did not happen."""
    wait_until(condition, timeout_seconds=timeout_seconds, what=what)
