"""Chromium, to look at the operator's page with: `$CB_CHROMIUM`, else PATH, else the system's package manager."""

import re
import shutil
import subprocess
from pathlib import Path

from circuitbreaker_local.choice import chosen_program
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.packages import install
from circuitbreaker_local.progress import Report

OLDEST = 111  # the first that has all that the page's style uses
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = {"apt-get": ("chromium",), "dnf": ("chromium",), "apk": ("chromium",)}


def find_chromium(report: Report | None = None) -> Path:
    """A Chromium or Chrome; installs one where it may. Raises LocalError."""
    if chosen := chosen_program("CB_CHROMIUM", unfit):
        return chosen
    reasons = []
    for attempt in ("look", "install and look"):
        if attempt != "look":
            install(PACKAGES, report or Report())
        for candidate in filter(None, map(shutil.which, NAMES)):
            why_not = unfit(Path(candidate))
            if not why_not:
                return Path(candidate)
            reasons.append(why_not)
    advice = f"Chromium {OLDEST} or newer is needed: install chromium, or set CB_CHROMIUM to its path"
    raise LocalError("; ".join([*dict.fromkeys(reasons), advice]))


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
