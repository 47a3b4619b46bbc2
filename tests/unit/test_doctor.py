"""`kubectl breaker doctor`: what the checks make of answers, those that are missing or hostile included."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.checks import findings, installation, served, stuck
from circuitbreaker_cli.checks.findings import Answer, Finding, Verdict
from circuitbreaker_cli.checks.installation import Clock, clock
from circuitbreaker_contract import library, rules
from circuitbreaker_contract.breaker import Definition
from circuitbreaker_contract.memory import Memory
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.protocol import Version, observe
from circuitbreaker_contract.state import Outcome, Snapshot, State
from circuitbreaker_operator import times

NOW_MS = 1_800_000_000_000
MINUTE, DAY = 60_000, 86_400_000
CRD = yaml.safe_load((Path(__file__).parents[2] / "crds" / "circuitbreakers.yaml").read_text(encoding="utf-8"))
HOSTILE = "[red]\x1b[2J\u202e\r\n"
OK, WARNING, PROBLEM, NOT_CHECKED = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM, Verdict.NOT_CHECKED


def at(ago_ms: int) -> str:
    return times.to_text(NOW_MS - ago_ms)


# -- those that are stuck


def view(*, spec: Any = None, created_ms: int = DAY, generation: int = 2, **status: Any) -> View:
    metadata = {"namespace": "shop", "name": "pay", "uid": "uid-1", "generation": generation}
    ready = [{"type": "Ready", "status": "True", "reason": "InForce", "message": ""}]
    known = {"state": "Closed", "since": at(DAY), "observedGeneration": 2, "incarnation": 7, "stateGeneration": 3}
    shown = {**known, "conditions": ready, **status}
    if status.get("state") == "":  # never in force
        shown = {name: value for name, value in status.items() if value}
    return View({"metadata": {**metadata, "creationTimestamp": at(created_ms)}, "spec": spec or {}, "status": shown})


def ready(status: str, reason: str, message: str = "so it is") -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": message}]}


def override(until_ms_ago: int | None = None) -> dict[str, Any]:
    until = {} if until_ms_ago is None else {"until": at(until_ms_ago)}
    return {"override": {"state": "Open", "reason": "maintenance", **until}}


TOO_FEW = "HalfOpen for more than 15 minutes: too few probes come (16m ago)"
OVER = "held, although its override is over (1m ago)"
STUCK: dict[str, tuple[View, Verdict, str]] = {
    "nobody serves it": (view(state="", created_ms=MINUTE), PROBLEM, "no operator has put it in force (1m ago)"),
    "a spec that cannot be": (view(**ready("False", "InvalidSpec")), PROBLEM, "Ready is False, InvalidSpec (so it is)"),
    "one that never could be": (
        view(state="", **ready("False", "InvalidSpec")), PROBLEM, "Ready is False, InvalidSpec (so it is)"
    ),
    "Redis away": (view(**ready("Unknown", "Store")), WARNING, "Ready is Unknown, Store (so it is)"),
    "an edit that waits": (view(generation=3), WARNING, "its last edit is not in force (generation 3, status of 2)"),
    "past retry-at": (view(state="Open", openUntil=at(MINUTE)), PROBLEM, "Open, and past the time for probes (1m ago)"),
    "no probes": (
        view(state="HalfOpen", since=at(16 * MINUTE)), WARNING, TOO_FEW
    ),
    "a leftover": (view(spec=override(DAY)), WARNING, "spec.override is over and still there (24h ago)"),
    "over and in force": (
        view(spec=override(MINUTE), state="Open", forced=True, openUntil=at(MINUTE)), PROBLEM, OVER
    ),
    "forgotten": (
        view(spec=override(), state="Open", forced=True, since=at(2 * DAY)), WARNING,
        "held Open for more than a day, without an end (maintenance)"
    ),
}  # fmt: skip
FINE = {
    "Closed": view(),
    "just made": view(state="", created_ms=5_000),
    "Open, in time": view(state="Open", openUntil=at(-MINUTE)),
    "Open, due a moment ago": view(state="Open", openUntil=at(5_000)),
    "HalfOpen for a while": view(state="HalfOpen", since=at(14 * MINUTE)),
    "held since this morning": view(spec=override(), state="Open", forced=True, since=at(DAY // 2)),
    "held with an end": view(spec=override(-MINUTE), state="Open", forced=True, since=at(2 * DAY)),
}


@pytest.mark.parametrize(("seen", "verdict", "words"), STUCK.values(), ids=STUCK)
def test_a_breaker_that_is_stuck(seen: View, verdict: Verdict, words: str) -> None:
    (finding,) = stuck.examined([view(), seen], NOW_MS, None)
    assert finding.verdict is verdict
    assert (finding.text, finding.objects) == (words.rpartition(" (")[0], (f"shop/pay ({words.rpartition(' (')[2]}",))
    assert finding.remedy


@pytest.mark.parametrize("seen", FINE.values(), ids=FINE)
def test_a_breaker_that_is_fine(seen: View) -> None:
    assert [each.verdict for each in stuck.examined([seen], NOW_MS, None)] == [OK]


def snapshot(*, opened: bool = False, since_ms: int = NOW_MS - MINUTE, uid: str = "uid-1") -> Snapshot:
    """What Redis would reply now about a breaker whose last transition was then."""
    now_ms, key = [since_ms], "cb:{shop/pay}"
    memory = Memory(lambda: now_ms[0])
    breaker, _ = rules.configured(None, since_ms, Definition("owner", uid, 2, Policy(1, DAY, 1, 1, MINUTE)))
    if opened:
        order, runs = breaker.order[:2], ((Outcome.FAILURE.value, 1),)
        breaker = rules.reported(breaker, since_ms, client="a", seq=1, order=order, runs=runs)
    memory.breakers[key] = breaker
    now_ms[0] = NOW_MS
    call = observe(key)
    return call.read(memory.execute(*call.command()))


def test_a_status_beside_redis() -> None:
    now = snapshot(opened=True)
    same = view(state="Open", openUntil=at(-DAY), incarnation=now.order.incarnation, stateGeneration=2)
    for seen, shown, words in (
        (now, same, "none is stuck and statuses agree with Redis"),
        (now, view(), "its status tells another story than Redis"),
        (snapshot(opened=True, since_ms=NOW_MS - 3_000), view(), "none is stuck"),  # on its way
        (snapshot(uid="uid-2"), view(), "Redis has another breaker of this name"),
        (stuck.NOT_IN_REDIS, view(), "not in Redis, so clients decide alone"),
        (HOSTILE, view(), "cannot be read in Redis"),
    ):
        (finding,) = stuck.examined([shown], NOW_MS, {"shop/pay": seen})
        assert words in finding.text
    assert now.state is State.OPEN
    waiting = stuck.examined([STUCK["no probes"][0]], NOW_MS, {"shop/pay": now})
    assert "0 probes in flight, 0 have succeeded" in str(waiting)


def test_what_is_so_of_many_is_said_once_and_the_worst_first() -> None:
    raw = view(generation=3).raw
    many = [View({**raw, "metadata": {**raw["metadata"], "name": f"b{number}"}}) for number in range(7)]
    found = stuck.examined([*many, STUCK["past retry-at"][0]], NOW_MS, None)
    assert [(each.verdict, len(each.objects)) for each in found] == [(PROBLEM, 1), (WARNING, 7)]
    assert "and 2 more" in findings.page(found).plain
    assert len(findings.told(found)["findings"][1]["objects"]) == 7


# -- the resource


def document(spec: Mapping[str, Any]) -> Answer[Mapping[str, Any]]:
    schema = {"properties": {"spec": spec, "status": {}}}
    return Answer({"components": {"schemas": {"x.y": {}, "dev.circuitbreaker.v1alpha1.CircuitBreaker": schema}}})


def test_the_schema_that_is_served() -> None:
    there = Answer({"versions": [{"version": "v1alpha1"}]})
    ours = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    older, newer, narrower = copy.deepcopy(ours), copy.deepcopy(ours), copy.deepcopy(ours)
    del older["properties"]["backoff"]["properties"]["jitterPercent"]
    newer["properties"][HOSTILE] = {"type": "string"}
    narrower["properties"]["halfOpenLimit"]["maximum"] = 10
    for spec, verdict, words in (
        (ours, OK, "with the schema that this program knows"),
        (older, PROBLEM, "no spec.backoff.jitterPercent"),
        (newer, WARNING, "knows more than this program: spec.[red]"),
        (narrower, PROBLEM, "maximum of spec.halfOpenLimit is 10 and not 1000"),
    ):
        finding = served.examined(there, document(spec))
        assert (finding.verdict, words in finding.text) == (verdict, True), finding
    assert served.examined(Answer(why_not="Error from server (NotFound)"), Answer()).verdict is PROBLEM
    assert served.examined(Answer(why_not="Forbidden"), Answer()).verdict is NOT_CHECKED
    assert served.examined(there, Answer(why_not="Forbidden")).verdict is NOT_CHECKED
    assert "v1 of circuitbreaker.dev" in served.examined(Answer({"versions": [{"version": "v1"}]}), Answer()).text


# -- the operator


def named(name: str, **parts: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "circuitbreaker-system", "name": name}, **parts}


def deployment(ready_replicas: int, replicas: int = 2) -> dict[str, Any]:
    return named("circuitbreaker-operator", spec={"replicas": replicas}, status={"readyReplicas": ready_replicas})


def pod(
    name: str = "op-1", *, is_ready: str = "True", restarts: int = 0, ended_ms: int = MINUTE, waiting: str = ""
) -> dict[str, Any]:
    ended = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": at(ended_ms)}
    container = {"restartCount": restarts, "lastState": {"terminated": ended} if restarts else {}}
    container |= {"state": {"waiting": {"reason": waiting}} if waiting else {}}
    return named(name, status={"conditions": [{"type": "Ready", "status": is_ready}], "containerStatuses": [container]})


def evicted(name: str) -> dict[str, Any]:
    return named(name, status={"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource"})


def ending(name: str) -> dict[str, Any]:
    gone = pod(name, is_ready="False")
    return {**gone, "metadata": {**gone["metadata"], "deletionTimestamp": at(MINUTE)}}


def lease(holder: str, ago_ms: int, name: str = "circuitbreaker-operator") -> dict[str, Any]:
    spec = {"holderIdentity": holder, "renewTime": at(ago_ms), "leaseDurationSeconds": 15}
    return named(name, spec=spec)


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        ([deployment(2)], OK, "2 of 2 ready"),
        ([deployment(1)], WARNING, "1 of 2 ready"),
        ([deployment(0)], PROBLEM, "0 of 2 ready"),
        ([deployment(0, 0)], PROBLEM, "0 of 0 ready"),
        ([deployment(2), deployment(2)], WARNING, "2 installations"),
        ([], WARNING, "none with the label"),
        (None, NOT_CHECKED, "forbidden"),
    ],
)
def test_deployments(found: Any, verdict: Verdict, words: str) -> None:
    finding = installation.deployments(Answer(found, "forbidden"))
    assert (finding.verdict, words in finding.text) == (verdict, True), finding


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        ([pod(), pod("op-2")], OK, "2 ready: circuitbreaker-system/op-1"),
        ([pod(), pod("op-2", is_ready="False", waiting="CrashLoopBackOff")], PROBLEM, "is not ready: CrashLoop"),
        ([pod(), evicted("op-0")], OK, "1 ready: circuitbreaker-system/op-1"),
        ([pod(), ending("op-0")], OK, "1 ready: circuitbreaker-system/op-1"),
        ([evicted("op-0"), ending("op-1")], NOT_CHECKED, "have ended or are ending"),
        ([pod(restarts=3)], WARNING, "restarted 3 times, last 1m ago: exit status 137, OOMKilled"),
        ([pod(restarts=3, ended_ms=DAY)], OK, "1 ready"),
        ([], NOT_CHECKED, "none with the label"),
        (None, NOT_CHECKED, "forbidden"),
        ([{}, {"metadata": 3, "status": [1]}], PROBLEM, "is not ready"),
    ],
)  # fmt: skip
def test_pods(found: Any, verdict: Verdict, words: str) -> None:
    finding = installation.pods(Answer(found, "forbidden"), NOW_MS)[0]
    assert (finding.verdict, words in finding.text) == (verdict, True), finding


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        ([lease("op-1_uuid", 2_000), lease("other", DAY, "kopf")], OK, "op-1 leads, renewed 2s ago"),
        ([lease("op-1_uuid", 2_000, "mine")], OK, "mine: op-1 leads"),
        ([lease("op-1_uuid", 5 * MINUTE)], PROBLEM, "op-1 renewed it 5m ago and no more"),
        ([lease("", 1_000)], PROBLEM, "nobody leads"),
        ([lease("laptop_uuid", 1_000)], WARNING, "laptop leads"),
        ([], WARNING, "several operators would not know of each other"),
        (None, NOT_CHECKED, "forbidden"),
    ],
)
def test_leases(found: Any, verdict: Verdict, words: str) -> None:
    (finding,) = installation.leases(Answer(found, "forbidden"), Answer([pod()]), NOW_MS)
    assert (finding.verdict, words in finding.text) == (verdict, True), finding


def test_without_a_pod_no_lease_is_missed() -> None:
    assert installation.leases(Answer([]), Answer([]), NOW_MS)[0].verdict is NOT_CHECKED
    assert installation.leases(Answer([lease("laptop_uuid", 1_000)]), Answer(None), NOW_MS)[0].verdict is OK


def test_rights_name_the_commands_that_will_be_refused() -> None:
    answers = [{"status": {"allowed": allowed}} for allowed in (True, True, True, False)]
    finding = installation.rights(Answer(answers), "shop")
    assert finding.verdict is WARNING
    assert "may not patch circuitbreakers in shop: trip, hold-closed, release, reset will be refused" in finding.text
    assert installation.rights(Answer([{"status": {"allowed": True}}] * 4), "").verdict is OK
    assert "delete" not in str(installation.review(installation.RIGHTS[0], "shop"))
    for wrong in (Answer(answers[:2]), Answer(None, "forbidden")):
        assert installation.rights(wrong, "").verdict is NOT_CHECKED
    assert (
        installation.rights(Answer([{}, {"status": 3}, {"status": []}, {"status": {"allowed": "yes"}}]), "").verdict
        is WARNING
    )


# -- Redis and clocks


@pytest.mark.parametrize(
    ("found", "verdict", "words"),
    [
        (Version(library.CONTRACT_VERSION, library.VERSION, library.digest()), OK, "as this program knows it"),
        (Version(library.CONTRACT_VERSION + 1, 1, "x"), PROBLEM, "speaks contract version"),
        (Version(library.CONTRACT_VERSION, library.VERSION + 1, HOSTILE), WARNING, "in Redis, and this program knows"),
        (Version(library.CONTRACT_VERSION, library.VERSION, "0" * 16), WARNING, "another text of that edition"),
    ],
)
def test_functions(found: Version, verdict: Verdict, words: str) -> None:
    finding = installation.functions(Answer(found))
    assert (finding.verdict, words in finding.text) == (verdict, True), finding
    assert installation.functions(Answer(why_not=installation.NO_LIBRARY)).verdict is PROBLEM
    assert installation.functions(Answer(why_not="no rights")).verdict is NOT_CHECKED


def test_clocks_that_differ_by_more_than_can_be_an_error_of_looking() -> None:
    told = clock("x", told_ms=60_000, before_ms=1_000, after_ms=3_000, step_ms=1_000)
    assert told == Clock("x", 58_500, 1_500)
    ahead = {"the API server": Answer(Clock("the API server", 0, 600)), "Redis": Answer(Clock("Redis", 60_000, 5))}
    assert "the clock of Redis is 1m ahead of that of this machine" in installation.clocks(ahead)[0].text
    assert installation.clocks(ahead)[0].verdict is WARNING
    slow_look = {"the API server": Answer(Clock("the API server", 9_000, 9_000))}
    assert installation.clocks(slow_look)[0].verdict is OK
    missing = installation.clocks({"the API server": Answer(why_not="forbidden"), "Redis": ahead["Redis"]})
    assert [each.verdict for each in missing] == [WARNING, NOT_CHECKED]
    assert [each.verdict for each in installation.clocks({"Redis": Answer(why_not="away")})] == [NOT_CHECKED]


def test_orphans_are_those_that_somebody_owns() -> None:
    finding = installation.orphans(Answer({"shop/a": "env", "shop/b": "uid-9", "shop/c": ""}))
    assert (finding.verdict, finding.objects) == (WARNING, ("shop/b (owner uid-9)", "shop/c (its name only)"))
    assert "1 of clients' own" in installation.orphans(Answer({"shop/a": "env"})).text
    assert installation.orphans(Answer(why_not="NOPERM")).verdict is NOT_CHECKED


# -- all of it


def test_the_page_and_its_summary() -> None:
    found = [
        Finding("API server", OK, "fine"),
        Finding("Lease", PROBLEM, "nobody leads", "look at the log"),
        Finding("breakers", WARNING, "stuck", objects=("shop/pay (1m ago)",)),
    ]
    assert findings.page(found).plain.splitlines() == [
        "ok           API server  fine",
        "problem      Lease       nobody leads",
        "                         -> look at the log",
        "warning      breakers    stuck",
        "                         shop/pay (1m ago)",
        "1 problem, 1 warning, 1 ok, 0 not checked",
    ]
    assert findings.told(found)["summary"] == {"problem": 1, "warning": 1, "ok": 1, "notChecked": 0}


def test_hostile_answers_are_printed_harmless() -> None:
    hostile = {"metadata": {"namespace": HOSTILE, "name": HOSTILE}, "status": {"phase": HOSTILE}}
    spec = {"spec": {"holderIdentity": HOSTILE, "renewTime": at(0), "leaseDurationSeconds": 15}}
    who = {"status": {"userInfo": {"username": HOSTILE}}}
    found = [
        installation.api_server(Answer({"serverVersion": {"gitVersion": HOSTILE}}), Answer(who)),
        installation.deployments(Answer([hostile])),
        *installation.pods(Answer([hostile]), NOW_MS),
        *installation.leases(Answer([{**hostile, **spec}]), Answer([hostile]), NOW_MS),
        installation.orphans(Answer({"shop/a": HOSTILE})),
        *stuck.examined([view(**ready("False", HOSTILE, HOSTILE))], NOW_MS, {"shop/pay": HOSTILE}),
    ]
    assert not set(findings.page(found).plain) & set("\x1b\u202e\r")
