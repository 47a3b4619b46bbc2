"""The window of a forged status stood in the Event WindowReset as it was, with its markup and line feeds."""

from typing import Any

import pytest

from circuitbreaker_operator.events import empties_window
from circuitbreaker_operator.wording import spelled


def test_words_of_a_status_are_one_line() -> None:
    assert spelled({"window": {"duration": "1m\n<b>\x1b"}}) == "window.duration 1m <b> "


@pytest.mark.parametrize(
    ("was", "told"),
    [
        ({"duration": "1m"}, True),
        ({"calls": 5}, True),
        ({"duration": "<script>alert(1)</script>"}, False),
        ({"duration": "1m", "calls": 5}, False),
        ({}, False),
    ],
)
def test_only_what_we_would_write_is_told(was: dict[str, Any], told: bool) -> None:
    assert empties_window({"window": was}, {"window": {"duration": "2m"}}) is told
