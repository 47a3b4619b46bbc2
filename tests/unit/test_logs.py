"""Log lines: one line is one line, and an outage is one story."""

import io
import json
import logging

import pytest

from circuitbreaker_operator.logs import JsonFormatter, Outage, TextFormatter


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "circuitbreaker_operator.store", "msg": message, "levelname": "INFO"} | extra)
    made.created = 1_800_000_000.5
    return made


LINES = {
    "plain": (record("hello"), "2027-01-15T08:00:00.500Z INFO    store hello"),
    "with fields": (
        record("hello", breaker="shop/pay", text="two words", number=3),
        '2027-01-15T08:00:00.500Z INFO    store hello breaker=shop/pay text="two words" number=3',
    ),
    "a message with a line of its own": (
        record("bad\n2027-01-15T08:00:00.500Z INFO    store fine"),
        "2027-01-15T08:00:00.500Z INFO    store bad\\n2027-01-15T08:00:00.500Z INFO    store fine",
    ),
    "a value that clears the screen": (
        record("bad", text="\x1b[2J"),
        '2027-01-15T08:00:00.500Z INFO    store bad text="\\u001b[2J"',
    ),
}


@pytest.mark.parametrize(("given", "line"), LINES.values(), ids=LINES)
def test_text(given: logging.LogRecord, line: str) -> None:
    """Control characters are escaped wherever they come from."""
    assert TextFormatter().format(given) == line


def test_json() -> None:
    """One object a line; fields beside the message."""
    line = JsonFormatter().format(record("bad\nline", breaker="shop/pay", number=3))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.500Z",
        "level": "INFO",
        "logger": "circuitbreaker_operator.store",
        "message": "bad\nline",
        "breaker": "shop/pay",
        "number": 3,
    }


def test_a_traceback_cannot_look_like_a_line() -> None:
    """What an exception says may come from outside."""
    try:
        int("x\n2027-01-15T08:00:00.500Z INFO    store fine")
    except ValueError as error:
        given = record("failed")
        given.exc_info = (type(error), ValueError(error.args[0].encode().decode("unicode_escape")), error.__traceback__)
    lines = TextFormatter().format(given).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("  | ") for line in lines[1:])


def test_an_outage_is_said_once_then_each_minute_then_its_end() -> None:
    """A thousand failures are not a thousand lines."""
    stream, now = io.StringIO(), 0.0
    logger = logging.getLogger("circuitbreaker_operator.test_outage")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    outage = Outage(logger, "Redis", remedy="start it", clock=lambda: now)
    for second in range(130):
        now = float(second)
        outage.failed("refused", meanwhile="waiting for it")
    assert outage.seconds == 129.0
    outage.recovered()
    outage.recovered()
    assert outage.seconds == 0.0
    outage.failed("refused")
    for second in range(131, 200):
        now = float(second)
        outage.failed("wrong password", remedy="check the login", meanwhile="clients go on")
        outage.failed("refused")
    assert stream.getvalue().splitlines() == [
        "WARNING Redis: refused; start it; waiting for it",
        "WARNING Redis: still failing: refused",
        "WARNING Redis: still failing: refused",
        "INFO Redis: works again",
        "WARNING Redis: refused; start it",
        "WARNING Redis: wrong password; check the login; clients go on",
        "WARNING Redis: still failing: wrong password",
    ]
