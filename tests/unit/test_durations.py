"""Durations: what the Gateway API form takes and refuses, and that writing and reading are inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitbreaker_contract.durations import LONGEST_MS, format_duration, parse_duration_ms, parse_setting_ms

DURATIONS = {
    "0s": 0,
    "1ms": 1,
    "500ms": 500,
    "1m1ms": 60_001,
    "30s": 30_000,
    "1m30s": 90_000,
    "1h": 3_600_000,
    "1h2m3s4ms": 3_723_004,
    "007s": 7_000,
    "1s1s": 2_000,  # parts add up, in any order, as in Go
    "30s1m": 90_000,
    "99999h": 359_996_400_000,
    "99999h99999h99999h99999h": 1_439_985_600_000,
}
NOT_DURATIONS = (
    "", "30", "s", "1d", "1 s", " 1s", "1s ", "1s\n", "-1s", "+1s", "1.5s", "1S", "1µs", "1us", "100000s",
    "1h1h1h1h1h", "1m30", "ms1", "٣s", "1e3s", "infinite", "P1D",
)  # fmt: skip
CANONICAL = {
    0: "0s",
    1: "1ms",
    500: "500ms",
    1_000: "1s",
    1_500: "1s500ms",
    60_000: "1m",
    90_000: "1m30s",
    3_600_000: "1h",
    3_605_000: "1h5s",
    86_400_000: "24h",
    LONGEST_MS: "99999h59m59s999ms",
}


@pytest.mark.parametrize(("text", "ms"), DURATIONS.items())
def test_reads_a_duration(text: str, ms: int) -> None:
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", NOT_DURATIONS)
def test_refuses_other_text_and_quotes_it(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_duration_ms(text)
    assert str(caught.value) == f"{text!r} is not a duration like 30s, 1m30s or 500ms"


@pytest.mark.parametrize(("text", "ms"), [*DURATIONS.items(), ("30", 30_000), ("0", 0), ("999999999", 999_999_999_000)])
def test_a_setting_may_be_a_bare_number_of_seconds(text: str, ms: int) -> None:
    assert parse_setting_ms(text) == ms


@pytest.mark.parametrize("text", sorted({*NOT_DURATIONS, "1000000000", "1.5", "-1", "٣"} - {"30"}))
def test_a_setting_that_is_neither_says_so(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_setting_ms(text)
    expected = f"{text!r} is neither a duration like 30s, 1m30s or 500ms nor a whole number of seconds"
    assert str(caught.value) == expected


@pytest.mark.parametrize(("ms", "text"), CANONICAL.items())
def test_writes_the_canonical_text(ms: int, text: str) -> None:
    assert format_duration(ms) == text


@pytest.mark.parametrize("ms", [-1, LONGEST_MS + 1])
def test_writes_nothing_that_could_not_be_read_back(ms: int) -> None:
    with pytest.raises(ValueError, match=f"^{ms} ms is outside of 0 to {LONGEST_MS} ms$"):
        format_duration(ms)


@given(st.integers(min_value=0, max_value=LONGEST_MS))
def test_what_is_written_reads_back_to_the_same_number(ms: int) -> None:
    assert parse_duration_ms(format_duration(ms)) == ms


@given(st.from_regex(r"\A([0-9]{1,5}(h|m|s|ms)){1,4}\Z"))
def test_every_text_of_the_form_is_read_and_has_one_canonical_text(text: str) -> None:
    ms = parse_duration_ms(text)
    if ms <= LONGEST_MS:
        assert parse_duration_ms(format_duration(ms)) == ms
