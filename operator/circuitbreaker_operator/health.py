"""What `/readyz` and `/health` say, as plain values."""

import os
import resource
import sys
import threading
from pathlib import Path
from typing import Any

from circuitbreaker_contract.state import State
from circuitbreaker_operator.metrics import Book


def report(book: Book, *, components: dict[str, dict[str, Any]], uptime_seconds: float) -> dict[str, Any]:
    """`/health`: an open circuit, or a part that is missing, makes it `degraded`."""
    seen = book.all()
    states = [snapshot.state for _, snapshot in seen]
    open_circuits = sorted(str(key) for key, snapshot in seen if snapshot.state is State.OPEN)
    totals = [snapshot.totals for _, snapshot in seen]
    windows = [snapshot.window for _, snapshot in seen]
    down = [name for name, component in components.items() if component["status"] != "up"]
    return {
        "status": "degraded" if open_circuits or down else "healthy",
        "metrics": {
            "circuits": {
                "total": len(seen),
                "closed": states.count(State.CLOSED),
                "open": states.count(State.OPEN),
                "half_open": states.count(State.HALF_OPEN),
            },
            "error_rate_percent": {
                # Of the calls in the windows of all breakers, and of all calls since each was made; null: no calls.
                "recent": _percent(sum(each.failures for each in windows), sum(each.calls for each in windows)),
                "overall": _percent(
                    sum(each.failures for each in totals), sum(each.failures + each.successes for each in totals)
                ),
            },
            "calls_not_permitted": sum(each.not_permitted for each in totals),
            "components": components,
            "resources": {**usage(), "uptime_seconds": round(uptime_seconds, 1)},
        },
        "open_circuits": open_circuits,
    }


def usage() -> dict[str, float]:
    """What the process uses now: resident bytes, CPU seconds since its start, threads."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "memory_bytes": _resident_bytes(spent.ru_maxrss),
        "cpu_seconds": round(spent.ru_utime + spent.ru_stime, 3),
        "threads": threading.active_count(),
    }


def _resident_bytes(peak: int) -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return peak if sys.platform == "darwin" else peak * 1024  # the peak is the best there is
    return pages * os.sysconf("SC_PAGE_SIZE")


def _percent(part: int, calls: int) -> float | None:
    return round(100 * part / calls, 3) if calls else None
