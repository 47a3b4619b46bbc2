"""An answer of Redis holds what somebody wrote into a hash: 64 KiB of it stood in one line of the log."""

import json
import logging

import pytest

from circuitbreaker_operator.logs import JsonFormatter, TextFormatter


@pytest.mark.parametrize("form", [TextFormatter(), JsonFormatter()])
def test_a_line_has_an_end(form: logging.Formatter) -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", ("m" * 65_536,), None)
    record.breaker = "v" * 65_536
    line = form.format(record)
    assert 4_000 < len(line) < 4_200
    assert not line.startswith("{") or json.loads(line)
