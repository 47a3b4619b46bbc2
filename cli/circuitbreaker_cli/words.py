"""The vocabulary: how texts of others, times and lengths are written. Pure.

Sentences about why a breaker is in its state are the operator's own (circuitbreaker_operator.wording), as in status and
Events.
"""

from typing import Final

from circuitbreaker_contract.durations import format_duration
from circuitbreaker_operator import times
from circuitbreaker_operator.wording import plain

LONGEST: Final = 1_024  # characters of any one text that others wrote
UNKNOWN: Final = "Unknown"  # no status yet
FOREIGN: Final = "of another breaker of this name: an earlier one, or another installation's"


def safe(value: object, longest: int = LONGEST) -> str:
    """Text of others in one line that no terminal takes for a command: nothing but what can be printed."""
    return plain(str(value), longest)


def length(ms: int) -> str:
    """A length as people say it, `1m30s`: whole seconds from one second on, days from two days on."""
    if ms >= 172_800_000:
        return f"{ms // 86_400_000}d"
    return format_duration(ms if ms < 1_000 else ms // 1_000 * 1_000)


def moment(ms: int, now_ms: int) -> str:
    """An instant with how far it is: `in 12s, at 2026-01-01T00:00:00.000Z`, or `5s ago, at ...`."""
    ahead = ms - now_ms
    how_far = f"in {length(ahead)}" if ahead > 0 else f"{length(-ahead)} ago"
    return f"{how_far}, at {times.to_text(ms)}"


def percent(rate: float | None) -> str:
    """A rate with one decimal, `50.0 %`; empty where it is unknown."""
    return "" if rate is None else f"{rate:.1f} %"
