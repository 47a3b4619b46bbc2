"""Log lines for people or for machines, and how to speak of an outage once instead of a thousand times.

Whatever a line carries besides its message is given as `extra={"breaker": key, ...}`. In text a line is one line, come
what may: control characters in a message or a value are escaped, so that no name of a resource and no answer of a
server can write lines of its own.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
# Kopf's objects log each handled event, and its lines about fields nobody asked for carry whole objects.
_KOPF_NOISE = frozenset({"k8s_ref", "k8s_skip", "settings"})
_LONGEST: Final = (
    2_000  # characters of a message, or of a value: an answer of a server may be as long as somebody likes
)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/@%+-{}<>*,;()[]")


def set_up(form: Literal["text", "json"], level: str, stream: TextIO | None = None) -> logging.Handler:
    """Makes the root logger write in that form. Returns the handler, for whoever wants to take it away again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(TextFormatter() if form == "text" else JsonFormatter())
    handler.addFilter(_without_known_noise)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.getLogger("kopf").setLevel(max(logging.WARNING, root.level) if root.level > logging.DEBUG else logging.INFO)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    # It logs each attempt of each request, and each of its layers logs a whole traceback when one of them gives up. An
    # outage of the API server is said once, by cluster.py, and why Kopf ended by edge.py.
    for layer in ("kopf._cogs", "kopf._core"):
        logging.getLogger(layer).setLevel(logging.CRITICAL if root.level > logging.DEBUG else logging.DEBUG)
    for chatty in ("asyncio", "aiohttp.access", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("kubernetes").setLevel(logging.ERROR)  # it warns of a missing kubeconfig; cluster.py says more
    return handler


def _without_known_noise(record: logging.LogRecord) -> bool:
    # Kopf runs in a thread on purpose; signals are ours.
    return not (record.name.startswith("kopf") and "OS signals are ignored" in record.getMessage())


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    for name, value in vars(record).items():
        if name not in _STANDARD and name not in _KOPF_NOISE and not name.startswith("_"):
            yield name, value


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def escaped(text: str) -> str:
    """The text with everything that is not printable written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _value(value: Any) -> str:
    text = _cut(str(value))
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)


class TextFormatter(logging.Formatter):
    """`time level logger message key=value`; the lines of a traceback follow, each behind a bar."""

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("circuitbreaker_operator.")
        parts = [_time(record), f"{record.levelname:<7}", escaped(name), escaped(_cut(record.getMessage()))]
        parts += [f"{name}={_value(value)}" for name, value in _fields(record)]
        line = " ".join(parts)
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join((line, *(f"  | {escaped(each)}" for each in trace)))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: `time`, `level`, `logger`, `message`, then the fields and `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _cut(record.getMessage()),
        }
        entry |= {
            name: value if isinstance(value, bool | int | float) else _cut(str(value))
            for name, value in _fields(record)
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class Outage:
    """Says that something is missing when it begins, once a minute while it lasts, and when it is over.

    `what` begins the sentences ("Redis"), `remedy` ends the first one. Where the cause becomes one with another remedy,
    as when it is there again and refuses the login, that is said at once, and once in an outage.
    """

    def __init__(
        self,
        logger: logging.Logger,
        what: str,
        *,
        remedy: str = "",
        every_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._what = what
        self._remedy = remedy
        self._every_seconds = every_seconds
        self._clock = clock
        self._began: float | None = None
        self._said = 0.0
        self._failures = 0
        self._advised: set[str] = set()

    @property
    def seconds(self) -> float:
        """How long it has lasted; 0.0 while there is none."""
        return 0.0 if self._began is None else self._clock() - self._began

    def failed(self, cause: object, *, remedy: str = "", meanwhile: str = "") -> None:
        """Once more. `meanwhile` ends the sentence: what goes on without."""
        now, advice = self._clock(), remedy or self._remedy
        self._failures += 1
        if self._began is None:
            self._began = now
        if advice not in self._advised:
            self._advised.add(advice)
            self._said = now
            self._logger.warning("%s: %s", self._what, "; ".join(filter(None, (str(cause), advice, meanwhile))))
        elif now - self._said >= self._every_seconds:
            self._said = now
            extra = {"seconds": round(now - self._began), "failures": self._failures}
            self._logger.warning("%s: still failing: %s", self._what, cause, extra=extra)

    def recovered(self) -> None:
        if self._began is not None:
            extra = {"seconds": round(self._clock() - self._began, 1), "failures": self._failures}
            self._logger.info("%s: works again", self._what, extra=extra)
        self._began, self._failures = None, 0
        self._advised.clear()
