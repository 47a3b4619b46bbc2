"""A trace: recorded calls as CSV. Each line that cannot be read is named, with what would be right. Pure.

The header names the columns, in any order: `at` (RFC 3339, or seconds, from 10^9 on those of Unix) and `outcome` have
to be there; `duration` (like 250ms, or seconds), `count` and `client` may be. Lines need not be in order of time.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from itertools import pairwise
from typing import Final

from circuitbreaker_cli.errors import CommandError, Exit
from circuitbreaker_cli.simulation.traffic import CLIENT, START_MS, Call
from circuitbreaker_cli.words import safe
from circuitbreaker_contract.durations import parse_duration_ms
from circuitbreaker_contract.policy import LATEST_MS
from circuitbreaker_contract.protocol import MAX_RUN
from circuitbreaker_contract.state import Outcome
from circuitbreaker_operator import times

_NEEDED: Final = ("at", "outcome")
_COLUMNS: Final = (*_NEEDED, "duration", "count", "client")
OUTCOMES: Final[Mapping[str, Outcome]] = {
    "success": Outcome.SUCCESS,
    "failure": Outcome.FAILURE,
    "slow": Outcome.SLOW_SUCCESS,
    "ignored": Outcome.IGNORED,
}
_SECONDS: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")
_CLIENT: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_UNIX_FROM: Final = 1_000_000_000  # seconds: 2001; a trace that is longer than 31 years is a mistake
_LONGEST_CALL_MS: Final = 86_400_000
_MOST_COMPLAINTS: Final = 20


@dataclass(frozen=True, slots=True)
class Trace:
    """Calls in order of time. `dated`: their times are instants, and no seconds since a beginning."""

    calls: tuple[Call, ...]
    dated: bool
    remarks: tuple[str, ...] = ()


class _CellError(ValueError):
    """What is wrong with a column of a line, and what would be right."""

    def __init__(self, column: str, text: str) -> None:
        super().__init__(f"column {column}: {text}")


def read_trace(lines: Iterable[str], name: str) -> Trace:
    """The trace of a CSV text; raises CommandError with every line that is wrong, the first twenty in full."""
    complaints: list[str] = []
    remarks: list[str] = []
    calls: list[Call] = []
    dated: bool | None = None
    for number, row, columns in _rows(lines, name, remarks):
        try:
            if len(row) != len(columns):
                raise ValueError(f"has {len(row)} fields, and the header {len(columns)}")  # noqa: TRY301 # as any other
            cells = dict(zip(columns, row, strict=True))
            at_ms, is_instant = _at(cells["at"])
            if dated is not None and is_instant is not dated:
                raise _CellError(
                    "at", f"{'a time' if is_instant else 'seconds'}, and the first line has the other; use one"
                )
            dated = is_instant
            calls.append(_call(at_ms, cells))
        except ValueError as error:
            complaints.append(f"line {number}: {error}")
    if complaints:
        more = len(complaints) - _MOST_COMPLAINTS
        rest = [f"... and {more} lines more"] if more > 0 else []
        raise _unreadable(name, *complaints[:_MOST_COMPLAINTS], *rest)
    if not calls:
        raise _unreadable(name, "no calls are in it; each line after the header is one, like 12.5,failure")
    if any(later.at_ms < earlier.at_ms for earlier, later in pairwise(calls)):
        remarks.append("its lines were not in order of time; they have been sorted")
        calls.sort(key=lambda each: each.at_ms)
    return Trace(tuple(calls), bool(dated), tuple(remarks))


def _rows(lines: Iterable[str], name: str, remarks: list[str]) -> Iterator[tuple[int, list[str], list[str]]]:
    """Each line that is not empty: its number, its fields, and the columns that the header names."""
    columns: list[str] = []
    reader = csv.reader(lines, strict=True)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not columns:
                columns = _header(cells, name, reader.line_num, remarks)
            else:
                yield reader.line_num, cells, columns
    except csv.Error as error:
        raise _unreadable(name, f"line {reader.line_num}: is no CSV: {safe(error)}") from None


def _header(cells: list[str], name: str, number: int, remarks: list[str]) -> list[str]:
    columns = [cell.removeprefix("\ufeff").lower() for cell in cells]
    wrong = [f"has no column {each}; it is like at,outcome,duration" for each in _NEEDED if each not in columns]
    wrong += [f"names the column {each} more than once" for each in _COLUMNS if columns.count(each) > 1]
    if wrong:
        raise _unreadable(name, *(f"line {number}: the header {each}" for each in wrong))
    for column in columns:
        if column not in _COLUMNS:
            near = get_close_matches(column, _COLUMNS, n=1, cutoff=0.75)
            remarks.append(f"column {safe(column, 64)!r} is not read" + (f"; is it {near[0]}?" if near else ""))
    return columns


def _call(at_ms: int, cells: Mapping[str, str]) -> Call:
    outcome = OUTCOMES.get(cells["outcome"].lower())
    if outcome is None:
        raise _CellError("outcome", f"{safe(cells['outcome'], 64)!r} must be {', '.join(OUTCOMES)}")
    count, client = cells.get("count", ""), cells.get("client", "")
    if count and not (count.isascii() and count.isdecimal() and len(count) <= 7 and 1 <= int(count) <= MAX_RUN):
        raise _CellError("count", f"{safe(count, 64)!r} must be a whole number from 1 to {MAX_RUN}")
    if client and not _CLIENT.fullmatch(client):
        raise _CellError("client", f"{safe(client, 64)!r} must be 1 to 64 of A-Z, a-z, 0-9 and '_.:-'")
    return Call(at_ms, outcome, _duration_ms(cells.get("duration", "")), int(count or 1), client or CLIENT)


def _at(text: str) -> tuple[int, bool]:
    """Milliseconds since the Unix epoch, and whether that is what was said: a time, not seconds of the trace."""
    if _SECONDS.fullmatch(text):
        ms, is_instant = int(Decimal(text) * 1_000), Decimal(text) >= _UNIX_FROM
        if is_instant and ms <= LATEST_MS:
            return ms, True
        if not is_instant:
            return START_MS + ms, False
    else:
        try:
            ms = times.to_ms(text)
        except ValueError:
            pass
        else:
            return max(1, ms), True
    raise _CellError("at", f"{safe(text, 64)!r} must be a time like 2030-01-31T18:00:00Z, or seconds like 12.5")


def _duration_ms(text: str) -> int | None:
    if not text:
        return None
    try:
        # Upwards: what takes a little longer than slowCallDuration is slow.
        ms = math.ceil(Decimal(text) * 1_000) if _SECONDS.fullmatch(text) else parse_duration_ms(text)
    except ValueError:
        ms = -1
    if not 0 <= ms <= _LONGEST_CALL_MS:
        raise _CellError(
            "duration", f"{safe(text, 64)!r} must be a duration like 250ms, or seconds like 0.25; at most 24h"
        )
    return ms


def _unreadable(name: str, *complaints: str) -> CommandError:
    return CommandError("\n".join((f"{name} cannot be read as a trace", *complaints)), Exit.USAGE)
