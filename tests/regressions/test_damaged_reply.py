"""Numbers and names of a damaged hash went on as they were.

Times past the year 9999 and rates over 100 % failed in the status for ever, a policy nested a thousand deep ended the
process, a 64 KiB owner stood in a message, and one bad entry of the history took the breaker out of service.
"""

import json
from typing import Any

import pytest

from circuitbreaker_contract import protocol
from circuitbreaker_contract.protocol import ReplyError
from circuitbreaker_contract.state import Snapshot
from tests.unit.breakers import POLICY

COLD = ("attempt", "consecutiveFailures", "probeSuccesses", "probesLost", "probesLive", "reporters", "retryAfterMs")
TOTALS = ("successes", "failures", "slow", "ignored", "notPermitted", "late")
PROBES = tuple(f"probes{each}" for each in ("Granted", "Succeeded", "Failed", "Ignored", "Expired"))
ENTRY = {
    "previous": "",
    "state": "Closed",
    "at": 1_800_000_000_000,
    "reason": "Created",
    "incarnation": 1_800_000_000_000,
    "generation": 1,
    "attempt": 0,
    "consecutiveFailures": 0,
    "openUntil": 0,
}
GOOD: dict[str, Any] = {
    **dict.fromkeys((*COLD, *TOTALS, *PROBES, "msClosed", "msOpen", "msHalfOpen"), 0),
    **dict.fromkeys(("windowCalls", "windowFailures", "windowSlow", "projectFailed", "due", "openUntil"), 0),
    "policy": POLICY.to_json(),
    "owner": "o",
    "uid": "u",
    "resourceGeneration": 1,
    "project": 1,
    "forced": "",
    "incarnation": 1_800_000_000_000,
    "generation": 1,
    "revision": 1,
    "state": "Closed",
    "reason": "Created",
    "since": 1_800_000_000_000,
    "now": 1_800_000_000_000,
    "lastReset": "",
    "transitionTotals": [],
    "history": [],
}


def read(**changed: Any) -> Snapshot:
    pairs = [part for pair in (GOOD | changed).items() for part in pair]
    return protocol.observe("cb:{shop/pay}").read(pairs)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("incarnation", -(2**63)),
        ("incarnation", 0),
        ("since", 2**60),
        ("openUntil", -1),
        ("attempt", -(2**63)),
        ("successes", 2**62),
        ("msOpen", -5),
        ("windowFailures", 1),  # of no calls
        ("resourceGeneration", -1),
        ("owner", "o" * 65_536),
        ("uid", "a\nb"),
        ("lastReset", "<script>"),
        ("policy", POLICY.to_json()[:-1] + ',"new":' + "[" * 100_000 + "]" * 100_000 + "}"),
        ("policy", json.dumps({"failureThreshold": float("nan")})),
    ],
)
def test_a_damaged_value_is_an_error_of_the_reply(name: str, value: Any) -> None:
    assert read().owner == "o"
    with pytest.raises(ReplyError):
        read(**{name: value})


@pytest.mark.parametrize(
    "changed",
    [{"at": 2**60}, {"incarnation": "-5"}, {"state": "Ajar"}, {"generation": "9" * 5_000}, {"attempt": "nan"}],
)
def test_a_damaged_entry_of_the_history_is_left_out(changed: dict[str, Any]) -> None:
    entries = [[part for pair in each.items() for part in pair] for each in (ENTRY | changed, ENTRY, {"x": "y"})]
    assert [each.generation for each in read(history=entries).history] == [1]
