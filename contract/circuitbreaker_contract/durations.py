"""Durations as people write them, in the Gateway API form (`1m30s`), and as whole milliseconds.

The form is GEP-2257 of the Gateway API: one to four numbers of at most five digits, each with a unit of `h`, `m`, `s`
or `ms`. It is a subset of what Go's time.ParseDuration and CEL's `duration()` read, so the API server, the operator and
clients agree on every text. Parts add up and may come in any order, as they may in Go.
"""

import re

GATEWAY_FORM = "([0-9]{1,5}(h|m|s|ms)){1,4}"  # as the CRD spells it; a test holds both equal
LONGEST_MS = 99_999 * 3_600_000 + 59 * 60_000 + 59 * 1_000 + 999  # 99999h59m59s999ms: the longest canonical text

_UNITS_MS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}  # largest first, the order of the canonical text
_WHOLE = re.compile(GATEWAY_FORM)
_PART = re.compile("([0-9]+)(h|ms|m|s)")
_SECONDS = re.compile("[0-9]{1,9}")


def parse_duration_ms(text: str) -> int:
    """Milliseconds, from 0, of a duration in the Gateway API form; raises ValueError for any other text."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration like 30s, 1m30s or 500ms")
    return sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text))


def parse_setting_ms(text: str) -> int:
    """Milliseconds, from 0, of a setting: a duration, or a bare whole number, which is seconds.

    Raises ValueError for any other text. A bare number has at most nine digits.
    """
    if _SECONDS.fullmatch(text):
        return int(text) * 1_000
    try:
        return parse_duration_ms(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither a duration like 30s, 1m30s or 500ms nor a whole number of seconds"
        ) from None


def format_duration(ms: int) -> str:
    """The canonical text: largest unit first, no part that is zero, `0s` for nothing.

    `parse_duration_ms` reads it back to the same number. Raises ValueError below 0 and above LONGEST_MS.
    """
    if not 0 <= ms <= LONGEST_MS:
        raise ValueError(f"{ms} ms is outside of 0 to {LONGEST_MS} ms")
    parts: list[str] = []
    rest = ms
    for unit, length_ms in _UNITS_MS.items():
        number, rest = divmod(rest, length_ms)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"
