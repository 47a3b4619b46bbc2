"""The laws of rules.py, one by one, over random histories of the twin (the Lua is held to the twin elsewhere)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from circuitbreaker_contract import rules
from circuitbreaker_contract.breaker import Breaker, Definition, Reporter
from circuitbreaker_contract.policy import Mode, Override, Policy
from circuitbreaker_contract.state import Configured, Decision, Outcome, Reason, Resume, State, Totals

START_MS = 1_800_000_000_000
CLIENTS = ["a", "b", "c"]
LEASES = ["l1", "l2", "l3", "l4"]
BAD = {"F", "M"}
COUNTED = {"S", "F", "L", "M"}

Runs = tuple[tuple[str, int], ...]

laws = settings(
    max_examples=int(os.environ.get("CB_LAW_EXAMPLES", "200")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    print_blob=True,
)


# --- what can happen to a breaker -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    client: str
    runs: Runs
    ago: int = 0  # how many generations old the caller's knowledge is

    def order(self, breaker: Breaker) -> tuple[int, int]:
        return (breaker.incarnation, max(0, breaker.generation - self.ago))

    def on(self, breaker: Breaker, now_ms: int) -> Breaker:
        return self.under(breaker, now_ms, self.order(breaker))

    def under(self, breaker: Breaker, now_ms: int, order: tuple[int, int], seq: int | None = None) -> Breaker:
        seq = breaker.reporters.get(self.client, Reporter()).seq + 1 if seq is None else seq
        return rules.reported(breaker, now_ms, client=self.client, seq=seq, order=order, runs=self.runs)


@dataclass(frozen=True)
class Acquire:
    lease: str

    def on(self, breaker: Breaker, now_ms: int) -> Breaker:
        return rules.acquired(breaker, now_ms, client="a", lease=self.lease)[0]


@dataclass(frozen=True)
class Settle:
    lease: str
    outcome: Outcome
    ago: int = 0

    def order(self, breaker: Breaker) -> tuple[int, int]:
        return (breaker.incarnation, max(0, breaker.generation - self.ago))

    def on(self, breaker: Breaker, now_ms: int) -> Breaker:
        return self.under(breaker, now_ms, self.order(breaker))

    def under(self, breaker: Breaker, now_ms: int, order: tuple[int, int]) -> Breaker:
        return rules.settled(breaker, now_ms, client="a", lease=self.lease, order=order, outcome=self.outcome)


def has_answered(breaker: Breaker, lease: str, order: tuple[int, int]) -> bool:
    """Whether the lease's outcome under that order was counted; of another generation it is remembered beside it."""
    known = breaker.ended.get(lease)
    return bool(known and known.settled) or f"{lease}@{order[0]}.{order[1]}" in breaker.ended


@dataclass(frozen=True)
class Tick:
    def on(self, breaker: Breaker, now_ms: int) -> Breaker:
        return rules.ticked(breaker, now_ms)[0]


@dataclass(frozen=True)
class Reset:
    token: str

    def on(self, breaker: Breaker, now_ms: int) -> Breaker:
        return rules.was_reset(breaker, now_ms, uid="u1", token=self.token)[0]


@dataclass(frozen=True)
class Configure:
    policy: Policy

    def on(self, breaker: Breaker, now_ms: int) -> Breaker:
        return rules.configured(breaker, now_ms, Definition("o", "u1", 1, self.policy))[0]


@dataclass(frozen=True)
class Force:
    """The present policy with an override that ends `for_ms` from now (0: not by itself), or (None) without one."""

    state: str | None
    for_ms: int = 0

    def on(self, breaker: Breaker, now_ms: int) -> Breaker:
        state = "Closed" if self.state and breaker.policy.mode is Mode.OBSERVE else self.state
        override = Override(state, now_ms + self.for_ms if self.for_ms else 0, "drill") if state else None
        return Configure(replace(breaker.policy, override=override)).on(breaker, now_ms)


@dataclass(frozen=True)
class Switch:
    """The present policy in the other mode, without an override."""

    def on(self, breaker: Breaker, now_ms: int) -> Breaker:
        mode = Mode.ENFORCE if breaker.policy.mode is Mode.OBSERVE else Mode.OBSERVE
        return Configure(replace(breaker.policy, mode=mode, override=None)).on(breaker, now_ms)


Call = Report | Acquire | Settle | Tick | Reset | Configure | Force | Switch


@dataclass(frozen=True)
class Step:
    """A call after a jump of the clock. `due`: first to the instant at which the next thing is due."""

    call: Call
    jump_ms: int = 0
    due: bool = False


@dataclass(frozen=True)
class Moved:
    """A step that was made."""

    call: Call
    before: Breaker
    after: Breaker
    now_ms: int


def made(policy: Policy, now_ms: int = START_MS) -> Breaker:
    return rules.configured(None, now_ms, Definition("o", "u1", 1, policy))[0]


def played(breaker: Breaker, steps: list[Step], now_ms: int = START_MS) -> Iterator[Moved]:
    for step in steps:
        if step.due:
            now_ms += rules.ticked(breaker, now_ms)[1].due_in_ms or 0
        now_ms += step.jump_ms
        after = step.call.on(breaker, now_ms)
        yield Moved(step.call, breaker, after, now_ms)
        breaker = after


# --- strategies -------------------------------------------------------------------------------------------------------


@st.composite
def policies(
    draw: st.DrawFn,
    modes: tuple[Mode, ...] = (Mode.ENFORCE,),
    overrides: tuple[str | None, ...] = (None,),
    rates: tuple[tuple[int, int], ...] = ((0, 0), (50, 0), (0, 50), (34, 67), (100, 100), (1, 0)),
) -> Policy:
    """Small numbers, so that everything happens soon."""
    failure_rate, slow_rate = draw(st.sampled_from(rates))
    window_calls, window_ms = draw(st.sampled_from([(0, 0), (0, 1_000), (1, 0), (4, 0), (7, 0)]))
    factor, jitter = draw(st.sampled_from([(0, None), (2, None), (3, 20)]))
    mode, state = draw(st.sampled_from(modes)), draw(st.sampled_from(overrides))
    until_ms = START_MS + draw(st.sampled_from([-START_MS, 100, 5_000, 40_000]))
    return Policy(
        failure_threshold=draw(st.integers(0 if failure_rate or slow_rate else 1, 4)),
        recovery_timeout_ms=1_000,
        half_open_limit=draw(st.integers(1, 3)),
        success_threshold=draw(st.integers(1, 3)),
        probe_timeout_ms=700,
        window_calls=window_calls,
        window_ms=window_ms,
        minimum_calls=min(draw(st.sampled_from([1, 2, 5])), window_calls or 5),
        failure_rate_percent=failure_rate,
        slow_call_duration_ms=2_000 if slow_rate else 0,
        slow_call_rate_percent=slow_rate,
        backoff_factor=factor,
        backoff_max_ms=5_000 if factor else 0,
        jitter_percent=jitter,
        min_reporters=draw(st.sampled_from([1, 1, 2])),
        mode=mode,
        override=Override(state, until_ms, "drill") if state and (mode, state) != (Mode.OBSERVE, "Open") else None,
    )


ANYTHING = {"modes": (Mode.ENFORCE, Mode.ENFORCE, Mode.OBSERVE), "overrides": (None, None, "Open", "Closed")}

runs = st.lists(st.tuples(st.sampled_from("SSFFFLMIN"), st.sampled_from([1, 1, 2, 3, 6])), min_size=1, max_size=5).map(
    tuple
)
reports = st.builds(Report, st.sampled_from(CLIENTS), runs, st.sampled_from([0, 0, 0, 0, 0, 1, 2]))
acquires = st.builds(Acquire, st.sampled_from(LEASES))
outcomes = st.sampled_from([*Outcome, Outcome.SUCCESS, Outcome.SUCCESS])
settles = st.builds(Settle, st.sampled_from(LEASES), outcomes, st.sampled_from([0, 0, 0, 0, 0, 1]))
resets = st.builds(Reset, st.sampled_from(["t1", "t2", "t3"]))
disturbances = st.one_of(
    resets,
    st.builds(Force, st.sampled_from(["Open", "Open", "Closed", "Closed", None]), st.sampled_from([0, 0, 500, 5_000])),
    st.just(Switch()),
)
plain_calls = st.one_of(reports, reports, acquires, acquires, settles, settles, st.just(Tick()))
jumps = st.sampled_from([0] * 10 + [1, 49, 50, 300, 700, 1_000, 61_000])
back_and_forth = st.one_of(jumps, st.sampled_from([-1, -500, -40_000]))


# How a history may begin, so that what follows does not always happen to a breaker that is merely Closed. Slow failures
# of two clients open it, or its shadow, under every policy here.
TRIPPED = [Step(Report(client, (("M", 6),))) for client in ("a", "b")]
PROBED = [*TRIPPED, Step(Acquire("l1"), due=True), Step(Acquire("l2"))]
BEGINNINGS = [[], [], TRIPPED, PROBED, [*PROBED, Step(Settle("l2", Outcome.SUCCESS))]]
DISTURBED = [
    *BEGINNINGS,
    [*TRIPPED, Step(Force("Closed"), 100)],
    [*TRIPPED, Step(Force("Open", 5_000), 100), Step(Force("Open", 500), 100)],
    [*PROBED, Step(Switch(), 100)],
    [Step(Switch()), *TRIPPED],
]


@st.composite
def histories(
    draw: st.DrawFn,
    calls: st.SearchStrategy[Call] = plain_calls,
    jumping: st.SearchStrategy[int] = jumps,
    beginnings: list[list[Step]] = BEGINNINGS,
) -> list[Step]:
    steps = st.lists(st.builds(Step, calls, jumping, st.sampled_from([False, False, True])), max_size=10)
    return [*draw(st.sampled_from(beginnings)), *draw(steps)]


@st.composite
def reached(
    draw: st.DrawFn,
    wanted: st.SearchStrategy[Policy] | None = None,
    edits: st.SearchStrategy[Policy] | None = None,
    jumping: st.SearchStrategy[int] = jumps,
) -> tuple[Breaker, int]:
    """A breaker with a past, and the time at which that ended. `edits`: the policies of live edits in it."""
    calls = st.one_of(plain_calls, disturbances, edits.map(Configure)) if edits is not None else plain_calls
    breaker, now_ms = made(draw(wanted if wanted is not None else policies())), START_MS
    beginnings = BEGINNINGS if edits is None else DISTURBED
    for moved in played(breaker, draw(histories(calls, jumping, beginnings))):
        breaker, now_ms = moved.after, moved.now_ms
    return breaker, now_ms


@st.composite
def opened(draw: st.DrawFn) -> tuple[Breaker, int]:
    """A breaker in its first to fourth opening in a row, and the time, which is within it."""
    policy = replace(draw(policies()), min_reporters=1, failure_threshold=1)
    breaker, now_ms = Report("a", (("F", 1),)).on(made(policy), START_MS), START_MS
    for number in range(draw(st.integers(0, 3))):
        now_ms, lease = breaker.open_until_ms, f"earlier-{number}"
        breaker = Settle(lease, Outcome.FAILURE).on(Acquire(lease).on(breaker, now_ms), now_ms)
    assert breaker.state is State.OPEN
    return breaker, draw(st.integers(now_ms, breaker.open_until_ms - 1))


@st.composite
def half_open(draw: st.DrawFn) -> tuple[Breaker, int]:
    """A breaker in HalfOpen without a lease, and the time."""
    breaker, now_ms = draw(opened())
    now_ms = max(now_ms, breaker.open_until_ms)
    return rules.timely(breaker, now_ms), now_ms


def due(breaker: Breaker, now_ms: int) -> bool:
    """What cb_observe says."""
    breaker = rules.believed(breaker, now_ms)
    expired = breaker.state is State.HALF_OPEN and any(at <= now_ms for at in breaker.live.values())
    over = rules.is_override_over(breaker, now_ms) or rules.is_opening_over(breaker, now_ms)
    return expired or over or rules.is_shadow_due(breaker, now_ms)


def stance(breaker: Breaker) -> tuple[State, State | None, Mode]:
    return breaker.state, breaker.forced.state if breaker.forced else None, breaker.policy.mode


def stored(breaker: Breaker) -> Breaker:
    """What is kept of it: without the messages of the last step."""
    return replace(breaker, notes=())


def weight(runs_: Runs, letters: set[str]) -> int:
    return sum(count for letter, count in runs_ if letter in letters)


# --- law 1: order -----------------------------------------------------------------------------------------------------

edited = st.one_of(plain_calls, disturbances, disturbances, policies(**ANYTHING).map(Configure))


@laws
@given(policies(**ANYTHING), histories(edited, back_and_forth, DISTURBED))
def test_order_never_goes_down(policy: Policy, history: list[Step]) -> None:
    """A breaker is ordered by (incarnation, generation, revision), and no call lowers it, whatever the clock does."""
    for moved in played(made(policy), history):
        assert moved.after.order >= moved.before.order
        assert moved.after.incarnation == moved.before.incarnation


@laws
@given(policies(**ANYTHING), histories(edited, back_and_forth, DISTURBED))
def test_generation_rises_by_one_with_each_transition_and_reset_and_never_otherwise(
    policy: Policy, history: list[Step]
) -> None:
    """The generation rises by one when (state, forced, mode) changes or by a reset, and never otherwise."""
    for moved in played(made(policy), history):
        rise = moved.after.generation - moved.before.generation
        entries = moved.after.history[len(moved.after.history) - rise :] if rise else ()
        assert [entry.generation for entry in entries] == [moved.before.generation + n for n in range(1, rise + 1)]
        assert moved.after.history[: len(moved.after.history) - rise] == moved.before.history
        assert rise or stance(moved.after) == stance(moved.before)
        state, forced, _ = stance(moved.before)
        for entry in entries:
            own = entry.reason in {Reason.RESET, Reason.MODE_CHANGED}
            assert own or (entry.state, entry.forced) != (state, forced)
            state, forced = entry.state, entry.forced
        resets_ = sum(entry.reason is Reason.RESET for entry in entries)
        assert resets_ == (isinstance(moved.call, Reset) and moved.before.last_reset != moved.call.token)


@laws
@given(policies(**ANYTHING), histories(edited, back_and_forth, DISTURBED))
def test_revision_rises_by_one_with_each_change_of_policy(policy: Policy, history: list[Step]) -> None:
    """The revision rises with each change of policy."""
    for moved in played(made(policy), history):
        changed = moved.after.policy != moved.before.policy
        assert moved.after.revision == moved.before.revision + changed


@laws
@given(reached(), st.integers(-90_000, 90_000), st.booleans())
def test_an_incarnation_is_larger_than_any_that_it_follows(
    past: tuple[Breaker, int], jump_ms: int, replaced: bool
) -> None:
    """The incarnation is larger than that of the breaker it replaces or resumes from, whatever the clock says."""
    breaker, now_ms = past
    resume = None if replaced else Resume(order=breaker.order[:2], state=breaker.state, since_ms=breaker.since_ms)
    wanted = Definition("o", "u2" if replaced else "u1", 1, breaker.policy, resume=resume)
    after, result = rules.configured(breaker if replaced else None, now_ms + jump_ms, wanted)
    assert result is (Configured.REPLACED if replaced else Configured.RESTORED)
    assert after.incarnation > breaker.incarnation
    assert after.generation == (1 if replaced else breaker.generation + 1)
    assert after.totals == Totals()


# --- law 2: late outcomes ---------------------------------------------------------------------------------------------


@laws
@given(
    reached(policies(**ANYTHING), policies(**ANYTHING)), reports, st.sampled_from([(0, -1), (0, 1), (-1, 0), (1, 0)])
)
def test_a_batch_of_another_pair_changes_nothing_but_late(
    past: tuple[Breaker, int], report: Report, off: tuple[int, int]
) -> None:
    """A batch of another (incarnation, generation) adds to late, its I and N to their totals; no more."""
    breaker, now_ms = past
    expected = rules.timely(breaker, now_ms)
    order = (expected.incarnation + off[0], expected.generation + off[1])
    after = report.under(breaker, now_ms, order)
    totals = replace(
        expected.totals,
        late=expected.totals.late + weight(report.runs, COUNTED),
        ignored=expected.totals.ignored + weight(report.runs, {"I"}),
        not_permitted=expected.totals.not_permitted + weight(report.runs, {"N"}),
    )
    assert replace(after, reporters={}, reporters_swept_at_ms=0) == replace(
        expected, totals=totals, reporters={}, reporters_swept_at_ms=0
    )


@laws
@given(reached(), st.sampled_from(LEASES), outcomes, st.sampled_from([(0, -1), (0, 1), (-1, 0), (1, 0)]))
def test_a_probe_outcome_of_another_pair_changes_nothing_but_late(
    past: tuple[Breaker, int], lease: str, outcome: Outcome, off: tuple[int, int]
) -> None:
    """A probe's outcome of another (incarnation, generation) adds to late or ignored, and frees nobody's slot."""
    breaker, now_ms = past
    expected = rules.timely(breaker, now_ms, spared=lease)
    order = (expected.incarnation + off[0], expected.generation + off[1])
    after = Settle(lease, outcome).under(breaker, now_ms, order)
    unmoved = {"reporters": {}, "reporters_swept_at_ms": 0, "ended": {}, "totals": Totals()}
    live = expected.live if expected.state is State.HALF_OPEN else after.live
    assert replace(after, **unmoved) == replace(expected, **unmoved, live=live)
    counted = after.totals.late + after.totals.ignored - expected.totals.late - expected.totals.ignored
    assert counted == (not has_answered(expected, lease, order))


# --- law 3: opening, probing ------------------------------------------------------------------------------------------


present_reports = reports.map(lambda report: replace(report, ago=0))


@laws
@given(policies(), histories(present_reports))
def test_closed_opens_only_with_a_rule_and_its_quorum(policy: Policy, history: list[Step]) -> None:
    """Closed opens when a trip rule holds and the quorum is met: what is stored afterwards shows both."""
    for moved in played(made(policy), history):
        after, sums = moved.after, rules.window_counts(moved.after, moved.now_ms)
        if moved.before.state is not State.CLOSED or after.state is not State.OPEN:
            continue
        match after.reason:
            case Reason.CONSECUTIVE_FAILURES:
                assert after.streak >= policy.failure_threshold > 0
            case Reason.FAILURE_RATE:
                assert rate(sums.failure_rate_percent(policy.minimum_calls)) >= policy.failure_rate_percent > 0
            case Reason.SLOW_CALL_RATE:
                assert rate(sums.slow_call_rate_percent(policy.minimum_calls)) >= policy.slow_call_rate_percent > 0
            case _:
                raise AssertionError(after.reason)
        saw = "slow_ms" if after.reason is Reason.SLOW_CALL_RATE else "bad_ms"
        seen = sum(getattr(reporter, saw) > 0 for reporter in after.reporters.values())
        assert seen >= policy.min_reporters or policy.min_reporters == 1


@laws
@given(policies(), histories(present_reports, beginnings=[[]]))
def test_closed_does_not_stay_closed_when_a_rule_holds(policy: Policy, history: list[Step]) -> None:
    """With one reporter enough, no counted outcome leaves a Closed breaker in which a rule holds."""
    by_rate = policy.failure_rate_percent or policy.slow_call_rate_percent
    policy = replace(policy, min_reporters=1, failure_threshold=0 if by_rate else policy.failure_threshold)
    for moved in played(made(policy), history):
        after, sums = moved.after, rules.window_counts(moved.after, moved.now_ms)
        counts = isinstance(moved.call, Report) and moved.call.runs[-1][0] in COUNTED
        if after.state is State.CLOSED and counts and after.totals.late == moved.before.totals.late:
            assert after.streak < (policy.failure_threshold or 1_000)
            assert rate(sums.failure_rate_percent(policy.minimum_calls)) < (policy.failure_rate_percent or 101)
            assert rate(sums.slow_call_rate_percent(policy.minimum_calls)) < (policy.slow_call_rate_percent or 101)


def rate(percent: float | None) -> float:
    """Unknown is less than any threshold."""
    return -1.0 if percent is None else percent


@laws
@given(opened(), st.sampled_from([Acquire("new"), Tick(), Report("a", (("S", 1),))]), st.integers(-1, 1))
def test_open_ends_at_open_until_by_whoever_asks_first(begun: tuple[Breaker, int], call: Call, off_ms: int) -> None:
    """Open becomes HalfOpen when Redis' time >= open_until_ms, by any call, and not a millisecond sooner."""
    breaker, _ = begun
    after = call.on(breaker, breaker.open_until_ms + off_ms)
    assert after.state is (State.OPEN if off_ms < 0 else State.HALF_OPEN)


@laws
@given(opened())
def test_each_opening_in_a_row_is_longer_up_to_the_longest(begun: tuple[Breaker, int]) -> None:
    """min(max, recovery timeout * factor^(n - 1)), less at most jitter_percent; without a backoff always the same."""
    breaker, policy = begun[0], begun[0].policy
    length_ms = policy.recovery_timeout_ms * max(1, policy.backoff_factor) ** (breaker.attempt - 1)
    length_ms = min(length_ms, policy.backoff_max_ms or length_ms)
    assert breaker.open_until_ms - breaker.since_ms == breaker.open_length_ms <= length_ms
    assert breaker.open_length_ms >= length_ms * (1 - (policy.jitter_percent or 0) / 100) - 1


@laws
@given(policies(), histories(st.one_of(plain_calls, acquires, acquires), back_and_forth))
def test_no_more_leases_are_live_than_the_limit(policy: Policy, history: list[Step]) -> None:
    """HalfOpen has at most half_open_limit live leases (an edit may leave more)."""
    for moved in played(made(policy), history):
        live = [at for at in moved.after.live.values() if at > moved.now_ms]
        assert moved.after.state is not State.HALF_OPEN or len(live) <= policy.half_open_limit


# --- laws 4 and 5: what probes decide ---------------------------------------------------------------------------------

answers = st.lists(st.sampled_from([*"SSSSSFLMI", "lost", "lost", "lost"]), min_size=1, max_size=8)


@laws
@given(half_open(), answers)
def test_half_open_is_decided_by_the_first_failure_the_last_success_or_the_lost(
    begun: tuple[Breaker, int], answers_: list[str]
) -> None:
    """Closes exactly on the success_threshold-th success, opens on the first failure or on half_open_limit lost
    without a success, and by nothing else: an ignored probe is neither.
    """
    breaker, now_ms = begun
    policy = breaker.policy
    successes = lost = 0
    for number, answer in enumerate(answers_):
        attempt, lease = breaker.attempt, f"p{number}"
        breaker, permit = rules.acquired(breaker, now_ms, client="a", lease=lease)
        assert permit.decision is Decision.PROBE, "a slot is free after each answer"
        if answer == "lost":
            now_ms += permit.lease_ms
            breaker, lost = rules.ticked(breaker, now_ms)[0], lost + 1
        else:
            breaker = Settle(lease, Outcome(answer)).on(breaker, now_ms)
        failed = answer in BAD or (answer == "L" and policy.slow_call_rate_percent > 0)
        successes += answer in {"S", "L"} and not failed
        if failed:
            assert (breaker.state, breaker.reason) == (State.OPEN, Reason.PROBE_FAILED)
        elif successes == policy.success_threshold:
            assert (breaker.state, breaker.reason) == (State.CLOSED, Reason.PROBES_SUCCEEDED)
        elif answer == "lost" and lost == policy.half_open_limit and not successes:
            assert (breaker.state, breaker.reason) == (State.OPEN, Reason.PROBES_LOST)
        else:
            assert breaker.state is State.HALF_OPEN
            assert (breaker.probe_successes, breaker.probes_lost) == (successes, lost)
            continue
        assert breaker.attempt == (0 if breaker.state is State.CLOSED else attempt + 1)
        return


@laws
@given(reached(policies(**ANYTHING), policies(**ANYTHING)), st.sampled_from([49, 700, 1_000, 61_000]))
def test_time_alone_is_never_a_success(past: tuple[Breaker, int], jump_ms: int) -> None:
    """An expired lease frees its slot and never counts as success or failure."""
    breaker, now_ms = past
    after = rules.timely(breaker, now_ms + jump_ms)
    assert after.totals == breaker.totals
    assert replace(after.probes, expired=0) == replace(breaker.probes, expired=0)
    assert after.reason is not Reason.PROBES_SUCCEEDED or after.generation == breaker.generation


@laws
@given(half_open(), outcomes, st.integers(0, 2_000))
def test_an_answer_after_the_lease_has_expired_counts_once(
    begun: tuple[Breaker, int], outcome: Outcome, late_ms: int
) -> None:
    """In the same generation the answer of an expired probe counts as it would have counted, however often it comes."""
    breaker, now_ms = begun
    breaker = replace(breaker, policy=replace(breaker.policy, half_open_limit=3))
    breaker, permit = rules.acquired(breaker, now_ms, client="a", lease="l1")
    noticed = rules.timely(breaker, now_ms + permit.lease_ms)
    assert (noticed.live, noticed.probes_lost) == ({}, 1)
    now_ms += permit.lease_ms + late_ms
    settle, order = Settle("l1", outcome), noticed.order[:2]
    once = settle.under(noticed, now_ms, order)
    assert stored(settle.under(once, now_ms, order)) == stored(once)
    unnoticed = settle.under(breaker, now_ms, order)
    for name in ("state", "reason", "totals", "probe_successes"):
        assert getattr(once, name) == getattr(unnoticed, name), name
    assert once.totals.late == breaker.totals.late


@laws
@given(reached(policies(**ANYTHING), policies(**ANYTHING)), st.integers(1, 9))
def test_an_ignored_outcome_changes_nothing_but_ignored(past: tuple[Breaker, int], count: int) -> None:
    """I is neither success nor failure: it leaves streak and window and tests no rule."""
    breaker, now_ms = past
    expected = rules.timely(breaker, now_ms)
    after = Report("a", (("I", count),)).on(breaker, now_ms)
    totals = replace(expected.totals, ignored=expected.totals.ignored + count)
    assert replace(after, reporters={}, reporters_swept_at_ms=0) == replace(
        expected, totals=totals, reporters={}, reporters_swept_at_ms=0
    )


# --- law 6: closing, overrides, resets --------------------------------------------------------------------------------


@laws
@given(policies(**ANYTHING), histories(edited, back_and_forth, DISTURBED))
def test_closing_forgets_attempt_streak_and_window(policy: Policy, history: list[Step]) -> None:
    """Whatever closes a breaker, it counts from zero; and attempt is 0 while Closed."""
    for moved in played(made(policy), history):
        if moved.after.state is State.CLOSED:
            assert moved.after.attempt == 0
            if moved.before.state is not State.CLOSED:
                assert moved.after.streak == 0
                assert rules.window_counts(moved.after, moved.now_ms).calls == 0


@laws
@given(policies(**ANYTHING), histories(edited, back_and_forth, DISTURBED))
def test_only_an_opening_by_a_rule_raises_the_attempt(policy: Policy, history: list[Step]) -> None:
    """An opening by override does not raise the attempt; each other opening raises it by one."""
    for moved in played(made(policy), history):
        entries = [entry for entry in moved.after.history if entry.generation > moved.before.generation]
        attempt = moved.before.attempt
        for entry in entries:
            opened = entry.state is State.OPEN and entry.forced is None
            kept = entry.state is not State.CLOSED and entry.reason is not Reason.RESET
            assert entry.attempt == (attempt + opened if kept else 0)
            attempt = entry.attempt


@laws
@given(reached(), policies(overrides=("Open", "Closed")), st.lists(st.tuples(plain_calls, back_and_forth), max_size=12))
def test_an_override_ends_once(past: tuple[Breaker, int], policy: Policy, calls: list[tuple[Call, int]]) -> None:
    """An override ends when Redis' time >= until, to HalfOpen or Closed, once, though the clock goes back after it."""
    breaker, now_ms = past
    assert policy.override is not None
    until_ms = now_ms + 500
    override = replace(policy.override, until_ms=until_ms)
    breaker = Configure(replace(policy, override=override)).on(breaker, now_ms)
    begun = breaker.generation
    state = State.HALF_OPEN if override.state == "Open" else State.CLOSED
    breaker = Tick().on(breaker, until_ms)
    assert (breaker.state, breaker.forced, breaker.generation) == (state, None, begun + 1)
    now_ms = until_ms
    for call, jump_ms in calls:
        now_ms += jump_ms
        breaker = call.on(breaker, now_ms)
        breaker = Configure(replace(breaker.policy, failure_threshold=now_ms % 7 + 1)).on(breaker, now_ms)
        assert breaker.forced is None


@laws
@given(reached(), st.sampled_from(["Open", "Closed"]), st.integers(0, 5_000))
def test_an_override_whose_time_is_past_has_no_effect(past: tuple[Breaker, int], state: str, ago_ms: int) -> None:
    """An `until` already past has no effect at all."""
    breaker, now_ms = past
    policy = replace(breaker.policy, override=Override(state, now_ms - ago_ms, "drill"))
    after, expected = Configure(policy).on(breaker, now_ms), rules.timely(breaker, now_ms)
    assert replace(after, notes=()) == replace(
        expected, policy=policy, revision=expected.revision + 1, notes=(), resource_generation=1
    )


@laws
@given(reached(), reports)
def test_under_override_closed_outcomes_add_to_totals_only(past: tuple[Breaker, int], report: Report) -> None:
    """Under override Closed nothing opens, and streak and window stay empty."""
    breaker, now_ms = past
    breaker = Configure(replace(breaker.policy, override=Override("Closed", 0, "drill"))).on(breaker, now_ms)
    after = report.under(breaker, now_ms, breaker.order[:2])
    assert replace(stored(after), totals=Totals(), reporters={}, reporters_swept_at_ms=0) == replace(
        stored(breaker), totals=Totals(), reporters={}, reporters_swept_at_ms=0
    )
    assert after.totals.failures == breaker.totals.failures + weight(report.runs, BAD)
    assert after.totals.late == breaker.totals.late


@laws
@given(reached(policies(**ANYTHING), policies(**ANYTHING)))
def test_a_reset_forgets_counts_and_keeps_totals_and_override(past: tuple[Breaker, int]) -> None:
    """A reset closes, or keeps what a person forces, and forgets attempt, streak, window and shadow; totals stay."""
    breaker, now_ms = past
    expected, after = rules.timely(breaker, now_ms), Reset("new").on(breaker, now_ms)
    assert after.state is (expected.forced.state if expected.forced else State.CLOSED)
    assert (after.attempt, after.streak, rules.window_counts(after, now_ms).calls) == (0, 0, 0)
    assert (after.totals, after.forced, after.policy) == (expected.totals, expected.forced, expected.policy)
    assert (after.generation, after.reason) == (expected.generation + 1, Reason.RESET)
    if after.policy.mode is Mode.OBSERVE:
        assert (after.shadow.state, after.shadow.opened, after.shadow.attempt) == (State.CLOSED, 0, 0)


@laws
@given(reached(policies(**ANYTHING), policies(**ANYTHING)), back_and_forth)
def test_a_reset_with_the_same_token_does_nothing(past: tuple[Breaker, int], jump_ms: int) -> None:
    """A token is done once; the second time there happens what is due, and no more."""
    breaker, now_ms = past
    once = Reset("new").on(breaker, now_ms)
    again, done = rules.was_reset(once, now_ms + jump_ms, uid="u1", token="new")
    assert not done
    assert again == rules.timely(once, now_ms + jump_ms)


@laws
@given(reached(), policies())
def test_an_edit_is_no_transition(past: tuple[Breaker, int], policy: Policy) -> None:
    """An edit never causes a transition by itself: rules are tested at the next outcome, leases and counts stay."""
    breaker, now_ms = past
    policy = replace(policy, failure_threshold=1)
    expected, after = rules.timely(breaker, now_ms), Configure(policy).on(breaker, now_ms)
    for name in ("state", "generation", "since_ms", "attempt", "streak", "live", "ended", "probe_successes", "totals"):
        assert getattr(after, name) == getattr(expected, name), name


# --- law 8: time ------------------------------------------------------------------------------------------------------


@laws
@given(
    reached(policies(**ANYTHING), policies(**ANYTHING)),
    st.sampled_from([-3_600_000, -5_000, -300]) | st.integers(-10_000_000, 10_000_000),
)
def test_no_instant_is_believed_farther_ahead_than_its_own_length(past: tuple[Breaker, int], jump_ms: int) -> None:
    """Wherever the clock goes: an opening, an override, a lease and the shadow end within their own length."""
    breaker, now_ms = past[0], past[1] + jump_ms
    after = rules.timely(breaker, now_ms)
    assert after.since_ms <= now_ms
    assert after.open_until_ms <= now_ms + after.open_length_ms
    assert after.forced is None or after.forced.until_ms <= now_ms + after.forced.length_ms
    if after.state is State.HALF_OPEN:
        assert all(at <= now_ms + after.probe_length_ms for at in after.live.values())
    if after.policy.mode is Mode.OBSERVE:
        assert after.shadow.since_ms <= now_ms
        assert (after.shadow.open_until_ms or 0) <= now_ms + after.shadow_length_ms
    assert all(bucket <= after.window.bucket_at(now_ms) for bucket in getattr(after.window.at(now_ms), "buckets", ()))


@laws
@given(opened(), st.integers(-10_000_000, 10_000_000))
def test_no_clock_freezes_a_breaker(begun: tuple[Breaker, int], jump_ms: int) -> None:
    """After any jump an open breaker lets a probe through within the length of its opening."""
    breaker, now_ms = begun[0], begun[1] + jump_ms
    after, later_ms = Tick().on(breaker, now_ms), now_ms + breaker.open_length_ms
    assert rules.acquired(after, later_ms, client="a", lease="new")[1].decision is Decision.PROBE


@laws
@given(reached(policies(**ANYTHING), policies(**ANYTHING)))
def test_what_is_not_due_does_not_change_by_ticking(past: tuple[Breaker, int]) -> None:
    """A tick of a breaker in which nothing is due leaves it as it is; and after a tick nothing is due."""
    breaker, now_ms = past
    assume(not changed_limit(breaker) and not observed_under_override(breaker))
    after = Tick().on(breaker, now_ms)
    assert due(breaker, now_ms) or stored(after) == stored(breaker)
    assert not due(after, now_ms)


@laws
@given(reached(policies(**ANYTHING), policies(**ANYTHING)))
def test_a_tick_says_when_the_next_thing_is_due(past: tuple[Breaker, int]) -> None:
    """Something is due exactly due_in_ms after a tick, and nothing before."""
    breaker, now_ms = past
    assume(not observed_under_override(breaker))
    breaker, tick = rules.ticked(breaker, now_ms)
    if tick.due_in_ms is None:
        assert not due(breaker, now_ms + 10**9)
    else:
        assert due(breaker, now_ms + tick.due_in_ms)
        assert tick.due_in_ms == 0 or not due(breaker, now_ms + tick.due_in_ms - 1)


def changed_limit(breaker: Breaker) -> bool:
    """An edit has lowered the limit to what is lost already: that opens at the next call, whichever it is."""
    lost = breaker.probes_lost >= breaker.policy.half_open_limit and not breaker.probe_successes
    return breaker.state is State.HALF_OPEN and lost


def observed_under_override(breaker: Breaker) -> bool:
    """An override Closed over an open shadow: two clocks run at once."""
    return breaker.forced is not None and breaker.shadow.state is State.OPEN


# --- counting ---------------------------------------------------------------------------------------------------------


def but_for_sending(breaker: Breaker) -> Breaker:
    """Whole, but for how often and when clients have sent, and for messages."""
    known = {name: reporter._replace(seq=0, seen_ms=0) for name, reporter in breaker.reporters.items()}
    return replace(breaker, reporters=known, notes=())


@laws
@given(reached(policies(**ANYTHING), policies(**ANYTHING)), st.sampled_from(CLIENTS), runs)
def test_a_batch_is_its_outcomes_one_by_one(past: tuple[Breaker, int], client: str, runs_: Runs) -> None:
    """Rules are tested after each outcome as if it came alone: the whole state is that of outcomes sent singly."""
    breaker, now_ms = past
    breaker = rules.timely(breaker, now_ms)
    order = breaker.order[:2]
    whole, single = Report(client, runs_).under(breaker, now_ms, order), breaker
    for letter, count in runs_:
        for _ in range(count):
            single = Report(client, ((letter, 1),)).under(single, now_ms, order)
    assert but_for_sending(whole) == but_for_sending(single)


tolerant = policies(rates=((100, 100), (90, 0), (75, 60), (0, 100)))
mixed = st.lists(st.tuples(st.sampled_from("SSSFLM"), st.sampled_from([1, 1, 2, 3])), min_size=4, max_size=9).map(tuple)
long_runs = st.lists(st.tuples(st.sampled_from("SFLM"), st.integers(1, 30)), min_size=1, max_size=4).map(tuple)


@laws
@given(tolerant, mixed, st.sampled_from([0, 49, 300]), long_runs)
def test_a_window_full_of_runs_is_counted_one_by_one(policy: Policy, first: Runs, wait_ms: int, then: Runs) -> None:
    """The same where a window is full of many runs and the batch is longer than the window."""
    policy = replace(policy, failure_threshold=0)
    breaker = Report("b", first).under(made(policy), START_MS, (START_MS, 1))
    now_ms = START_MS + wait_ms
    whole, single = Report("a", then).under(breaker, now_ms, (START_MS, 1)), breaker
    for letter, count in then:
        for _ in range(count):
            single = Report("a", ((letter, 1),)).under(single, now_ms, (START_MS, 1))
    assert but_for_sending(whole) == but_for_sending(single)


@laws
@given(
    reached(policies(**ANYTHING), policies(**ANYTHING)),
    st.one_of(reports, settles, st.just(Tick()), resets, policies(**ANYTHING).map(Configure)),
)
def test_a_call_sent_twice_is_the_call_sent_once(past: tuple[Breaker, int], call: Call) -> None:
    """Every call can be repeated: replies get lost. (A probe's outcome under a generation that never gave it to it
    is no repetition of anything.)
    """
    breaker, now_ms = past
    assume(not observed_under_override(breaker))
    if isinstance(call, Report | Settle):
        order = (breaker.incarnation, max(0, breaker.generation - call.ago))
        assume(not (isinstance(call, Settle) and call.ago and call.lease in {*breaker.live, *breaker.ended}))
        seq = {"seq": breaker.reporters.get(call.client, Reporter()).seq + 1} if isinstance(call, Report) else {}
        once = call.under(breaker, now_ms, order, **seq)
        twice = call.under(once, now_ms, order, **seq)
    else:
        once = call.on(breaker, now_ms)
        twice = call.on(once, now_ms)
    assert stored(twice) == stored(once)


@laws
@given(
    reached(policies(**ANYTHING), policies(**ANYTHING)), st.sampled_from([*LEASES, "new"]), st.sampled_from([0, 1, 699])
)
def test_a_permit_asked_for_twice_is_one_permit(past: tuple[Breaker, int], lease: str, later_ms: int) -> None:
    """A lease id asked again gets the same probe with what is left of its lease, never renewed, and takes no second
    slot; a refusal is a new question each time.
    """
    breaker, now_ms = past
    once, first = rules.acquired(breaker, now_ms, client="a", lease=lease)
    if first.decision is Decision.PROBE and later_ms < first.lease_ms:
        twice, second = rules.acquired(once, now_ms + later_ms, client="a", lease=lease)
        assert (second.decision, second.lease_ms) == (Decision.PROBE, first.lease_ms - later_ms)
        assert (twice.live.get(lease), twice.probes.granted) == (once.live.get(lease), once.probes.granted)
    else:
        twice, second = rules.acquired(once, now_ms, client="a", lease=lease)
        refused = first.decision is Decision.NOT_PERMITTED
        totals = replace(once.totals, not_permitted=once.totals.not_permitted + refused)
        assert (stored(twice), second) == (stored(replace(once, totals=totals)), first)


@laws
@given(policies(**ANYTHING), histories(edited, back_and_forth, DISTURBED))
def test_totals_add_up(policy: Policy, history: list[Step]) -> None:
    """successes + failures + late = the outcomes S, L, F, M that came, each once; slow and the others likewise."""
    for moved in played(made(policy), history):
        before, after, call = moved.before.totals, moved.after.totals, moved.call
        counted = after.successes + after.failures + after.late - before.successes - before.failures - before.late
        ignored, refused = after.ignored - before.ignored, after.not_permitted - before.not_permitted
        if isinstance(call, Report):
            assert counted == weight(call.runs, COUNTED)
            assert (ignored, refused) == (weight(call.runs, {"I"}), weight(call.runs, {"N"}))
            assert after.slow - before.slow <= weight(call.runs, {"L", "M"})
        elif isinstance(call, Settle):
            first = not has_answered(moved.before, call.lease, call.order(moved.before))
            assert (counted, ignored) == ((0, first) if call.outcome is Outcome.IGNORED else (first, 0))
        else:
            assert (counted, ignored) == (0, 0)
            assert refused == 0 or isinstance(call, Acquire)


# --- Observe ----------------------------------------------------------------------------------------------------------

observing = policies(modes=(Mode.OBSERVE,), overrides=(None, None, "Closed"))
resumed = st.builds(
    Resume,
    order=st.just((START_MS - 9, 3)),
    state=st.sampled_from(State),
    since_ms=st.just(START_MS - 5),
    open_until_ms=st.just(START_MS + 500),
    attempt=st.integers(0, 3),
)


@laws
@given(
    observing, st.none() | resumed, histories(st.one_of(edited, observing.map(Configure)), back_and_forth, DISTURBED)
)
def test_observe_never_rejects(policy: Policy, resume: Resume | None, history: list[Step]) -> None:
    """In mode Observe the state is Closed and every call is permitted, whatever came before."""
    begun, _ = rules.configured(None, START_MS, Definition("o", "u1", 1, policy, resume=resume))
    for breaker, now_ms in [(begun, START_MS), *((m.after, m.now_ms) for m in played(begun, history))]:
        if breaker.policy.mode is Mode.OBSERVE:
            assert breaker.state is State.CLOSED
            assert rules.acquired(breaker, now_ms, client="a", lease="new")[1].decision is Decision.PERMITTED


@laws
@given(policies(modes=(Mode.OBSERVE,)), histories(present_reports, back_and_forth))
def test_in_observe_the_generation_is_constant_and_nothing_is_late(policy: Policy, history: list[Step]) -> None:
    """The shadow moves without a transition; totals count always."""
    for moved in played(made(policy), history):
        assert moved.after.generation == 1
        assert not isinstance(moved.call, Report) or moved.after.totals.late == moved.before.totals.late


@laws
@given(policies(), histories(present_reports))
def test_the_shadow_opens_when_the_breaker_would(policy: Policy, history: list[Step]) -> None:
    """Up to the first opening, Observe and Enforce count alike; then the shadow is Open where the breaker is."""
    enforced, shadowed = made(policy), made(replace(policy, mode=Mode.OBSERVE))
    for left, right in zip(played(enforced, history), played(shadowed, history), strict=True):
        real, shadow = left.after, right.after.shadow
        assert (shadow.state, shadow.open_until_ms or 0 if policy.jitter_percent is None else 0) == (
            real.state,
            real.open_until_ms if policy.jitter_percent is None else 0,
        )
        assert (right.after.streak, right.after.window) == (real.streak, real.window)
        if real.state is not State.CLOSED:
            assert (shadow.reason, shadow.attempt, shadow.opened) == (real.reason, 1, 1)
            return
