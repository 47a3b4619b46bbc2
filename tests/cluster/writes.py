"""What the API server was asked to write, by its own count."""

import re
from typing import NamedTuple

_COUNTED = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)


class Writes(NamedTuple):
    """Requests since the server began, refused ones included."""

    statuses: int  # of breakers
    events: int
    others: int  # whatever else was done to breakers: created, edited, deleted, given a finalizer

    def since(self, before: "Writes") -> "Writes":
        return Writes(*(now - then for now, then in zip(self, before, strict=True)))


def counted(metrics: str) -> Writes:
    """Out of the text of the API server's `/metrics`."""
    statuses = events = others = 0
    for labels, number in _COUNTED.findall(metrics):
        if any(f'verb="{verb}"' in labels for verb in ("GET", "LIST", "WATCH")):
            continue
        if 'resource="events"' in labels:
            events += int(float(number))
        elif 'resource="circuitbreakers"' in labels:
            if 'subresource="status"' in labels:
                statuses += int(float(number))
            else:
                others += int(float(number))
    return Writes(statuses, events, others)
