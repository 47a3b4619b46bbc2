"""`kubectl breaker simulate`: the laws of a simulation, and the same story as the contract in memory."""

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuitbreaker_cli.simulation import plot, report
from circuitbreaker_cli.simulation.runs import SLOTS, Run, Simulation, end_of, remarks, simulated, slot_length_ms
from circuitbreaker_cli.simulation.traffic import START_MS, Call, Plan, parse_parts
from circuitbreaker_contract import protocol, rules
from circuitbreaker_contract.memory import Memory
from circuitbreaker_contract.policy import Mode, Override, Policy
from circuitbreaker_contract.state import Decision, Outcome, Permit, Projection, Reason, Snapshot, State

SECOND = 1_000
QUICK = settings(max_examples=40, deadline=None)
# One that everything can happen to: a streak, both rates, backoff, more probes than one.
POLICIES = (
    Policy(3, 1_000, 2, 2, 500),
    Policy(0, 700, 1, 2, 300, window_calls=6, minimum_calls=3, failure_rate_percent=50),
    Policy(5, 500, 3, 1, 400, window_ms=2_000, minimum_calls=4, failure_rate_percent=60, slow_call_duration_ms=100,
           slow_call_rate_percent=50, backoff_factor=2, backoff_max_ms=4_000, jitter_percent=20),
    Policy(2, 900, 2, 3, 400, min_reporters=2),
)  # fmt: skip


def policy(**values: Any) -> Policy:
    return Policy(**{"failure_threshold": 3, "recovery_timeout_ms": 10_000, "half_open_limit": 2,
                     "success_threshold": 2, "probe_timeout_ms": 5_000} | values)  # fmt: skip


def calls_of(text: str, every_ms: int = SECOND, duration_ms: int | None = None) -> list[Call]:
    """`SSF`: one call each second."""
    return [Call(START_MS + every_ms * number, Outcome(letter), duration_ms) for number, letter in enumerate(text)]


def run_of(wanted: Policy, calls: Sequence[Call], end_ms: int | None = None) -> Run:
    return simulated(wanted, calls, START_MS, end_ms or end_of(calls) + 1)


def story(run: Run) -> list[tuple[str, str, float]]:
    return [(each.state.value, each.reason.value, (each.at_ms - START_MS) / SECOND) for each in run.transitions]


@st.composite
def traces(draw: st.DrawFn, *, timed: bool = True) -> list[Call]:
    made, at_ms = [], START_MS
    for _ in range(draw(st.integers(1, 25))):
        at_ms += draw(st.sampled_from([0, 0, 1, 20, 100, 400, 1_500]))
        made.append(
            Call(
                at_ms,
                Outcome(draw(st.sampled_from("SFFLI"))),
                draw(st.sampled_from([None, 0, 50, 150, 600])) if timed else None,
                draw(st.sampled_from([1, 1, 1, 2, 5])),
                draw(st.sampled_from(["a", "b"])),
            )
        )  # fmt: skip
    return made


# -- laws


@QUICK
@given(st.sampled_from(POLICIES), traces())
def test_every_call_is_permitted_or_refused_and_every_slot_adds_up(wanted: Policy, calls: list[Call]) -> None:
    run = run_of(wanted, calls)
    assert run.total.permitted + run.total.refused == run.total.calls == sum(each.count for each in calls)
    assert sum(slot.calls for slot in run.slots) == run.total.calls
    bad = sum(each.count for each in calls if each.outcome is Outcome.FAILURE)
    assert run.total.failures + run.total.refused_failures == bad
    assert len(run.slots) == len(run.states) <= SLOTS + 1
    assert sum(run.state_ms.values()) == run.end_ms - run.start_ms


@QUICK
@given(st.sampled_from(POLICIES), traces(), st.data())
def test_the_same_trace_in_any_batches_tells_the_same(wanted: Policy, calls: list[Call], data: st.DataObject) -> None:
    """Cut anywhere, and with each `count` as so many lines: the whole result is equal, counters and plot too."""
    end_ms = end_of(calls) + 1
    slot_ms = slot_length_ms(end_ms - START_MS)
    whole = simulated(wanted, calls, START_MS, end_ms)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(calls)), max_size=5)))
    batches = Simulation(wanted, START_MS, slot_ms)
    for begin, end in zip([0, *cuts], [*cuts, len(calls)], strict=True):
        batches.feed(calls[begin:end])
    assert batches.finished(end_ms) == whole
    single = Simulation(wanted, START_MS, slot_ms)
    for each in calls:
        for _ in range(each.count):
            single.feed([Call(each.at_ms, each.outcome, each.duration_ms, 1, each.client)])
    assert single.finished(end_ms) == whole


@QUICK
@given(st.sampled_from(POLICIES), traces())
def test_it_tells_the_story_of_the_contract(wanted: Policy, calls: list[Call]) -> None:
    """A strict client against the contract in memory, one call after the other, with an operator that ticks in time."""
    run = run_of(wanted, calls)
    told = played(wanted, calls, run.end_ms)
    assert list(run.transitions) == list(told.history[1:])
    total = run.total
    assert (total.refused, total.probes) == (told.totals.not_permitted, told.probes.granted)
    assert (total.ignored, total.late) == (told.totals.ignored, told.totals.late)


def played(wanted: Policy, calls: Sequence[Call], end_ms: int) -> Snapshot:
    """What there is at the end, by commands of the contract alone."""
    now_ms, key, turns = START_MS, "cb:{shop/pay}", count(1)
    memory = Memory(lambda: now_ms)
    due_ms: int | None = None
    flights: list[tuple[int, int, Callable[[], protocol.Call[Any]]]] = []  # when it ends, its turn, what is said then

    def ask(call: protocol.Call[Any]) -> Any:
        return call.read(memory.execute(*call.command()))

    ask(
        protocol.configure(
            key, owner="simulate", uid="simulate", generation=1, policy=wanted, project=Projection.NOTHING
        )
    )

    def tick() -> None:
        nonlocal due_ms
        due_in_ms = ask(protocol.tick(key)).due_in_ms
        due_ms = None if due_in_ms is None else now_ms + due_in_ms

    def ended(call: Call, permit: Permit, lease: str) -> protocol.Call[Any]:
        order, outcome = permit.standing.order[:2], call.seen_by(wanted)
        if permit.decision is Decision.PROBE:
            return protocol.settle(key, client=call.client, lease=lease, order=order, outcome=outcome)
        return protocol.report(key, client=call.client, seq=next(turns), order=order, batch=[(outcome.value, 1)])

    def pass_time(until_ms: int) -> None:
        nonlocal now_ms
        never = until_ms + 1
        while min(ends_ms := flights[0][0] if flights else never, due := never if due_ms is None else due_ms) < never:
            now_ms = min(ends_ms, due)
            if ends_ms < due:
                ask(heapq.heappop(flights)[2]())
            tick()
        now_ms = until_ms

    for number, each in enumerate(chain.from_iterable([each] * each.count for each in calls)):
        pass_time(each.at_ms)
        permit: Permit = ask(protocol.acquire(key, client=each.client, lease=f"lease-{number}"))
        if permit.decision is not Decision.NOT_PERMITTED:
            end = partial(ended, each, permit, f"lease-{number}")
            if each.duration_ms:
                heapq.heappush(flights, (each.at_ms + each.duration_ms, number, end))
            else:
                ask(end())
        tick()
    pass_time(end_ms)
    told: Snapshot = ask(protocol.observe(key, history=256))
    return told


# -- stories


def test_it_opens_refuses_and_recovers_at_its_time() -> None:
    """Five seconds of failures: the third opens it, those that follow are refused and not counted by the rules."""
    run = run_of(policy(), calls_of("SFFFFFSSSSSSSSSS"))
    assert story(run) == [
        ("Open", "ConsecutiveFailures", 3.0),
        ("HalfOpen", "RecoveryTimeoutElapsed", 13.0),
        ("Closed", "ProbesSucceeded", 14.0),
    ]
    assert (run.total.failures, run.total.refused, run.total.refused_failures, run.total.probes) == (3, 9, 2, 2)
    assert run.state_ms[State.OPEN] == 10 * SECOND
    assert run.open_percent == pytest.approx(100 * 10_000 / 15_001)


def test_the_clock_moves_it_between_calls() -> None:
    """Nobody calls for a minute: HalfOpen comes at its own time and not with the next call."""
    run = run_of(policy(), [*calls_of("FFF"), Call(START_MS + 60 * SECOND, Outcome.FAILURE)])
    assert story(run) == [
        ("Open", "ConsecutiveFailures", 2.0),
        ("HalfOpen", "RecoveryTimeoutElapsed", 12.0),
        ("Open", "ProbeFailed", 60.0),
    ]
    assert run.state is State.OPEN


def test_probes_in_flight_are_limited() -> None:
    """Each call takes 3 s, so of three calls a second apart two hold the slots, and the third is refused."""
    probing = [Call(START_MS + (20 + number) * SECOND, Outcome.SUCCESS, 3 * SECOND) for number in range(3)]
    run = run_of(policy(), [*calls_of("FFF"), *probing])
    assert (run.total.probes, run.total.refused, run.total.late) == (2, 1, 0)
    assert story(run)[-1] == ("Closed", "ProbesSucceeded", 24.0)


def test_ignored_probes_are_one_question(monkeypatch) -> None:
    """However many begin at once: each has its slot for no time, and none tells anything."""
    asked, acquired = [], rules.acquired

    def counted(*arguments: Any, **named: Any) -> Any:
        asked.append(named["lease"])
        assert len(asked) < 10
        return acquired(*arguments, **named)

    monkeypatch.setattr(rules, "acquired", counted)
    wanted = policy(failure_threshold=1, half_open_limit=1)
    at_ms = START_MS + 10 * SECOND
    opened, probes = calls_of("F"), Call(at_ms, Outcome.IGNORED, None, 1_000_000)
    run = run_of(wanted, [*opened, probes, Call(at_ms, Outcome.FAILURE), Call(at_ms, Outcome.SUCCESS)])
    assert (run.total.probes, run.total.ignored, run.total.refused) == (1_000_001, 1_000_000, 1)
    held = Call(at_ms, Outcome.IGNORED, 50)
    asked.clear()
    run = run_of(wanted, [*opened, held, probes])
    assert (run.total.probes, run.total.ignored, run.total.refused) == (1, 1, 1_000_000)


def test_probes_that_take_too_long_are_lost() -> None:
    stuck = [Call(START_MS + 20 * SECOND, Outcome.SUCCESS, 60 * SECOND, count=2)]
    run = run_of(policy(), [*calls_of("FFF"), *stuck], START_MS + 30 * SECOND)
    assert story(run)[-1] == ("Open", "ProbesLost", 25.0)


def test_an_outcome_that_comes_after_the_opening_is_late() -> None:
    run = run_of(policy(), [*calls_of("S", duration_ms=9 * SECOND), *calls_of("FFF", every_ms=1)])
    assert (run.total.late, run.total.permitted) == (1, 4)


def test_an_outcome_between_calls_alike_keeps_its_place() -> None:
    """A failure comes between two successes, so the streak is two in the end and not three."""
    long = Call(START_MS, Outcome.FAILURE, 500)
    others = [Call(START_MS + ms, Outcome(letter)) for ms, letter in ((300, "S"), (700, "S"), (800, "F"), (900, "F"))]
    assert story(run_of(policy(), [long, *others])) == []


def test_a_duration_decides_what_is_slow() -> None:
    slow = {"failure_threshold": 0, "slow_call_duration_ms": 200, "slow_call_rate_percent": 50, "minimum_calls": 2}
    quick, long = calls_of("LL", duration_ms=200), calls_of("SS", duration_ms=201)
    assert story(run_of(policy(**slow), quick)) == []  # not longer than it, whatever the trace calls it
    assert [reason for _, reason, _ in story(run_of(policy(**slow), long))] == ["SlowCallRate"]
    assert [reason for _, reason, _ in story(run_of(policy(**slow), calls_of("LL")))] == ["SlowCallRate"]
    assert run_of(policy(), long).total.slow == 0


def test_a_burst_opens_it_in_the_middle() -> None:
    """Of a hundred calls at one instant those after the third are refused."""
    run = run_of(policy(), [Call(START_MS, Outcome.FAILURE, count=100)])
    assert (run.total.failures, run.total.refused, run.total.late) == (3, 97, 0)


def test_backoff_lengthens_what_comes_again() -> None:
    wanted = policy(backoff_factor=2, backoff_max_ms=30_000)
    run = run_of(wanted, calls_of("F" * 100))
    assert [each.open_until_ms - each.at_ms for each in run.transitions if each.open_until_ms][:4] == [
        10_000, 20_000, 30_000, 30_000
    ]  # fmt: skip


def test_what_is_left_out_is_said() -> None:
    wanted = policy(mode=Mode.OBSERVE, min_reporters=3, override=Override("Closed", 0, "x"))
    said = " ".join(remarks(wanted, clients=2))
    assert all(word in said for word in ("Observe", "spec.override", "minReporters is 3", "2 clients"))
    assert story(run_of(policy(mode=Mode.OBSERVE), calls_of("FFF")))[0][0] == "Open"
    assert remarks(policy(), clients=1) == []


def test_processes_make_a_quorum() -> None:
    wanted = policy(min_reporters=2)
    assert Plan(10, SECOND, parse_parts("100%", SECOND), clients=2).calls == 10
    for clients, opens in ((1, False), (2, True)):
        plan = Plan(10, SECOND, parse_parts("100%", SECOND), clients=clients)
        assert bool(run_of(wanted, list(plan.made())).openings) is opens


# -- made traffic


def test_made_traffic_is_a_matter_of_its_seed() -> None:
    parts = parse_parts("0-30s:1%,30s-60s:80%,60s-:5%", 90 * SECOND)
    plan = Plan(50, 90 * SECOND, parts, parse_parts("10%", 90 * SECOND), seed=7)
    made = list(plan.made())
    assert made == list(plan.made())
    assert made != list(Plan(50, 90 * SECOND, parts, seed=8).made())
    assert len(made) == plan.calls == 4_500
    for begin, end, low, high in ((0, 30, 0, 40), (30, 60, 1_100, 1_300), (60, 90, 40, 120)):
        failed = [each for each in made if each.outcome is Outcome.FAILURE]
        assert low <= sum(begin * SECOND <= each.at_ms - START_MS < end * SECOND for each in failed) <= high


@pytest.mark.parametrize(
    ("text", "words"),
    {
        "": "no share like",
        "5": "no share like",
        "150%": "at most 100%",
        "0-30s:1%,20s-:5%": "must not begin before",
        "60s-30s:5%": "must end after it begins",
        "90s-:5%": "ends at 1m",
        "0-soon:5%": "neither a duration",
        "-5%": "no share like",
        "0-30s:nan%": "no share like",
    }.items(),
)
def test_a_plan_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_parts(text, 60 * SECOND)


# -- the picture


def test_a_picture_shows_each_kind_even_where_there_is_little_of_it() -> None:
    calls = [Call(START_MS, Outcome.SUCCESS, count=1_000), *calls_of("SFFFS")[1:]]
    text = plot.plot(run_of(policy(), calls, START_MS + 5 * SECOND), plot.ASCII, height=4).plain
    assert text.splitlines() == [
        "calls in 100ms",
        " 1000 |=" + " " * 49,
        "      |=" + " " * 49,
        "      |=" + " " * 49,
        "      |=         #         #         #         .         ",
        "    0 +" + "-" * 50,
        "state  " + "c" * 30 + "O" * 20,
        "       0s        1s        2s        3s        4s",
        "       # failed  ~ slow  = other  . refused  c Closed  O Open  h HalfOpen",
    ]
    assert text.isascii()


def test_a_terminal_gets_what_it_can_show() -> None:
    assert plot.glyphs_for("utf-8") is plot.UNICODE
    assert plot.glyphs_for("ascii") is plot.glyphs_for("nonsense") is plot.ASCII
    marks = plot.UNICODE.marks
    assert (marks[State.CLOSED], marks[State.HALF_OPEN], marks[State.OPEN]) == ("●", "◐", "○")


def test_many_transitions_are_cut_in_a_table_and_whole_for_programs() -> None:
    run = run_of(policy(), calls_of("F" * 1_000))
    assert len(run.transitions) > 100
    table = report.transitions(run, dated=False)
    assert table.row_count == 41
    told = report.told([report.Trial("f", "shop/pay", run)], dated=False)["runs"][0]
    assert len(told["transitions"]) == len(run.transitions)
    assert told["transitions"][0] | {"window": None, "attempt": None} == {
        "afterSeconds": 2.0,
        "from": "Closed",
        "to": "Open",
        "reason": Reason.CONSECUTIVE_FAILURES,
        "message": "3 consecutive failures reached failureThreshold 3",
        "attempt": None,
        "consecutiveFailures": 3,
        "window": None,
        "openSeconds": 10.0,
    }
