"""Calls for a simulation: what one is, and those of a plan, made with a seed. Pure.

A call is given by when it begins, how it ends and, where that is known, how long it takes. Made ones begin evenly
spaced, and chance decides how each ends; the same plan and seed make the same calls.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from circuitbreaker_cli.words import safe
from circuitbreaker_contract.durations import format_duration, parse_setting_ms
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Outcome
from circuitbreaker_contract.window import is_bad

# Where made traffic and traces in seconds begin: day 10,000 of the Unix epoch, so that windows begin with them. Not 0,
# which to the rules is no time.
START_MS: Final = 864_000_000_000
MOST_CALLS: Final = 1_000_000
CLIENT: Final = "client"
_PART: Final = re.compile(r"(?:(?P<start>[0-9a-z]+)-(?P<end>[0-9a-z]*):)?(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,6})?)%")


@dataclass(frozen=True, slots=True)
class Call:
    """`count` calls alike that begin at one instant. `duration_ms` None: unknown, and taken for none."""

    at_ms: int
    outcome: Outcome
    duration_ms: int | None = None
    count: int = 1
    client: str = CLIENT

    def seen_by(self, policy: Policy) -> Outcome:
        """How it ends for this policy: a known duration decides whether it was slow, else its outcome says so."""
        if self.duration_ms is None or not policy.counts_slow or self.outcome is Outcome.IGNORED:
            return self.outcome
        if self.duration_ms > policy.slow_call_duration_ms:
            return Outcome.SLOW_FAILURE if is_bad(self.outcome) else Outcome.SLOW_SUCCESS
        return Outcome.FAILURE if is_bad(self.outcome) else Outcome.SUCCESS


class Part(NamedTuple):
    """A share of the calls that begin from `start_ms` on and before `end_ms`; 0.0 to 1.0."""

    start_ms: int
    end_ms: int
    share: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Traffic to make: `rate` calls a second for `length_ms`, by `clients` processes in turn."""

    rate: float
    length_ms: int
    failures: tuple[Part, ...] = ()
    slow: tuple[Part, ...] = ()
    clients: int = 1
    seed: int = 0

    @property
    def calls(self) -> int:
        return max(1, round(self.rate * self.length_ms / 1_000))

    def made(self) -> Iterator[Call]:
        """The calls. A failure is not slow as well."""
        chance = random.Random(self.seed)  # noqa: S311 # traffic, not secrets
        for number in range(self.calls):
            offset_ms = int(number * 1_000 / self.rate)
            failed, slow = (
                chance.random(),
                chance.random(),
            )  # both each time: one share does not change the other's draws
            outcome = Outcome.SUCCESS
            if failed < _share(self.failures, offset_ms):
                outcome = Outcome.FAILURE
            elif slow < _share(self.slow, offset_ms):
                outcome = Outcome.SLOW_SUCCESS
            yield Call(START_MS + offset_ms, outcome, client=f"{CLIENT}-{number % self.clients}")


def _share(parts: Sequence[Part], offset_ms: int) -> float:
    return next((part.share for part in parts if part.start_ms <= offset_ms < part.end_ms), 0.0)


def parse_parts(text: str, length_ms: int) -> tuple[Part, ...]:
    """`0-30s:1%,30s-60s:80%,60s-:5%`, or `5%` for all the time; nothing happens in between.

    Raises ValueError, which names the part that is wrong.
    """
    parts: list[Part] = []
    for written in text.split(","):
        word = written.strip()
        found = _PART.fullmatch(word)
        if found is None:
            raise ValueError(f"{safe(word, 64)!r} is no share like 5%, 30s-60s:80% or 60s-:1%")
        start_ms = parse_setting_ms(found["start"]) if found["start"] else 0
        end_ms = parse_setting_ms(found["end"]) if found["end"] else length_ms
        percent = float(found["percent"])
        if percent > 100:
            raise ValueError(f"{word!r}: a share is at most 100%")
        if start_ms >= end_ms:
            raise ValueError(f"{word!r}: must end after it begins (the traffic ends at {format_duration(length_ms)})")
        if parts and start_ms < parts[-1].end_ms:
            raise ValueError(f"{word!r}: must not begin before the part ahead of it ends")
        parts.append(Part(start_ms, end_ms, percent / 100))
    return tuple(parts)
