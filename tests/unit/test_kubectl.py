"""What the plugin shows of kubectl's own words."""

import pytest

from circuitbreaker_cli.remote.kubectl import complaint

LOGGED = 'E1128 21:55:25.764336   28255 memcache.go:265] "Unhandled Error" err="connection refused"'
REFUSED = "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
COMPLAINTS = {
    "a try after the other": (f"{LOGGED}\n{LOGGED}\n{REFUSED}\n", REFUSED),
    "nothing but tries": (f"{LOGGED}\n", LOGGED),
    "an error that begins as they do": ("E1128 is no such name\n", "E1128 is no such name"),
    "nothing": (" \n", "kubectl failed and did not say why"),
}


@pytest.mark.parametrize(("said", "shown"), COMPLAINTS.values(), ids=COMPLAINTS)
def test_its_log_is_left_out(said: str, shown: str) -> None:
    assert complaint(said) == shown
