"""Decisions about changes, without a cluster: clocks that differ, and what the next opening would last."""

from circuitbreaker_cli import changing
from circuitbreaker_cli.explaining import again_for
from circuitbreaker_cli.view import View

MINUTE = 60_000


def test_an_end_is_told_by_the_clock_of_the_server() -> None:
    """A machine that is an hour behind would write an `until` that is past already: no effect at all."""
    hour = 60 * MINUTE
    assert changing.until_after(MINUTE, now_ms=hour, server_ms=2 * hour) == 2 * hour + MINUTE
    assert changing.until_after(MINUTE, now_ms=hour, server_ms=hour - 900) == hour + MINUTE
    assert changing.until_after(MINUTE, now_ms=hour, server_ms=None) == hour + MINUTE
    assert changing.skew(hour, 2 * hour).startswith("this machine's clock is 1h behind")
    assert changing.skew(hour, hour - 900) == ""


def test_the_next_opening_grows_with_backoff() -> None:
    backoff = {"factor": 2, "max": "5m", "jitterPercent": 10}
    for attempt, length in ((1, "1m"), (2, "2m"), (9, "5m")):
        status = {"attempt": attempt, "policy": {"recoveryTimeout": "30s", "backoff": backoff}}
        assert again_for(View({"status": status})) == f"{length} (backoff, less up to 10 %)"
    assert again_for(View({"status": {"policy": {"recoveryTimeout": "500ms"}}})) == "500ms (recoveryTimeout)"
