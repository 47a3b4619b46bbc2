"""The system's package manager, where we may use it without a password."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from circuitbreaker_local.progress import Report

# manager -> what it is told, in order; `{}` is the package
MANAGERS: Mapping[str, Sequence[Sequence[str]]] = {
    "apt-get": (("update", "-q"), ("install", "-q", "-y", "--no-install-recommends", "{}")),
    "dnf": (("install", "-y", "{}"),),
    "apk": (("add", "{}"),),
    "brew": (("install", "{}"),),
}


def install(packages: Mapping[str, Sequence[str]], report: Report) -> None:
    """Installs the first of the packages that the system's manager has; says what went wrong, and raises nothing."""
    manager = next((each for each in MANAGERS if shutil.which(each) and packages.get(each)), None)
    if manager is None:
        return
    prefix: list[str] = []
    if os.getuid() != 0 and manager != "brew":
        sudo = shutil.which("sudo")
        if not sudo or subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode != 0:
            return
        prefix = [sudo, "-n", "env", "DEBIAN_FRONTEND=noninteractive"]
    for package in packages[manager]:
        with report.step(f"installing {package} with {manager}"):
            for command in MANAGERS[manager]:
                done = subprocess.run(
                    [*prefix, manager, *(word.format(package) for word in command)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                    check=False,
                )
        if done.returncode == 0:
            return
        report.say("\n".join(done.stdout.splitlines()[-5:]))
