"""A Prometheus and its promtool: where they come from.

`$CB_PROMETHEUS` and `$CB_PROMTOOL` decide when they are set; else PATH; else Debian's package, which is fetched and
unpacked into our cache and not installed: installing it would start a daemon on port 9090, and the programs need
nothing else of the package.
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
PROGRAMS = ("prometheus", "promtool")


def find_prometheus(report: Report | None = None) -> Path:
    """A prometheus >= 2.30; fetches one where it may. Raises LocalError."""
    return _find("prometheus", report)


def find_promtool(report: Report | None = None) -> Path:
    """A promtool >= 2.30; fetches one where it may. Raises LocalError."""
    return _find("promtool", report)


def _find(name: str, report: Report | None) -> Path:
    variable = f"CB_{name.upper()}"
    if chosen := chosen_program(variable, lambda program: unfit(program, name)):
        return chosen
    ours = cache_folder() / "prometheus" / name
    on_path = shutil.which(name)
    reasons = []
    for candidate in ([Path(on_path)] if on_path else []) + ([ours] if ours.exists() else []):
        why_not = unfit(candidate, name)
        if not why_not:
            return candidate
        reasons.append(why_not)
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        why_not = _fetch(ours.parent, report or Report()) or unfit(ours, name)
        if not why_not:
            return ours
        reasons.append(why_not)
    advice = f"{name} 2.30 or newer is needed: install prometheus, or set {variable} to its path"
    raise LocalError("; ".join([*reasons, advice]))


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


def _fetch(into: Path, report: Report) -> str:
    """Why they could not be had; empty when all of `PROGRAMS` are in the folder `into`."""
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
        into.mkdir(parents=True, exist_ok=True)
        for name in PROGRAMS:
            new = into / f".{name}-{os.getpid()}"
            shutil.copy2(Path(folder) / "unpacked" / "usr" / "bin" / name, new)
            new.replace(into / name)  # whoever looks at the same time finds it whole
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
