"""Would this failure open the breaker, as far as this process can see? Then it is reported at once.

Only an estimate of when to send: what opens a breaker is decided in Redis, from what all processes report.
"""

from collections.abc import Sequence
from typing import Final

from circuitbreaker_client.outcomes import IGNORED
from circuitbreaker_contract.policy import Policy

_LONGEST_LOOK: Final = 1_000  # a longer streak is reported within the flush interval in any case


class TripEstimate:
    """Fed with what leaves the buffer, asked at each failure. Times are seconds of any monotonic clock."""

    __slots__ = ("_calls", "_failures", "_half_seconds", "_policy", "_streak", "_turned_at", "buffered_failures")

    def __init__(self, policy: Policy, now: float) -> None:
        self._policy = policy
        self._half_seconds = (policy.window_ms or 60_000) / 2_000
        self._turned_at = now
        self._calls = (0, 0)  # in the half window before, and in this one
        self._failures = (0, 0)
        self._streak = 0
        self.buffered_failures = 0  # about how many are in the buffer

    def taken(self, runs: list[tuple[str, int]], now: float) -> None:
        """These have left the buffer."""
        self.buffered_failures = 0
        if now - self._turned_at > self._half_seconds:
            in_time = now - self._turned_at < 2 * self._half_seconds
            self._calls = (self._calls[1] if in_time else 0, 0)
            self._failures = (self._failures[1] if in_time else 0, 0)
            self._turned_at = now
        calls = failures = 0
        for letter, count in runs:
            if letter in "FM":
                self._streak += count
                failures += count
                calls += count
            elif letter in "SL":
                self._streak = 0
                calls += count
        self._calls = (self._calls[0], self._calls[1] + calls)
        self._failures = (self._failures[0], self._failures[1] + failures)

    def trips(self, buffer: Sequence[float]) -> bool:
        """Whether the failure that is last in the buffer is the one that opens."""
        self.buffered_failures += 1
        policy = self._policy
        if policy.failure_threshold and self._streak_of(buffer) == policy.failure_threshold:
            return True
        if not policy.failure_rate_percent:
            return False
        calls = sum(self._calls) + len(buffer)
        failures = sum(self._failures) + self.buffered_failures
        if calls < policy.minimum_calls or 100 * failures < policy.failure_rate_percent * calls:
            return False
        return calls == policy.minimum_calls or 100 * (failures - 1) < policy.failure_rate_percent * (calls - 1)

    def _streak_of(self, buffer: Sequence[float]) -> int:
        streak = 0
        for mark in reversed(buffer):
            if mark >= 0.0 or streak >= _LONGEST_LOOK:
                return streak
            if mark != IGNORED:
                streak += 1
        return streak + self._streak
