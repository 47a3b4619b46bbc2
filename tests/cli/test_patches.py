"""Decisions about changes, without a cluster: clocks that differ, and what the next opening would last."""

from circuitbreaker_cli.breakers import patches
from circuitbreaker_cli.breakers.explaining import again_for
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_contract.state import State

MINUTE = 60_000


def test_an_end_is_told_by_the_clock_of_the_server() -> None:
    """A machine that is an hour behind would write an `until` that is past already: no effect at all."""
    hour = 60 * MINUTE
    assert patches.until_after(MINUTE, now_ms=hour, server_ms=2 * hour) == 2 * hour + MINUTE
    assert patches.until_after(MINUTE, now_ms=hour, server_ms=hour - 900) == hour + MINUTE
    assert patches.until_after(MINUTE, now_ms=hour, server_ms=None) == hour + MINUTE
    assert patches.skew(hour, 2 * hour).startswith("this machine's clock is 1h behind")
    assert patches.skew(hour, hour - 900) == ""


def test_in_force_is_what_the_status_tells_of_this_very_edit() -> None:
    """Not an older generation, not another state, not a status that says that Redis has it not yet."""
    done = {
        "state": "Open",
        "forced": True,
        "observedGeneration": 2,
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    change = patches.hold(View({}), State.OPEN, "maintenance", until_ms=None, now_ms=0)
    for status, expected in (
        (done, True),
        (done | {"observedGeneration": 1}, False),
        (done | {"state": "Closed"}, False),
        (done | {"forced": False}, False),
        (done | {"conditions": [{"type": "Ready", "status": "Unknown"}]}, False),
    ):
        assert patches.in_force(change, View({"metadata": {"generation": 2}, "status": status})) is expected


def test_the_next_opening_grows_with_backoff() -> None:
    backoff = {"factor": 2, "max": "5m", "jitterPercent": 10}
    for attempt, length in ((1, "1m"), (2, "2m"), (9, "5m")):
        status = {"attempt": attempt, "policy": {"recoveryTimeout": "30s", "backoff": backoff}}
        assert again_for(View({"status": status})) == f"{length} (backoff, less up to 10 %)"
    assert again_for(View({"status": {"policy": {"recoveryTimeout": "500ms"}}})) == "500ms (recoveryTimeout)"
