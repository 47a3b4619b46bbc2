"""The window of a forged status stood in the Event WindowReset as it was, with its markup and line feeds."""

from circuitbreaker_operator.wording import spelled


def test_words_of_a_status_are_one_line() -> None:
    assert spelled({"window": {"duration": "1m\n<b>\x1b"}}) == "window.duration 1m <b> "
