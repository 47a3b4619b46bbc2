"""How a client learns: hints, replies, re-reads; and that an older snapshot never replaces a newer one."""

import json
import time
from time import perf_counter

import pytest

from circuitbreaker_client import CallNotPermittedError, Policy, State
from circuitbreaker_client._core import Core
from circuitbreaker_client._engine import Engine
from circuitbreaker_client._grants import Ask
from circuitbreaker_client.settings import Settings
from circuitbreaker_contract import protocol
from circuitbreaker_contract.access import User, rule
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Decision, Order, Outcome, Permit, Projection, Standing
from tests.client.world import POLICY, fail, until, until_state
from tests.relay import Relay

LONG = {"max_staleness_seconds": 3_000.0}  # nothing is learnt by re-reading in time


def test_a_hint_brings_the_news(world) -> None:
    """Of a state, a policy and a reset; nothing else would in this time."""
    caller, breakers = world.breaker(), world.client(**LONG)
    payments = breakers["payments"]
    settled_in(world, breakers)
    for token in ("1", "2"):
        caller.open()
        until_state(payments, State.OPEN)
        world.admin.fcall("cb_reset", 1, caller.key, "u", token)
        until_state(payments, State.CLOSED)
    caller.define(Policy(7, 60_000, 1, 1, 1_000), generation=2)
    until(lambda: payments.snapshot().policy.failure_threshold == 7, "the new policy")


def settled_in(world, breakers) -> None:
    """The subscription is there, and whatever its gap asked for has been read; nothing waits to be reported."""
    breakers["payments"].call(int)
    listening(world)
    breakers.flush()
    heard = breakers._engine._hearing
    until(lambda: heard.listener is not None and not breakers._engine._talk.dirty, "the gap to be read")
    breakers.flush()


def listening(world, channels: int = 2) -> None:
    names = "circuit_breaker_updates", "circuit_breaker_updates:demo"
    until(lambda: sum(count for _, count in world.admin.pubsub_numsub(*names)) == channels, "the subscription")


def test_what_a_hint_says_is_not_believed(world, caplog) -> None:
    """Forged, foreign and broken messages cost a re-read at most."""
    caller, breakers = world.breaker(), world.client(**LONG)
    payments = breakers["payments"]
    payments.call(int)
    listening(world)
    order = caller.observe().order
    forged = {"service": "demo/payments", "state": "Open", "incarnation": order[0], "generation": 99, "revision": 1}
    for message in (
        json.dumps(forged),
        json.dumps({**forged, "service": "demo/other"}),
        json.dumps({**forged, "service": "Demo"}),
        json.dumps({**forged, "generation": "x"}),
        json.dumps({**forged, "generation": float("inf")}),
        json.dumps({**forged, "generation": float("nan")}),
        json.dumps({**forged, "state": ""}),
        "null",
        "[" * 3_000,
        "x" * 10_000,
    ):
        world.admin.publish("circuit_breaker_updates", message)
    caller.open()
    until_state(payments, State.OPEN)
    assert payments.snapshot().order == caller.observe().order
    assert len(client_threads_alive()) == 1
    assert not caplog.records, "each of them costs a turn of the background thread, and others can send many"


def client_threads_alive() -> list[object]:
    from tests.client.world import client_threads

    return [thread for thread in client_threads() if thread.is_alive()]


def test_a_hint_counts_nothing_in_a_large_fleet(own_world) -> None:
    """Redis knows the last thousand clients. One that it has forgotten asks without saying its last outcomes again."""
    caller = own_world.breaker()
    payments = own_world.client()["payments"]
    for _ in range(50):
        payments.call(int)
    listening(own_world)
    until(lambda: caller.observe().totals.successes == 50, "the report")
    order = caller.observe().order[:2]
    pipe = own_world.admin.pipeline(transaction=False)
    for number in range(1_050):
        call = protocol.report(caller.key, client=f"other-{number}", seq=1, order=order, batch=[("S", 1)])
        pipe.execute_command(*call.command())
    pipe.execute()
    caller.open()
    until_state(payments, State.OPEN)
    told = caller.observe().totals
    assert (told.successes, told.late) == (1_100, 0)
    assert told.ignored <= 1


@pytest.mark.parametrize("channel", ["circuit_breaker_updates", "circuit_breaker_updates:demo"])
def test_either_channel_is_enough(world, channel) -> None:
    """An application that is confined to its namespace may hear only one of the two."""
    world.breaker()
    url = world.login(f"on >secret ~* resetchannels &{channel} +@all")
    payments = world.client(redis_url=url, **LONG)["payments"]
    payments.call(int)
    listening(world, channels=1)
    payments.call(int)
    caller = world.breaker(policy=None)
    if channel.endswith(":demo"):  # there the operator says it
        caller.define(POLICY, generation=2, project=False)
        caller.open()
        order = caller.observe().order
        message = {"service": "demo/payments", "state": "Open", "incarnation": order[0], "generation": order[1]}
        world.admin.publish(channel, json.dumps({**message, "revision": order[2]}))
    else:
        caller.open()
    until_state(payments, State.OPEN)


def test_the_rule_for_applications_is_enough(world) -> None:
    """What contract/acl allows an application is all that a client sends."""
    caller = world.breaker(policy=None)
    caller.define(POLICY, project=False)  # the operator keeps the shared names: applications may not write them
    line = rule(User.APP, namespace="demo", name="app", secret=">secret")
    payments = world.client(redis_url=world.login(line.partition(" app ")[2]))["payments"]
    fail(payments, 3)
    until_state(payments, State.OPEN)
    assert caller.observe().totals.failures == 3
    assert not payments.snapshot().degraded
    log = [each for each in world.admin.acl_log() if each["object"] != "circuit_breaker_updates"]
    assert log == []


def test_a_dropped_subscription_is_made_again_and_the_gap_is_read(world) -> None:
    caller, breakers = world.breaker(), world.client(**LONG)
    payments = breakers["payments"]
    settled_in(world, breakers)
    with world.admin.pipeline() as both:  # at once, so that the client cannot listen in between
        both.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        both.fcall("cb_report", 1, caller.key, "a", 1, *payments.snapshot().order[:2], "F3")
        both.execute()
    until_state(payments, State.OPEN)
    listening(world)


def test_a_subscription_that_has_died_in_silence_is_made_again(own_world) -> None:
    """Its connection is open and nothing comes: the PING has no answer."""
    own_world.breaker()
    with Relay(own_world.server.port) as relay:
        url = relay.redis_url
        payments = own_world.client(redis_url=url, max_staleness_seconds=1.0)["payments"]
        payments.call(int)
        listening(own_world)
        before = relay.accepted
        relay.loses_subscriptions = True
        until(lambda: relay.accepted > before, "another connection")
        assert not payments.snapshot().degraded


def test_without_any_message_it_is_read_again(world) -> None:
    """A breaker whose changes nobody publishes: each half of the staleness bound."""
    caller = world.breaker()
    caller.define(POLICY, generation=2, project=False)
    payments = world.client(max_staleness_seconds=0.4)["payments"]
    payments.call(int)
    caller.open()
    until_state(payments, State.OPEN)
    assert not payments.snapshot().degraded


def test_a_quiet_client_stays_fresh(world) -> None:
    world.breaker()
    payments = world.client(max_staleness_seconds=0.4)["payments"]
    payments.call(int)
    ages = []
    until(lambda: ages.append(payments.snapshot().age_seconds) or len(ages) >= 60, "a second of ages")
    assert max(ages) < 0.4
    assert world.events == []


def test_the_healthy_path_costs_few_commands(world) -> None:
    """Closed: one report each flush interval, however many calls."""
    world.breaker()
    interval_seconds = 0.05
    breakers = world.client(flush_interval_seconds=interval_seconds)
    charge = breakers["payments"](lambda: 0)
    charge()
    breakers.flush()
    listening(world)
    world.reset_commands()
    calls, began = 0, perf_counter()
    reported = breakers.statistics()["demo/payments"].reported
    while breakers.statistics()["demo/payments"].reported == reported or calls < 20_000:
        charge()
        calls += 1
    sent = world.commands()
    intervals = (perf_counter() - began) / interval_seconds
    assert 1 <= sent.get("fcall", 0) + sent.get("fcall_ro", 0) <= intervals + 2


@pytest.mark.parametrize("state_sync", [True, False])
def test_after_a_rest_calls_are_granted_without_a_lock_again(world, state_sync) -> None:
    """Also where nothing but `call` and `permit` is used."""
    world.breaker()
    payments = world.client(state_sync=state_sync)["payments"]
    core = payments._core
    for call in (lambda: payments.call(int), lambda: payments.permit().success()):
        payments.call(int)
        until(lambda: core._dozes_on is not None, "it to doze")
        call()
        assert core._dozes_on is None
        assert core.grant_simply() is not None


def test_a_quiet_client_dozes_and_the_next_call_wakes_it(world) -> None:
    """Whichever way it is made, and under the generation that permits it."""
    caller, breakers = world.breaker(), world.client(**LONG)
    payments, awake = breakers["payments"], breakers._engine._rhythm._awake
    charge = payments(lambda: 5)
    charge()
    for number, call in enumerate((charge, charge, lambda: payments.call(int), payments.record_success), 2):
        until(lambda: not awake, "it to doze")
        call()
        assert awake == {payments._core}
        until(lambda expected=number: caller.observe().totals.successes == expected, "the report")
    until(lambda: not awake, "it to doze")
    caller.open()
    until_state(payments, State.OPEN)
    world.admin.fcall("cb_reset", 1, caller.key, "u", "1")
    until_state(payments, State.CLOSED)
    charge()
    until(lambda: caller.observe().totals.successes == 6, "the report")
    assert caller.observe().totals.late == 0


def test_open_and_closed_never_touch_the_network(own_world) -> None:
    """With Redis stopped cold both answer at once."""
    caller = own_world.breaker()
    payments, other = (own_world.client(**LONG)["payments"] for _ in range(2))
    other.call(int)
    payments.call(int)
    own_world.server.pause()
    assert [other.call(lambda: 5) for _ in range(1_000)] == [5] * 1_000
    own_world.server.resume()
    caller.open()
    until_state(payments, State.OPEN)
    own_world.server.pause()
    for _ in range(1_000):
        with pytest.raises(CallNotPermittedError):
            payments.call(int)
    own_world.server.resume()


# --- orders, on a core without an engine that runs --------------------------------------------------------------------


@pytest.fixture
def core() -> Core:
    engine = Engine(Settings(), None, None)
    engine._start = lambda: None  # nothing is sent
    core = engine.core(BreakerKey("demo", "payments"), "payments")
    core.activate()
    return core


def standing(state: State, generation: int, *, incarnation: int = 5, retry_after_ms: int = 0) -> Standing:
    return Standing(state, Order(incarnation, generation, 1), retry_after_ms)


def test_a_lower_order_never_replaces_a_higher(core, monkeypatch) -> None:
    now = core.engine._wall  # any number
    for module in ("_core", "_knowledge"):
        monkeypatch.setattr(f"circuitbreaker_client.{module}.perf_counter", lambda: now)
    core.saw_standing(standing(State.OPEN, 4, retry_after_ms=1_000), now)
    core.saw_standing(standing(State.CLOSED, 3), now)
    assert (core.state, core.order.generation) == (State.OPEN, 4)
    core.saw_standing(standing(State.CLOSED, 1, incarnation=6), now)
    assert (core.state, core.order.incarnation) == (State.CLOSED, 6)
    # Once it has expired it is no snapshot any more: Redis has lost what we knew, and stays there.
    core.saw_standing(standing(State.OPEN, 9), now)
    assert core.state is State.CLOSED
    now += 11
    core.saw_standing(standing(State.OPEN, 9, retry_after_ms=1_000), now)
    assert (core.state, core.order.incarnation) == (State.OPEN, 5)


@pytest.mark.parametrize("state", [State.HALF_OPEN, State.OPEN])
def test_what_may_be_tried_now_is_not_refused_for_the_time_it_took_to_hear_so(core, state: State) -> None:
    """A caller looks at its clock, waits while the news are taken in, and then looks who may call."""
    core.saw_standing(standing(state, 4, retry_after_ms=200), perf_counter())
    before = perf_counter()
    with pytest.raises(CallNotPermittedError):
        core.step(None, before, is_own=False, is_late=False)
    core.saw_standing(standing(state, 4), perf_counter())
    _, mine = core.step(None, before, is_own=False, is_late=False)
    assert mine, "it asks"


def test_a_refused_caller_comes_back_no_earlier_than_told(core, monkeypatch) -> None:
    now = 1_000.0
    for module in ("_core", "_knowledge"):
        monkeypatch.setattr(f"circuitbreaker_client.{module}.perf_counter", lambda: now)
    core.saw_standing(standing(State.HALF_OPEN, 4), now)
    ask, mine = core.step(None, now, is_own=False, is_late=False)
    assert mine
    refused = Permit(Decision.NOT_PERMITTED, standing(State.HALF_OPEN, 4, retry_after_ms=200), 0)
    core.saw_permit(ask, refused, now)
    core.saw_standing(standing(State.HALF_OPEN, 4), now)  # a slot is free by now
    assert core.retry_at == pytest.approx(1_000.2)
    core.saw_standing(standing(State.CLOSED, 5), now)
    assert core.retry_at == 0


def test_the_outcome_of_a_probe_goes_before_the_next_question(core) -> None:
    """Also when the thread is in the middle of a turn that began before both."""
    core.settling.append(("ours.1", (1, 2), Outcome.SUCCESS))
    core.engine._talk.submit(Ask(core, "ours.2"))
    jobs = core.engine._talk._jobs([], frozenset())
    assert [job.call.function for job in jobs][:2] == ["cb_settle", "cb_acquire"]


def test_an_outcome_stays_with_the_generation_that_permitted_it(core) -> None:
    now = time.perf_counter()
    core.saw_standing(standing(State.CLOSED, 1), now)
    record = core.record
    core.saw_standing(standing(State.CLOSED, 2), now)
    record(0.0)
    core.record(0.0)
    core.record(0.0)
    core.drain(now)
    first = core.next_batch()
    assert (first.order, first.runs) == ((5, 1), [("S", 1)])
    core.saw_report_acknowledged()
    second = core.next_batch()
    assert (second.order, second.runs) == ((5, 2), [("S", 2)])
    assert first.seq < second.seq


def test_what_nobody_uses_is_not_read(world) -> None:
    """It lapses: its next call asks first, and finds what no hint has told. One is read on, whatever happens."""
    breakers = world.client(max_staleness_seconds=1)
    idle = [world.breaker(f"idle-{number}", policy=None) for number in range(5)]
    for number, caller in enumerate(idle):
        caller.define(POLICY, project=Projection.NOTHING if number == 1 else Projection.SHARED)
        breakers[f"idle-{number}"].call(int)
        breakers.flush()
    *others, last = [breakers[f"idle-{number}"]._core for number in range(5)]
    until(lambda: all(core.lapsed for core in others), "those unused for longest to lapse")
    assert not last.lapsed
    world.reset_commands()
    fresh_at = last.fresh_at
    until(lambda: last.fresh_at > fresh_at + 2, "it to be read on")
    assert world.commands()["fcall_ro"] <= 8, "one breaker, each half of the staleness bound"
    assert {breakers[f"idle-{number}"].snapshot().degraded for number in range(5)} == {False}
    # A hint still tells of a change.
    idle[0].open()
    until_state(breakers["idle-0"], State.OPEN)
    # Without one, the next call finds it.
    idle[1].open()
    assert breakers["idle-1"].state is State.CLOSED
    with pytest.raises(CallNotPermittedError):
        breakers["idle-1"].call(int)
    # The generation that permits a call takes its outcome.
    until(lambda: others[2].lapsed, "it to lapse")
    breakers["idle-2"].call(int)
    assert not others[2].lapsed
    until(lambda: idle[2].observe().totals.successes == 2, "the report")
    assert idle[2].observe().totals.late == 0


def test_what_has_lapsed_is_decided_here_when_redis_is_away(own_world) -> None:
    breakers = own_world.client(max_staleness_seconds=1)
    for name in ("payments", "other"):
        own_world.breaker(name)
        breakers[name].call(int)
        breakers.flush()
    core = breakers["payments"]._core
    until(lambda: core.lapsed, "it to lapse")
    own_world.server.kill()
    assert breakers["payments"].call(lambda: 5) == 5
    assert breakers["payments"].snapshot().degraded
    until(lambda: breakers["other"].snapshot().degraded, "the other one to notice too")
    fail(breakers["payments"], 3)
    assert breakers["payments"].state is State.OPEN, "the policy last known"


def test_what_has_lapsed_while_open_stays_open_when_redis_is_away(own_world) -> None:
    callers = {name: own_world.breaker(name) for name in ("payments", "other")}
    breakers = own_world.client(max_staleness_seconds=1)
    for breaker in map(breakers.__getitem__, callers):
        breaker.call(int)
    callers["payments"].open()
    until_state(breakers["payments"], State.OPEN)
    core = breakers["payments"]._core
    until(lambda: breakers["other"].call(int) == 0 and core.lapsed, "it to lapse")
    own_world.server.kill()
    with pytest.raises(CallNotPermittedError) as refused:
        breakers["payments"].call(int)
    assert refused.value.retry_after_seconds > 30, "the opening of 60 s goes on"
    assert breakers["payments"].snapshot().degraded
