"""Decisions about changes, without a cluster: clocks that differ, and what the next opening would last."""

from circuitbreaker_cli.breakers import patches
from circuitbreaker_cli.breakers.explaining import again_for
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_contract.state import State
from circuitbreaker_operator.resource import RESET_ANNOTATION as RESET

MINUTE = 60_000


def test_an_end_is_told_by_the_clock_of_the_server() -> None:
    """A machine that is an hour behind would write an `until` that is past already: no effect at all."""
    hour = 60 * MINUTE
    assert [patches.ahead_ms(hour, server_ms) for server_ms in (2 * hour, hour - 900, None)] == [hour, 0, 0]
    assert patches.skew(hour).startswith("this machine's clock is 1h behind")
    assert patches.skew(-hour).startswith("this machine's clock is 1h ahead of")
    assert patches.skew(0) == ""


def test_an_end_is_never_before_its_time() -> None:
    """A Lease's or an override's times are whole seconds: half a second from now would be over already."""
    assert [patches.until_after(500, now_ms) for now_ms in (1_000, 1_400, 1_500, 1_501)] == [2_000, 2_000, 2_000, 3_000]


def test_what_moved_while_the_question_stood() -> None:
    """The override is what was agreed to; a status may be another, and another generation too."""
    held = {"state": "Open", "reason": "load test"}
    seen = [
        View({"metadata": {"uid": uid}, "spec": {"override": override}, "status": {"state": state}})
        for uid, override, state in (
            ("a", held, "Open"),
            ("a", held, "Closed"),
            ("a", held | {"reason": "incident"}, "Open"),
            ("a", None, "Open"),
            ("b", held, "Open"),
        )
    ]
    assert [patches.moved(seen[0], each) for each in seen] == [
        "",
        "",
        "its override is Open (incident) meanwhile",
        "its override was taken away meanwhile",
        "it was made anew meanwhile",
    ]


def test_in_force_is_what_the_status_tells_of_this_very_edit() -> None:
    """Not an older generation, not another state, not a status that says that Redis has it not yet."""
    done = {
        "state": "Open",
        "forced": True,
        "observedGeneration": 2,
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    change = patches.hold(View({}), State.OPEN, "maintenance", until_ms=None, now_ms=0)
    metadata, spec = {"generation": 2}, {"override": {"state": "Open", "reason": "maintenance"}}
    written = View({"metadata": metadata, "spec": spec})
    for status, expected in (
        (done, True),
        (done | {"observedGeneration": 1}, False),
        (done | {"state": "Closed"}, False),
        (done | {"forced": False}, False),
        (done | {"conditions": [{"type": "Ready", "status": "Unknown"}]}, False),
    ):
        seen = View({"metadata": metadata, "spec": spec, "status": status})
        assert patches.in_force(change, written, seen) is expected
    of_another = View({"metadata": metadata, "spec": {"override": {"state": "Open", "reason": "x"}}, "status": done})
    assert not patches.in_force(change, written, of_another)


def test_who_was_overtaken() -> None:
    """An override by any other or by none, a reset by another reset, each of them by another breaker of the name."""

    def a_view(uid: str, override: object, token: str) -> View:
        return View({"metadata": {"uid": uid, "annotations": {RESET: token}}, "spec": {"override": override}})

    held = {"state": "Open", "reason": "x"}
    trip, reset = patches.hold(View({}), State.OPEN, "x", until_ms=None, now_ms=0), patches.reset(View({}), "one")
    written = a_view("a", held, "one")
    for uid, override, token, of_the_trip, of_the_reset in (
        ("a", held, "one", "", ""),
        ("a", held | {"until": "2030-01-31T18:10:00Z"}, "one", "its override is Open (x) meanwhile", ""),
        ("a", None, "one", "its override was taken away meanwhile", ""),
        ("a", held, "two", "", "another reset took its place"),
        ("b", held, "one", "it was made anew meanwhile", "it was made anew meanwhile"),
    ):
        seen = a_view(uid, override, token)
        assert patches.overtaken(trip, written, seen) == of_the_trip
        assert patches.overtaken(reset, written, seen) == of_the_reset


def test_the_next_opening_grows_with_backoff() -> None:
    backoff = {"factor": 2, "max": "5m", "jitterPercent": 10}
    for attempt, length in ((1, "1m"), (2, "2m"), (9, "5m")):
        status = {"attempt": attempt, "policy": {"recoveryTimeout": "30s", "backoff": backoff}}
        assert again_for(View({"status": status})) == f"{length} (backoff, less up to 10 %)"
    assert again_for(View({"status": {"policy": {"recoveryTimeout": "500ms"}}})) == "500ms (recoveryTimeout)"
