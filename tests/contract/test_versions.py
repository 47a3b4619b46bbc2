"""Editions of the library on one Redis: who replaces whom, and what the data of an older one is to a newer one.

`editions/<n>.lua` is the joined text of a released edition, with its digest in its second line.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.errors import UnknownBreakerError, VersionError
from circuitbreaker_contract.policy import Mode, Override, Policy
from circuitbreaker_contract.protocol import Version
from circuitbreaker_contract.state import Configured, Decision, ProbeTotals, Reason, State, Totals, WindowCounts
from circuitbreaker_local.redis_server import RedisServer
from tests.contract.callers import POLICY, SHORT, Caller, load, send

FIRST = (Path(__file__).parent / "editions" / "1.lua").read_text(encoding="utf-8")
NUMBERS = ("failureThreshold", "recoveryTimeoutMs", "halfOpenLimit", "successThreshold", "probeTimeoutMs")


@pytest.fixture
def client(shared_redis: RedisServer) -> "redis.Redis[str]":
    with redis.Redis.from_url(shared_redis.url, decode_responses=True) as connected:
        yield connected


@pytest.fixture
def caller(client: "redis.Redis[str]") -> Caller:
    """A breaker; the library is each test's to load."""
    return Caller(client)


def start_program(client: "redis.Redis[str]") -> bool:
    """What every program does that may load the library; True when it did."""
    try:
        found: Version | None = send(client, protocol.version())
    except redis.ResponseError as error:
        if "Function not found" not in str(error):
            raise
        found = None
    if not library.should_load(found):
        return False
    load(client)
    return True


def of_edition(number: int, *, contract: int = 1) -> str:
    """Our text under another number."""
    line = f"= {library.CONTRACT_VERSION}, {library.VERSION}, '{library.digest()}'"
    assert library.source().count(line) == 1
    return library.source().replace(line, f"= {contract}, {number}, 'another'")


def first_policy(policy: Policy) -> str:
    """The policy as the first edition knows it: five numbers and nothing else."""
    raw = json.loads(policy.to_json())
    return json.dumps({name: raw[name] for name in NUMBERS}, separators=(",", ":"))


def define_in_first(caller: Caller, policy: Policy) -> None:
    caller.client.execute_command("FCALL", "cb_configure", 1, caller.key, "o", "u", 1, first_policy(policy), 1)


def stored(caller: Caller) -> dict[str, str]:
    return caller.client.hgetall(caller.key)


# -- who replaces whom


def test_the_fixture_is_what_was_released(client: "redis.Redis[str]") -> None:
    load(client, FIRST)
    assert send(client, protocol.version()) == Version(1, 1, "12fd76fb227b2e0b")


@pytest.mark.parametrize(
    ("there", "loads"),
    [
        (lambda: "", True),
        (lambda: FIRST, True),
        (library.source, False),
        (lambda: of_edition(library.VERSION), True),  # the same number, another text: a build under development
        (lambda: of_edition(library.VERSION + 1), False),
    ],
    ids=["nothing", "first", "ours", "ours, changed", "newer"],
)
def test_the_newest_edition_stays(client: "redis.Redis[str]", there: Callable[[], str], loads: bool) -> None:
    """An older program beside a newer one does no harm, in whichever order they start."""
    if text := there():
        load(client, text)
    before = send(client, protocol.version()) if text else None
    assert start_program(client) is loads
    after = send(client, protocol.version())
    assert after == (Version(library.CONTRACT_VERSION, library.VERSION, library.digest()) if loads else before)
    assert start_program(client) is False


def test_another_contract_is_left_alone(client: "redis.Redis[str]") -> None:
    """Neither replaced nor used: the program says so and waits for a person."""
    load(client, of_edition(9, contract=2))
    with pytest.raises(VersionError, match="contract version 2, this program 1"):
        start_program(client)
    assert send(client, protocol.version()) == Version(2, 9, "another")


# -- the data of the first edition, served by ours


def test_an_open_breaker_stays_open(caller: Caller) -> None:
    """State, order, end of the opening, attempt, totals and history are what they were; looking writes nothing."""
    load(caller.client, FIRST)
    define_in_first(caller, POLICY)
    order = (int(stored(caller)["incarnation"]), 1)
    caller.report(("S", 7), ("L", 1), ("I", 2), ("N", 5), order=order)
    caller.report(("F", 2), ("M", 4), order=order)
    caller.acquire("l0")
    old = stored(caller)
    load(caller.client)
    now = caller.observe(history=9)
    assert (now.state, now.reason) == (State.OPEN, Reason.CONSECUTIVE_FAILURES)
    assert tuple(now.order) == (*order[:1], 2, 1)
    assert now.open_until_ms == int(old["openUntil"])
    assert (now.attempt, now.consecutive_failures) == (1, 3)
    assert now.totals == Totals(successes=8, failures=3, slow=2, ignored=2, not_permitted=6, late=3)
    assert now.transition_totals == {(State.CLOSED, State.OPEN, Reason.CONSECUTIVE_FAILURES): 1}
    assert [(entry.generation, entry.state, entry.reason) for entry in now.history] == [
        (1, State.CLOSED, Reason.CREATED),
        (2, State.OPEN, Reason.CONSECUTIVE_FAILURES),
    ]
    assert {entry.window for entry in now.history} == {WindowCounts()}, "what the first edition did not note is empty"
    assert {(entry.forced, entry.note) for entry in now.history} == {(None, "")}
    assert (now.window, now.forced, now.shadow) == (WindowCounts(), None, None)
    assert (now.policy.mode, now.policy.window_ms, now.policy.min_reporters) == (Mode.ENFORCE, 60_000, 1)
    assert (now.owner, now.uid, now.resource_generation, now.projection) == ("o", "u", 1, 1)
    assert stored(caller) == old
    assert caller.acquire("l1").decision is Decision.NOT_PERMITTED
    assert caller.observe().open_until_ms == int(old["openUntil"])


def test_a_probe_under_way_is_settled(caller: Caller) -> None:
    """Leases keep their slot and their end; the answer counts once and closes."""
    load(caller.client, FIRST)
    define_in_first(caller, SHORT)
    caller.report(("F", 3), order=(int(stored(caller)["incarnation"]), 1))
    caller.until_half_open()
    granted = [caller.acquire("l1"), caller.acquire("l2")]
    assert [each.decision for each in granted] == [Decision.PROBE] * 2
    load(caller.client)
    assert caller.observe().probes_live == 2
    assert caller.acquire("l3").decision is Decision.NOT_PERMITTED
    again = caller.acquire("l1")
    assert again.decision is Decision.PROBE
    assert again.lease_ms <= granted[0].lease_ms
    for _ in range(2):
        assert caller.settle("l1").state is State.CLOSED
    assert caller.observe().probes == ProbeTotals(granted=2, succeeded=1)


def test_a_streak_goes_on(caller: Caller) -> None:
    """Two failures under the first edition and one under ours make three."""
    load(caller.client, FIRST)
    define_in_first(caller, POLICY)
    order = (int(stored(caller)["incarnation"]), 1)
    caller.report(("S", 1), ("F", 2), order=order)
    load(caller.client)
    assert caller.report(("F", 1), order=order).state is State.OPEN


def test_a_batch_sent_again_across_the_change_counts_once(caller: Caller) -> None:
    """The reply was lost, then the library was replaced: the batch's number is still known."""
    load(caller.client, FIRST)
    define_in_first(caller, POLICY)
    order = (int(stored(caller)["incarnation"]), 1)
    caller.report(("S", 5), order=order, seq=1)
    load(caller.client)
    caller.report(("S", 5), order=order, seq=1)
    assert caller.observe().totals.successes == 5


def test_a_new_policy_is_taken_without_a_transition(caller: Caller) -> None:
    """The newer operator applies what the spec says now; that is an edit like any other, while Open too."""
    load(caller.client, FIRST)
    define_in_first(caller, POLICY)
    caller.report(("F", 3), order=(int(stored(caller)["incarnation"]), 1))
    load(caller.client)
    before = caller.observe(history=9)
    assert caller.define(POLICY, generation=1) is Configured.UPDATED, "its text names defaults that the old one had not"
    after = caller.observe(history=9)
    assert after.order == before.order._replace(revision=2)
    assert (after.state, after.open_until_ms, after.totals) == (before.state, before.open_until_ms, before.totals)
    assert after.history == before.history
    assert caller.define(POLICY, generation=1) is Configured.UNCHANGED


# -- one who knows the first edition only, served by ours


def test_replies_keep_their_form(caller: Caller) -> None:
    """Same arguments, same places: whoever reads by place or by name finds what the first edition gave."""
    load(caller.client, FIRST)
    shapes = [replies_of_a_life(caller)]
    caller.client.flushall()
    load(caller.client)
    shapes.append(replies_of_a_life(caller))
    first, ours = shapes
    assert {function: len(reply) for function, reply in first.items() if function != "cb_observe"} == {
        function: len(reply) for function, reply in ours.items() if function != "cb_observe"
    }
    assert set(first["cb_observe"][::2]) <= set(ours["cb_observe"][::2])


def replies_of_a_life(caller: Caller) -> dict[str, list]:
    """Function -> a reply, by the first edition's calls."""
    fcall = caller.client.execute_command
    replies = {"cb_configure": fcall("FCALL", "cb_configure", 1, caller.key, "o", "u", 1, first_policy(SHORT), 1)}
    order = replies["cb_configure"][1:3]
    replies["cb_report"] = fcall("FCALL", "cb_report", 1, caller.key, "c", 1, *order, "F3")
    assert replies["cb_report"][0] == "Open"
    caller.until_half_open()
    replies["cb_acquire"] = fcall("FCALL", "cb_acquire", 1, caller.key, "c", "l1")
    replies["cb_settle"] = fcall("FCALL", "cb_settle", 1, caller.key, "c", "l1", order[0], 3, "S")
    assert replies["cb_settle"][0] == "Closed"
    replies["cb_tick"] = fcall("FCALL", "cb_tick", 1, caller.key)
    replies["cb_observe"] = fcall("FCALL_RO", "cb_observe", 1, caller.key, 9)
    replies["cb_reset"] = fcall("FCALL", "cb_reset", 1, caller.key, "u", "token")
    replies["cb_version"] = fcall("FCALL_RO", "cb_version", 0)
    replies["cb_delete"] = fcall("FCALL", "cb_delete", 1, caller.key, "o", "u")
    return replies


def test_what_the_first_edition_never_said(caller: Caller) -> None:
    """New words come only of what the new spec asks for: a reader of enumerations has to let them pass."""
    load(caller.client)
    caller.define(POLICY)
    caller.define(Policy(**{**fields(POLICY), "override": Override("Open", 0, "by hand")}), generation=2)
    standing = caller.tick()
    assert (standing.state, standing.retry_after_ms) == (State.OPEN, -1)
    words = set(re.findall(r"'(\w+)'", FIRST))
    assert caller.observe().reason.value not in words


def fields(policy: Policy) -> dict[str, object]:
    return {name: getattr(policy, name) for name in Policy.__slots__}


# -- the way back


def test_an_older_edition_put_back_by_hand_cannot_read_newer_policies(caller: Caller) -> None:
    """FUNCTION LOAD REPLACE of an older text: CBUNKNOWN, nothing changed, until the newer one is there again."""
    load(caller.client)
    caller.define(POLICY)
    caller.open()
    before = stored(caller)
    load(caller.client, FIRST)
    with pytest.raises(UnknownBreakerError):
        caller.acquire("l1")
    assert stored(caller) == before
    assert start_program(caller.client) is True
    assert caller.observe().state is State.OPEN
