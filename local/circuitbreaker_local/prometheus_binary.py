"""A Prometheus and its promtool: where they come from.

`$CB_PROMETHEUS` and `$CB_PROMTOOL` decide when they are set; else PATH; else Debian's package, which is fetched and
unpacked into our cache and not installed: installing it would start a daemon on port 9090, and the programs need
nothing else of the package.
"""

import re
import shutil
import subprocess
from pathlib import Path

from circuitbreaker_local.cache import cache_folder, translated_errors
from circuitbreaker_local.choice import chosen_program
from circuitbreaker_local.packages import fetch, found_or_brought
from circuitbreaker_local.progress import Report

OLDEST = (2, 30)
PROGRAMS = ("prometheus", "promtool")


def find_prometheus(report: Report | None = None) -> Path:
    """A prometheus >= 2.30; fetches one where it may. Raises LocalError."""
    return _find("prometheus", report)


def find_promtool(report: Report | None = None) -> Path:
    """A promtool >= 2.30; fetches one where it may. Raises LocalError."""
    return _find("promtool", report)


@translated_errors()
def _find(name: str, report: Report | None) -> Path:
    variable = f"CB_{name.upper()}"
    if chosen := chosen_program(variable, lambda program: unfit(program, name)):
        return chosen
    report = report or Report()
    folder = cache_folder() / "prometheus"

    def candidates() -> list[Path]:
        on_path = shutil.which(name)
        ours = folder / name
        return ([Path(on_path)] if on_path else []) + ([ours] if ours.exists() else [])

    advice = f"{name} 2.30 or newer is needed: install prometheus, or set {variable} to its path"
    return found_or_brought(
        candidates, lambda program: unfit(program, name), lambda: _fetch(folder, report), advice, report
    )


def _fetch(into: Path, report: Report) -> None:
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        with report.step("fetching Debian's prometheus") as step:
            fetch("prometheus", PROGRAMS, into, step)


def unfit(program: Path, name: str = "prometheus") -> str:
    """Why `program` will not do; empty when it will."""
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program} --version does not answer ({error})"
    found = re.search(rf"{name}, version (\d+)\.(\d+)", asked.stdout + asked.stderr)
    if not found:
        return f"{program} is no {name}: {asked.stdout.strip()[:80]!r}"
    version = int(found[1]), int(found[2])
    return "" if version >= OLDEST else f"{program} is {found[0]}, older than {OLDEST[0]}.{OLDEST[1]}"
