"""The rules of the contract over calls of the past, or made ones: when a breaker would have opened, and for what. Pure.

One breaker, driven as a fleet of strict clients would drive it. A call is asked for when it begins: Open refuses it
and the rules hear nothing of it; Closed permits it and counts its outcome when it ends; HalfOpen permits it as a probe
while a slot is free, and refuses it otherwise. What is due by itself (recoveryTimeout, backoff, probeTimeout) happens
at its time, between calls too. A refused call is not tried again, and a client's pause after a refusal is not made: a
trace tells nothing of either.

Mode and override are left out: what is shown is what Enforce does when nobody interferes.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from circuitbreaker_cli.marks import WORST_FIRST
from circuitbreaker_cli.simulation.traffic import Call
from circuitbreaker_contract import rules
from circuitbreaker_contract.breaker import Breaker, Definition
from circuitbreaker_contract.policy import Mode, Policy
from circuitbreaker_contract.state import Decision, Outcome, Projection, State, Transition
from circuitbreaker_contract.window import BUCKETS, is_bad, is_slow

SLOTS: Final = 60  # of the plot, at most: it fits into 80 columns, and is the same on every terminal
_NAME: Final = "simulate"  # owner and uid: of the jitter's name too
_NICE_MS: Final = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000),
    *(600_000, 900_000, 1_800_000, 3_600_000, 7_200_000, 21_600_000, 43_200_000, 86_400_000),
)


@dataclass(frozen=True, slots=True)
class Tally:
    """Calls by what became of them. `late`: of the permitted ones, those whose outcome came after a transition.

    `slow` are successes that were slow, and no others; `slow_failures` are among the failures. Of the refused ones it
    is known how they would have ended.
    """

    successes: int = 0
    slow: int = 0
    failures: int = 0
    slow_failures: int = 0
    ignored: int = 0
    refused: int = 0
    refused_failures: int = 0
    probes: int = 0
    late: int = 0

    @property
    def permitted(self) -> int:
        return self.successes + self.slow + self.failures + self.ignored

    @property
    def calls(self) -> int:
        return self.permitted + self.refused

    def plus(self, **added: int) -> "Tally":
        return replace(self, **{name: getattr(self, name) + count for name, count in added.items()})


@dataclass(frozen=True, slots=True)
class Run:
    """What came of it. `slots`: from `start_ms` on, each `slot_ms` long; their states: the worst in each."""

    policy: Policy
    start_ms: int
    end_ms: int
    transitions: tuple[Transition, ...]
    total: Tally
    slot_ms: int
    slots: tuple[Tally, ...]
    states: tuple[State, ...]
    state_ms: Mapping[State, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def openings(self) -> int:
        return sum(each.state is State.OPEN for each in self.transitions)

    @property
    def state(self) -> State:
        return self.transitions[-1].state if self.transitions else State.CLOSED

    @property
    def open_percent(self) -> float:
        """Share of the time in Open, 0.0 to 100.0."""
        return 100.0 * self.state_ms[State.OPEN] / max(1, self.end_ms - self.start_ms)


class _Flight(NamedTuple):
    """Calls that were permitted and have not ended; of a probe its lease. Ordered by their end, then by their turn."""

    ends_ms: int
    turn: int
    outcome: Outcome
    calls: int
    client: str
    order: tuple[int, int]
    lease: str


class Simulation:
    """A breaker from `start_ms` on. `feed` takes calls in order of time, in as many batches as one likes."""

    def __init__(self, policy: Policy, start_ms: int, slot_ms: int = 1_000) -> None:
        self._policy = replace(policy, mode=Mode.ENFORCE, override=None)
        wanted = Definition(_NAME, _NAME, 1, self._policy, projection=Projection.NOTHING)
        self._breaker, _ = rules.configured(None, start_ms, wanted)
        self._start_ms, self._slot_ms = start_ms, slot_ms
        self._due_ms: int | None = None
        self._flights: list[_Flight] = []
        self._turn = 0
        self._transitions: list[Transition] = []
        self._slots: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._late = 0

    def feed(self, calls: Iterable[Call]) -> Self:
        """Calls that begin not before those that were fed already."""
        for _, alike in groupby(calls, self._likeness):
            together = list(alike)
            if len(together) > 1 and self._took(together):
                continue
            for call in together:
                self._pass_time(call.at_ms)
                self._begin(call)
        return self

    def finished(self, end_ms: int) -> Run:
        """What has come of it by then; outcomes that come later are left out."""
        self._pass_time(end_ms)
        spans = self._spans(end_ms)
        number = max(1, -(-(end_ms - self._start_ms) // self._slot_ms), *(each + 1 for each in self._slots))
        slots = tuple(Tally(**self._slots[each]) for each in range(number))
        total = Tally(late=self._late)
        for slot in slots:
            total = total.plus(**asdict(slot))
        spent = dict.fromkeys(State, 0)
        for state, begin_ms, finish_ms in spans:
            spent[state] += finish_ms - begin_ms
        return Run(
            policy=self._policy,
            start_ms=self._start_ms,
            end_ms=end_ms,
            transitions=tuple(self._transitions),
            total=total,
            slot_ms=self._slot_ms,
            slots=slots,
            states=self._worst(spans, number),
            state_ms=spent,
        )

    # -- time

    def _pass_time(self, until_ms: int) -> None:
        """Outcomes that come, and what is due by itself, up to that instant and including it."""
        while True:
            ends_ms = self._flights[0].ends_ms if self._flights else until_ms + 1
            due_ms = until_ms + 1 if self._due_ms is None else self._due_ms
            if min(ends_ms, due_ms) > until_ms:
                return
            if due_ms <= ends_ms:
                self._became(rules.ticked(self._breaker, due_ms)[0], due_ms)
            else:
                self._end(heapq.heappop(self._flights))

    def _became(self, breaker: Breaker, now_ms: int) -> None:
        """The breaker that follows, what it has to tell, and when it has to be looked at again."""
        if breaker.generation != self._breaker.generation:
            self._transitions += [each for each in breaker.history if each.generation > self._breaker.generation]
        self._breaker = breaker
        due_in_ms = None if breaker.state is State.CLOSED else rules.ticked(breaker, now_ms)[1].due_in_ms
        self._due_ms = None if due_in_ms is None else now_ms + due_in_ms

    # -- calls

    def _likeness(self, call: Call) -> tuple[object, ...]:
        """Equal for calls that the rules cannot tell apart: outcome and client, within one bucket of a time window."""
        window_ms = self._policy.window_ms
        bucket = call.at_ms * BUCKETS // window_ms if window_ms else 0
        return call.seen_by(self._policy), call.client, bool(call.duration_ms), bucket

    def _took(self, alike: Sequence[Call]) -> bool:
        """Counts calls alike at once, which is much faster; not when one of them makes a transition, at its own time.

        Nor with a quorum, which looks at the times of outcomes more closely than a window does.
        """
        first, last = alike[0], alike[-1]
        self._pass_time(first.at_ms)
        busy = self._flights or first.duration_ms or self._policy.min_reporters > 1
        if busy or self._breaker.state is not State.CLOSED:
            return False
        outcome = first.seen_by(self._policy)
        flight = self._flight(first, outcome, sum(each.count for each in alike))
        breaker = self._reported(flight, last.at_ms)
        if breaker.state is not State.CLOSED:
            return False
        self._became(breaker, last.at_ms)
        for each in alike:
            self._add(each.at_ms, **_counted(outcome, each.count))
        return True

    def _begin(self, call: Call) -> None:
        outcome, left = call.seen_by(self._policy), call.count
        while left:
            match self._breaker.state:
                case State.OPEN:
                    taken = self._refuse(call, outcome, left)
                case State.CLOSED:
                    taken = self._permit(call, outcome, left)
                case State.HALF_OPEN:
                    taken = self._ask(call, outcome, left)
            left -= taken

    def _refuse(self, call: Call, outcome: Outcome, count: int) -> int:
        self._add(call.at_ms, refused=count, refused_failures=count * is_bad(outcome))
        return count

    def _permit(self, call: Call, outcome: Outcome, count: int) -> int:
        """Permits them in Closed; says how many: when one that takes no time opens the breaker, the rest is not."""
        flight = self._flight(call, outcome, count)
        if call.duration_ms:
            heapq.heappush(self._flights, flight)
        else:
            count -= self._report(flight, call.at_ms)
        self._add(call.at_ms, **_counted(outcome, count))
        return count

    def _ask(self, call: Call, outcome: Outcome, count: int) -> int:
        """Asks for a probe in HalfOpen; says for how many calls the answer holds."""
        lease = f"lease-{self._next_turn()}"
        breaker, permit = rules.acquired(self._breaker, call.at_ms, client=call.client, lease=lease)
        if permit.decision is Decision.PROBE and outcome is Outcome.IGNORED and not call.duration_ms:
            # Its slot is free again at once, and no rule remembers it: the next call finds the breaker as this one did.
            self._add(call.at_ms, probes=count, **_counted(outcome, count))
            return count
        self._became(breaker, call.at_ms)
        if permit.decision is Decision.PROBE:
            return self._probe(call, outcome, lease)
        return self._refuse(call, outcome, count)  # slots are full, and no time passes for those that are left

    def _probe(self, call: Call, outcome: Outcome, lease: str) -> int:
        flight = self._flight(call, outcome, 1, lease)
        self._add(call.at_ms, probes=1, **_counted(outcome, 1))
        if call.duration_ms:
            heapq.heappush(self._flights, flight)
        else:
            self._end(flight)
        return 1

    def _flight(self, call: Call, outcome: Outcome, count: int, lease: str = "") -> _Flight:
        ends_ms, order = call.at_ms + (call.duration_ms or 0), self._breaker.order[:2]
        return _Flight(ends_ms, self._next_turn(), outcome, count, call.client, order, lease)

    def _end(self, flight: _Flight) -> None:
        """The outcome comes."""
        if not flight.lease:
            self._late += self._report(flight, flight.ends_ms)
            return
        late = self._breaker.totals.late
        breaker = rules.settled(
            self._breaker,
            flight.ends_ms,
            client=flight.client,
            lease=flight.lease,
            order=flight.order,
            outcome=flight.outcome,
        )
        self._became(breaker, flight.ends_ms)
        self._late += breaker.totals.late - late

    def _report(self, flight: _Flight, now_ms: int) -> int:
        """Counts outcomes as a client's batch; says how many came after the transition that one of them made."""
        late = self._breaker.totals.late
        breaker = self._reported(flight, now_ms)
        self._became(breaker, now_ms)
        return breaker.totals.late - late

    def _reported(self, flight: _Flight, now_ms: int) -> Breaker:
        return rules.reported(
            self._breaker,
            now_ms,
            client=flight.client,
            seq=self._next_turn(),
            order=flight.order,
            runs=((flight.outcome.value, flight.calls),),
        )

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    # -- what is told

    def _add(self, at_ms: int, **added: int) -> None:
        self._slots[(at_ms - self._start_ms) // self._slot_ms].update(added)

    def _spans(self, end_ms: int) -> list[tuple[State, int, int]]:
        """(state, from, to) of the whole time."""
        begun = [(State.CLOSED, self._start_ms), *((each.state, each.at_ms) for each in self._transitions)]
        ends = [*(at_ms for _, at_ms in begun[1:]), end_ms]
        return [(state, begin_ms, finish_ms) for (state, begin_ms), finish_ms in zip(begun, ends, strict=True)]

    def _worst(self, spans: Iterable[tuple[State, int, int]], number: int) -> tuple[State, ...]:
        """The worst state in each slot. What lasts no time at all shows when nothing else does."""
        ranks = [len(WORST_FIRST) - 1] * number
        for state, begin_ms, finish_ms in spans:
            first, last = (
                (each - self._start_ms) // self._slot_ms for each in (begin_ms, max(begin_ms, finish_ms - 1))
            )
            for slot in range(first, min(last, number - 1) + 1):
                ranks[slot] = min(ranks[slot], WORST_FIRST.index(state))
        return tuple(WORST_FIRST[rank] for rank in ranks)


def _counted(outcome: Outcome, count: int) -> dict[str, int]:
    if outcome is Outcome.IGNORED:
        return {"ignored": count}
    if is_bad(outcome):
        return {"failures": count, "slow_failures": count * is_slow(outcome)}
    return {"slow" if is_slow(outcome) else "successes": count}


def slot_length_ms(length_ms: int) -> int:
    """A round length, so that not more than SLOTS of them make the whole."""
    fitting = (each for each in _NICE_MS if each * SLOTS >= length_ms)
    return next(fitting, -(-length_ms // SLOTS))


def simulated(policy: Policy, calls: Iterable[Call], start_ms: int, end_ms: int) -> Run:
    """The whole of it."""
    return Simulation(policy, start_ms, slot_length_ms(end_ms - start_ms)).feed(calls).finished(end_ms)


def end_of(calls: Iterable[Call]) -> int:
    """When the last outcome of a trace has come."""
    return max(each.at_ms + (each.duration_ms or 0) for each in calls)


def remarks(policy: Policy, clients: int) -> list[str]:
    """What the simulation leaves out of this policy, in sentences."""
    said = []
    if policy.mode is Mode.OBSERVE:
        said.append("mode Observe refuses nothing; shown is what Enforce would do")
    if policy.override is not None:
        said.append(f"spec.override ({policy.override.state}) is left out; shown is what the rules would do")
    if policy.min_reporters > clients:
        said.append(
            f"quorum.minReporters is {policy.min_reporters} and the calls are of {clients} client"
            f"{'' if clients == 1 else 's'}, so nothing opens it"
        )
    if policy.backoff_factor and policy.jitter_percent:
        said.append(f"chance shortens openings by up to {policy.jitter_percent} %; those of a real breaker will differ")
    return said
