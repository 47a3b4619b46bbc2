"""The system's package manager, where we may use it without a password: one at a time, and each to its end."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from circuitbreaker_local.cache import cache_folder, exclusive
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.progress import Report, Step

# manager -> what it is told, in order; the last is told the packages as well
MANAGERS: Mapping[str, Sequence[Sequence[str]]] = {
    "apt-get": (("update", "-q"), ("install", "-q", "-y", "--no-install-recommends")),
    "dnf": (("install", "-y"),),
    "apk": (("add",),),
    "brew": (("install",),),
}
SETTINGS = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
# apt-get gives up at once where a daily one runs; its DPkg::Lock::Timeout is for one of its three locks alone.
LOCKED = "Could not get lock"
LOCK_SECONDS = 600.0
TICK_SECONDS = 0.5


def alone(report: Report) -> AbstractContextManager[None]:
    """No other process of ours uses a package manager meanwhile."""
    return exclusive(cache_folder() / "packages", report)


def found_or_brought(
    candidates: Callable[[], Iterable[Path]],
    unfit: Callable[[Path], str],
    bring: Callable[[], None],
    advice: str,
    report: Report,
) -> Path:
    """The first candidate that will do; where there is none, after `bring`. Raises LocalError.

    `unfit` says why one will not do, and nothing when it will; `advice` ends the error. `bring` may raise LocalError.
    """
    reasons: list[str] = []

    def look() -> Path | None:
        for candidate in candidates():
            why_not = unfit(candidate)
            if not why_not:
                return candidate
            reasons.append(why_not)
        return None

    if found := look():
        return found
    with alone(report):
        if found := look():  # somebody else has brought it while we waited
            return found
        try:
            bring()
        except LocalError as error:
            reasons.append(str(error))
    if found := look():
        return found
    raise LocalError("; ".join([*dict.fromkeys(reasons), advice]))


def install(packages: Mapping[str, Sequence[str]], report: Report) -> None:
    """Installs the first of the packages that the system's manager has; says what went wrong, and raises nothing."""
    manager = next((each for each in MANAGERS if shutil.which(each) and packages.get(each)), None)
    if manager is None:
        return
    prefix: list[str] = []
    if os.getuid() != 0 and manager != "brew":
        sudo = shutil.which("sudo")
        if not sudo:
            return
        # In a session of its own, as the manager will be: a password given at this terminal does not count there.
        asked = subprocess.run([sudo, "-n", "true"], capture_output=True, check=False, start_new_session=True)
        if asked.returncode != 0:
            return
        prefix = [sudo, "-n", "env", *(f"{name}={value}" for name, value in SETTINGS.items())]
    for package in packages[manager]:
        try:
            with report.step(f"installing {package} with {manager}") as step:
                manage(manager, [package], step, prefix)
        except LocalError as error:
            report.say(str(error))
        else:
            return


def manage(manager: str, packages: Sequence[str], step: Step, prefix: Sequence[str] = ()) -> None:
    """Has the manager install all of `packages`. Raises LocalError with the end of what it says."""
    *before, last = MANAGERS[manager]
    for words in before:  # lists of packages that could not be had are missed below, if at all
        to_its_end([*prefix, manager, *words], step)
    done = to_its_end([*prefix, manager, *last, *packages], step)
    if done.returncode != 0:
        end = "\n".join(done.stdout.splitlines()[-5:])
        raise LocalError(f"{end}\n{manager} could not install {', '.join(packages)}")


def fetch(package: str, programs: Sequence[str], into: Path, step: Step) -> None:
    """Puts programs of Debian's package into the folder `into`, without installing it. Raises LocalError.

    The caller holds others off (`alone`).
    """
    with tempfile.TemporaryDirectory() as folder:
        commands = [["apt-get", "download", "-q", package]]
        if os.getuid() == 0:  # a fresh image has no lists yet; without root they are what they are
            commands.insert(0, ["apt-get", "update", "-q"])
        for command in commands:
            _succeeds(command, step, folder)
        archive = next(Path(folder).glob(f"{package}_*.deb"))
        _succeeds(["dpkg-deb", "--extract", archive.name, "unpacked"], step, folder)
        into.mkdir(parents=True, exist_ok=True)
        for name in programs:
            new = into / f".{name}"
            shutil.copy2(Path(folder) / "unpacked" / "usr" / "bin" / name, new)
            new.replace(into / name)  # whoever looks at the same time finds it whole


def _succeeds(command: Sequence[str], step: Step, folder: str) -> None:
    done = to_its_end(command, step, folder)
    if done.returncode != 0:
        raise LocalError(f"{' '.join(command)}: {done.stdout.strip()[-300:]}")


def to_its_end(command: Sequence[str], step: Step, folder: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs it, again while another process holds the lock it needs. Ctrl-C is raised when it has ended.

    A package manager that is cut short leaves the system half installed.
    """
    give_up_at = time.monotonic() + LOCK_SECONDS
    waiting = False
    while True:
        done = _once(command, step, folder)
        if done.returncode == 0 or LOCKED not in done.stdout or time.monotonic() > give_up_at:
            return done
        if not waiting:
            step.say("another process installs packages; waiting for it")
            waiting = True
        time.sleep(TICK_SECONDS)
        step.tick()


def _once(command: Sequence[str], step: Step, folder: str | None) -> subprocess.CompletedProcess[str]:
    interrupted = False
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=os.environ | SETTINGS,
            start_new_session=True,  # Ctrl-C is for everybody in the terminal's
        )
        while process.returncode is None:
            try:
                process.wait(TICK_SECONDS)
            except subprocess.TimeoutExpired:
                step.tick()
            except KeyboardInterrupt:
                if not interrupted:
                    step.say("finishing the installation, then ending")
                interrupted = True
        if interrupted:
            raise KeyboardInterrupt
        said.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, said.read())
