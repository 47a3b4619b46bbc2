"""The smaller pure parts of the operator: cache, hints, times, rate limit, Kopf's settings, refresh, health."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import kopf
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.breakers import (
    INCARNATION,
    NOW,
    OWNER,
    POLICY,
    UID,
    a_forced_snapshot,
    a_resource,
    a_snapshot,
    an_observing_snapshot,
    an_open_snapshot,
)

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.policy import Override
from circuitbreaker_contract.state import Order, Reason, Shadow, Snapshot, Standing, State, Tick, Totals, WindowCounts
from circuitbreaker_operator import times
from circuitbreaker_operator.cache import Cache, Change
from circuitbreaker_operator.edge import Hearing
from circuitbreaker_operator.exposition import BreakerPage
from circuitbreaker_operator.handlers import Life, kopf_settings
from circuitbreaker_operator.health import report
from circuitbreaker_operator.metrics import Book, Metrics
from circuitbreaker_operator.reconcile import Reconciler
from circuitbreaker_operator.reflector import Bucket, Reflector, Urgency
from circuitbreaker_operator.refresh import slice_of
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.subscription import parse_hint

KEY = BreakerKey("shop", "pay")


def test_a_cache_never_goes_back() -> None:
    """Watch, sweep and answers to writes overtake each other."""
    cache = Cache()
    assert cache.put(a_resource(resourceVersion="9")) is Change.ASKED
    assert cache.put(a_resource(resourceVersion="10", status={"state": "Open"})) is Change.STATUS
    assert cache.put(a_resource(resourceVersion="9")) is Change.NOTHING
    assert cache.put(a_resource(resourceVersion="10", status={"state": "Open"})) is Change.NOTHING
    assert cache.put(a_resource(resourceVersion="11", generation=2, spec={"halfOpenLimit": 1})) is Change.ASKED
    assert (
        cache.put(a_resource(resourceVersion="12", generation=2, spec={"halfOpenLimit": 1}, reset="x")) is Change.ASKED
    )


def test_a_listing_may_go_back() -> None:
    """Versions start over after a restore of etcd, and the watch lists again."""
    cache = Cache()
    cache.put(a_resource(resourceVersion="900"))
    assert cache.put(a_resource(resourceVersion="20", generation=2), listed=True) is Change.ASKED


def test_the_deleted_stay_deleted() -> None:
    """A straggler of a deleted uid is ignored; the same name under another uid is a new resource."""
    cache = Cache()
    cache.put(a_resource())
    assert cache.bury(KEY, UID) is True
    assert cache.put(a_resource(resourceVersion="99"), listed=True) is Change.NOTHING
    assert (cache.get(KEY), cache.gone(KEY)) == (None, UID)
    assert cache.put(a_resource(uid="another", resourceVersion="100")) is Change.ASKED
    assert (cache.gone(KEY), cache.bury(KEY, UID)) == (None, False)
    assert cache.get(KEY) is not None


def test_what_a_restore_of_etcd_brings_back() -> None:
    """A GET that was sent when nothing else was known here than what it contradicts is believed."""
    old, new = a_resource(resourceVersion="100"), a_resource(uid="another", resourceVersion="500")
    cache = Cache()
    cache.put(old)
    cache.bury(KEY, UID)
    cache.put(new)
    assert cache.put_answer(old, before=None) is Change.NOTHING  # sent before that was made
    assert (cache.put_answer(old, before=new), cache.get(KEY)) == (Change.ASKED, old)
    again = a_resource(resourceVersion="90", status={"state": "Open"})
    assert (cache.put_answer(again, before=old), cache.get(KEY)) == (Change.STATUS, again)
    cache.bury(KEY, UID)
    assert cache.put_answer(again, before=again) is Change.NOTHING  # deleted while it was on its way
    assert (cache.put_answer(again, before=None), cache.get(KEY)) == (Change.ASKED, again)


HINTS = {
    "of the contract": (b'{"service":"shop/pay","state":"Open","version":1}', (KEY, State.OPEN, None)),
    "an opening with its length": (
        b'{"service":"shop/pay","state":"Open","retryAfterMs":1500}',
        (KEY, State.OPEN, 1.5),
    ),
    "a length beyond all bounds": (
        b'{"service":"shop/pay","state":"Open","retryAfterMs":1e99}',
        (KEY, State.OPEN, None),
    ),
    "an opening without an end": (
        b'{"service":"shop/pay","state":"Open","retryAfterMs":-1}',
        (KEY, State.OPEN, None),
    ),
    "a shadow that opened": (
        b'{"service":"shop/pay","state":"Closed","reason":"WouldHaveOpened","retryAfterMs":0}',
        (KEY, State.CLOSED, None),
    ),
    "a deletion": (b'{"service":"shop/pay","state":""}', (KEY, None, None)),
    "a state nobody knows": (b'{"service":"shop/pay","state":"Ajar"}', (KEY, None, None)),
    "a state that is no text": (b'{"service":"shop/pay","state":[]}', (KEY, None, None)),
    "a name that no key can have": (b'{"service":"shop/../pay{}","state":"Open"}', None),
    "no name": (b'{"state":"Open"}', None),
    "a number for a name": (b'{"service":7}', None),
    "no object": (b"[]", None),
    "no JSON": (b"\xff\x00", None),
    "nested without end": (b"[" * 4_000, None),
    "much too long": (b" " * 5_000 + b'{"service":"shop/pay"}', None),
    "a number": (5, None),
}


@pytest.mark.parametrize(("data", "hint"), HINTS.values(), ids=HINTS)
def test_hints(data: object, hint: object) -> None:
    """Anybody can publish; only a name comes out of it."""
    assert parse_hint(data) == hint


def test_times_and_back() -> None:
    """Milliseconds are kept; what is no time is refused."""
    assert times.to_text(INCARNATION + 7) == "2027-01-15T08:00:00.007Z"
    assert times.to_ms(times.to_text(INCARNATION + 7)) == INCARNATION + 7
    assert times.to_ms("2027-01-15T09:00:00+01:00") == INCARNATION
    assert times.to_seconds_text(INCARNATION + 999) == "2027-01-15T08:00:00Z"
    for wrong in ("", "soon", "2027-01-15T08:00:00", "1960-01-01T00:00:00Z", "9999-01-01T00:00:00Z", None, 5):
        with pytest.raises(ValueError):
            times.to_ms(wrong)


def test_the_rate_limit() -> None:
    """Twice a second's worth at once, then evenly; a pause that was asked for holds everything up."""
    now = 0.0
    bucket = Bucket(10.0, clock=lambda: now)
    assert [bucket.wait_seconds() for _ in range(21)] == [0.0] * 20 + [pytest.approx(0.1)]
    now = 2.1
    assert [bucket.wait_seconds() for _ in range(20)] == [0.0] * 20
    bucket.pause(3.0)
    assert bucket.wait_seconds() == pytest.approx(3.1)
    now = 70.0
    bucket.pause(3.0)
    assert bucket.wait_seconds() == pytest.approx(3.1), "however long nothing was written before"


def test_kopf_settings() -> None:
    """Each of these is there because something broke without it."""
    chosen = kopf_settings(Settings.load())
    assert (chosen.watching.server_timeout, chosen.watching.client_timeout, chosen.watching.connect_timeout) == (
        300,
        310,
        5,
    )
    assert (chosen.watching.inactivity_timeout, chosen.watching.chunk_size) == (70.0, 100)
    assert (chosen.networking.request_timeout, chosen.networking.enforce_retry_after) == (15, True)
    assert (chosen.queueing.worker_limit, chosen.posting.enabled, chosen.peering.standalone) == (None, False, True)
    assert chosen.persistence.finalizer == "circuitbreaker.dev/operator"
    assert chosen.scanning.disabled is False
    assert kopf_settings(Settings.load(namespaces=("shop",))).scanning.disabled is True
    body = kopf.Body({"metadata": {"annotations": {"circuitbreaker.dev/last-handled-configuration": "}"}}, "spec": {}})
    stored = chosen.persistence.diffbase_storage
    assert (stored.fetch(body=body), stored.build(body=body)) == (None, {})  # neither read nor copied


def test_signs_of_life() -> None:
    """The quietest of the watches counts; one that starts has the whole time."""
    now = 0.0
    life = Life(("a", "b"), clock=lambda: now)
    path = "/apis/circuitbreaker.dev/v1alpha1/namespaces/{}/circuitbreakers"
    assert life.knows(path.format("a"))
    assert not life.knows("/api/v1/namespaces")
    now = 100.0
    life.beat(path.format("a"))
    assert life.silent_seconds() == 100.0
    life.beat(path.format("b"))
    assert life.silent_seconds() == 0.0
    assert Life(()).knows("/apis/circuitbreaker.dev/v1alpha1/circuitbreakers")


def test_a_watch_is_open_while_it_is_read() -> None:
    """All of them have to be; what a former life of Kopf left open does not count for the next."""
    life = Life(("a", "b"))
    path = "/apis/circuitbreaker.dev/v1alpha1/namespaces/{}/circuitbreakers"
    assert not life.watching
    with life.watch(path.format("a")):
        assert not life.watching
        with life.watch(path.format("b")), life.watch(path.format("b")):
            assert life.watching
            life.begin()
            assert not life.watching
    with life.watch(path.format("a")), life.watch(path.format("b")):
        assert life.watching


def test_hearing_is_lost_after_a_while_only() -> None:
    """A watch that never began is told at once; one that ends for a moment is not, nor while nobody answers."""
    hearing = Hearing()
    hearing.look(0.0, watching=False, answers=True)
    assert not hearing.good(0.0)
    hearing.look(1.0, watching=True, answers=True)
    assert hearing.good(1.0)
    hearing.look(2.0, watching=False, answers=True)
    assert hearing.good(61.0)
    assert not hearing.good(62.0)
    hearing.look(70.0, watching=True, answers=True)
    assert hearing.good(70.0)
    for second in range(71, 500):
        hearing.look(float(second), watching=False, answers=False)
    assert hearing.good(499.0)
    hearing.look(500.0, watching=False, answers=True)
    assert hearing.good(559.0)
    assert not hearing.good(560.0)


def test_refresh_is_spread() -> None:
    """A thousand breakers over a minute: no second has many more than its share."""
    slices = [slice_of(BreakerKey("shop", f"b{number}"), 60) for number in range(6_000)]
    assert set(slices) == set(range(60))
    assert max(slices.count(each) for each in range(60)) < 160


def test_health_says_degraded_and_which() -> None:
    """An open circuit, or a part that is down."""
    book = Book()
    up: dict[str, dict[str, Any]] = {"redis": {"status": "up"}}
    book.put(KEY, a_snapshot(totals=Totals(successes=3, failures=1)))
    book.put(BreakerKey("shop", "other"), a_snapshot())
    healthy = report(book, components=up, uptime_seconds=1.0)
    assert (healthy["status"], healthy["open_circuits"]) == ("healthy", [])
    assert healthy["metrics"]["error_rate_percent"] == {"recent": None, "overall": 25.0}
    book.put(KEY, an_open_snapshot(totals=Totals(successes=3, failures=6), window=WindowCounts(8, 6, 0)))
    degraded = report(book, components=up, uptime_seconds=1.0)
    assert (degraded["status"], degraded["open_circuits"]) == ("degraded", ["shop/pay"])
    assert degraded["metrics"]["circuits"] == {"total": 2, "closed": 1, "open": 1, "half_open": 0}
    assert degraded["metrics"]["error_rate_percent"] == {"recent": 75.0, "overall": 66.667}
    assert report(Book(), components={"redis": {"status": "down"}}, uptime_seconds=1.0)["status"] == "degraded"
    json.dumps(degraded)


def series(book: Book) -> dict[tuple[str, ...], float]:
    """(name, values of labels less namespace and name) -> value."""
    return {
        (
            sample.name,
            *(value for name, value in sample.labels.items() if name not in {"namespace", "name"}),
        ): sample.value
        for metric in text_string_to_metric_families(BreakerPage(book).write(openmetrics=False))
        for sample in metric.samples
    }


def test_the_series_of_a_breaker() -> None:
    """One-hot states, always all three; an end of Open only while Open."""
    book = Book()
    book.put(KEY, an_open_snapshot(state_ms={State.CLOSED: 1_500}))
    samples = series(book)
    assert [samples["circuitbreaker_state", state] for state in ("Closed", "Open", "HalfOpen")] == [0.0, 1.0, 0.0]
    assert samples["circuitbreaker_calls_total", "failure"] == 5.0
    assert samples["circuitbreaker_transitions_total", "Closed", "Open", "ConsecutiveFailures"] == 1.0
    assert samples["circuitbreaker_state_seconds_total", "Closed"] == 1.5
    assert samples["circuitbreaker_open_until_timestamp_seconds",] == (INCARNATION + 32_000) / 1000
    assert samples["circuitbreaker_forced",] == 0.0
    book.put(KEY, a_snapshot())
    names = {name for name, *_ in series(book)}
    assert "circuitbreaker_open_until_timestamp_seconds" not in names


def test_the_series_of_rates() -> None:
    """As in the window, to the last digit; absent below minimumCalls, and for slow calls that nobody tells apart."""
    book, rated = Book(), replace(POLICY, minimum_calls=3, slow_call_duration_ms=1, slow_call_rate_percent=50)
    rates = ("circuitbreaker_failure_rate_percent",), ("circuitbreaker_slow_call_rate_percent",)
    book.put(KEY, a_snapshot(policy=rated, window=WindowCounts(3, 1, 3)))
    assert [series(book).get(rate) for rate in rates] == [pytest.approx(100 / 3), 100.0]
    book.put(KEY, a_snapshot(policy=rated, window=WindowCounts(2, 1, 2)))
    assert [series(book).get(rate) for rate in rates] == [None, None]
    book.put(KEY, a_snapshot(window=WindowCounts(10, 0, 0)))
    assert [series(book).get(rate) for rate in rates] == [0.0, None]


def test_the_series_of_overrides_and_of_observe() -> None:
    """Held without an end there is no time of its end; a shadow counts only in mode Observe."""
    book = Book()
    totals = {(State.CLOSED, State.OPEN, Reason.FORCED): 1}
    book.put(KEY, a_forced_snapshot(Override("Open", 0, "x"), transition_totals=totals))
    held = series(book)
    assert (held["circuitbreaker_forced",], held["circuitbreaker_state", "Open"]) == (1.0, 1.0)
    assert held["circuitbreaker_transitions_total", "Closed", "Open", "Forced"] == 1.0
    assert {name for name, *_ in held}.isdisjoint(
        {"circuitbreaker_open_until_timestamp_seconds", "circuitbreaker_shadow_opened_total"}
    )
    book.put(KEY, an_observing_snapshot(Shadow(State.OPEN, opened=3, not_permitted=7)))
    watched = series(book)
    assert watched["circuitbreaker_state", "Closed"] == 1.0
    assert watched["circuitbreaker_shadow_opened_total",] == 3.0
    assert watched["circuitbreaker_shadow_not_permitted_total",] == 7.0


def a_tick(due_in_ms: int | None, activity: int = 0) -> Tick:
    return Tick(Standing(State.CLOSED, Order(INCARNATION, 1, 1), 0), due_in_ms, activity)


LOOKS = {
    "nothing moved": (a_snapshot(), a_tick(None), None),
    "calls": (a_snapshot(), a_tick(None, 5), Urgency.COUNTERS),
    "somebody reported lately": (a_snapshot(reporters=1), a_tick(None), Urgency.COUNTERS),
    "a time window empties without a sound": (a_snapshot(window=WindowCounts(1)), a_tick(None), Urgency.COUNTERS),
    "a count window does not": (
        a_snapshot(policy=replace(POLICY, window_ms=0, window_calls=10), window=WindowCounts(1)),
        a_tick(None),
        None,
    ),
    "a shadow that is Open may have moved": (
        an_observing_snapshot(Shadow(State.OPEN, open_until_ms=NOW)),
        a_tick(None),
        Urgency.TRANSITION,
    ),
    "a shadow that was Closed has a deadline": (an_observing_snapshot(Shadow()), a_tick(500), Urgency.TRANSITION),
    "a shadow that is Closed": (an_observing_snapshot(Shadow()), a_tick(None), None),
    "an override with an end": (a_snapshot(), a_tick(500), None),
    "an override with an end in mode Observe": (
        an_observing_snapshot(Shadow(), forced=State.CLOSED),
        a_tick(500),
        None,
    ),
}


@pytest.mark.parametrize(("seen", "tick", "expected"), LOOKS.values(), ids=LOOKS)
async def test_what_a_tick_makes_us_look_at(seen: Snapshot, tick: Tick, expected: Urgency | None) -> None:
    """Whatever may have moved since the last look, and nothing else."""
    cache, book, metrics = Cache(), Book(), Metrics()
    cache.put(a_resource())
    book.put(KEY, seen)
    nothing: Any = None
    reflector = Reflector(
        Settings.load(),
        owner=OWNER,
        cache=cache,
        store=nothing,
        cluster=nothing,
        echoes=nothing,
        book=book,
        metrics=metrics,
    )
    reflector.ticked(KEY, tick)
    taken = reflector._pending.take(float("inf"))
    assert (None if taken is None else Urgency(taken[1])) is expected


async def test_a_tick_that_is_answered_after_its_breaker_has_gone_leaves_nothing() -> None:
    """A refusal is kept for the next one; nobody would take it away."""
    nothing: Any = None
    gone: list[BreakerKey] = []
    mirror: Any = SimpleNamespace(gone=gone.append)
    reconciler = Reconciler(
        Settings.load(), owner=OWNER, cache=Cache(), store=nothing, mirror=mirror, metrics=Metrics()
    )
    await reconciler(KEY)
    assert gone == [KEY]
