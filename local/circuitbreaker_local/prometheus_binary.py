"""A Prometheus: where it comes from.

`$CB_PROMETHEUS` decides when it is set; else PATH; else Debian's package, which is fetched and unpacked into our cache
and not installed: installing it would start a daemon on port 9090, and the program needs nothing else of the package.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from circuitbreaker_local.cache import cache_folder
from circuitbreaker_local.choice import chosen_program
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.progress import Report

OLDEST = (2, 30)
ADVICE = "Prometheus 2.30 or newer is needed: install prometheus, or set CB_PROMETHEUS to its path"


def find_prometheus(report: Report | None = None) -> Path:
    """A prometheus >= 2.30; fetches one where it may. Raises LocalError."""
    if chosen := chosen_program("CB_PROMETHEUS", unfit):
        return chosen
    ours = cache_folder() / "prometheus" / "prometheus"
    on_path = shutil.which("prometheus")
    reasons = []
    for candidate in ([Path(on_path)] if on_path else []) + ([ours] if ours.exists() else []):
        why_not = unfit(candidate)
        if not why_not:
            return candidate
        reasons.append(why_not)
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        why_not = _fetch(ours, report or Report()) or unfit(ours)
        if not why_not:
            return ours
        reasons.append(why_not)
    raise LocalError("; ".join([*reasons, ADVICE]))


def unfit(program: Path) -> str:
    """Why `program` will not do; empty when it will."""
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{program} --version does not answer ({error})"
    found = re.search(r"prometheus, version (\d+)\.(\d+)", asked.stdout + asked.stderr)
    if not found:
        return f"{program} is no Prometheus: {asked.stdout.strip()[:80]!r}"
    version = int(found[1]), int(found[2])
    return "" if version >= OLDEST else f"{program} is {found[0]}, older than {OLDEST[0]}.{OLDEST[1]}"


def _fetch(to: Path, report: Report) -> str:
    """Why it could not be had; empty when it is at `to`."""
    with report.step("fetching Debian's prometheus"), TemporaryDirectory() as folder:
        commands = [["apt-get", "download", "-q", "prometheus"]]
        if os.getuid() == 0:  # a fresh image has no lists yet; without root they are what they are
            commands.insert(0, ["apt-get", "update", "-q"])
        for command in commands:
            done = _run(command, folder)
            if done.returncode != 0:
                return f"{' '.join(command)}: {done.stdout.strip()[-300:]}"
        package = next(Path(folder).glob("prometheus_*.deb"))
        done = _run(["dpkg-deb", "--extract", str(package), "unpacked"], folder)
        if done.returncode != 0:
            return f"dpkg-deb: {done.stdout.strip()[-300:]}"
        to.parent.mkdir(parents=True, exist_ok=True)
        new = to.with_name(f".prometheus-{os.getpid()}")
        shutil.copy2(Path(folder) / "unpacked" / "usr" / "bin" / "prometheus", new)
        new.replace(to)  # whoever looks at the same time finds it whole
    return ""


def _run(command: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        check=False,
    )
