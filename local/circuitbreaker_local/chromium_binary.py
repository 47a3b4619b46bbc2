"""Chromium, to look at the operator's page with: `$CB_CHROMIUM`, else PATH, else the system's package manager."""

import re
import shutil
import subprocess
from pathlib import Path

from circuitbreaker_local.choice import chosen_program
from circuitbreaker_local.packages import found_or_brought, install
from circuitbreaker_local.progress import Report

OLDEST = 111  # the first that has all that the page's style uses
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = {"apt-get": ("chromium",), "dnf": ("chromium",), "apk": ("chromium",)}


def find_chromium(report: Report | None = None) -> Path:
    """A Chromium or Chrome; installs one where it may. Raises LocalError."""
    if chosen := chosen_program("CB_CHROMIUM", unfit):
        return chosen
    advice = f"Chromium {OLDEST} or newer is needed: install chromium, or set CB_CHROMIUM to its path"
    report = report or Report()
    return found_or_brought(_candidates, unfit, lambda: install(PACKAGES, report), advice, report)


def _candidates() -> list[Path]:
    return [Path(path) for path in map(shutil.which, NAMES) if path]


def unfit(program: Path) -> str:
    """Why `program` will not do; empty when it will."""
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program} --version does not answer ({error})"
    found = re.search(r"\b(Chromium|Chrome) (\d+)\.", asked.stdout)
    if not found:
        return f"{program} is no Chromium: {asked.stdout.strip()[:80]!r}"
    return "" if int(found[2]) >= OLDEST else f"{program} is {found[0].rstrip('.')}, older than {OLDEST}"
