"""Ordinary Go programs, built once into the cache: a `go.mod` names them as tools, go.sum decides what is in them.

The folder of the cache carries the versions, the system and every byte of go.mod and go.sum in its name. A build goes
into a folder beside it, renamed when all programs are there: what is in the cache is whole. Builds that follow each
other share Go's caches, so that what one has compiled the next has not to.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from circuitbreaker_local.cache import cache_folder, exclusive, translated_errors
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.processes import Process, tail
from circuitbreaker_local.progress import Report
from circuitbreaker_local.toolchain import find_go, go_environment, numbers

TICK_SECONDS = 0.5


@dataclass(frozen=True)
class GoProgram:
    """A package to build, the module that gives its version, and the time of a first build, downloads included."""

    package: str
    module: str
    duration: str


@dataclass(frozen=True)
class GoPrograms:
    """The programs of the module in `folder`, by the names of their files.

    `name` is their folder of the cache, `version_of` the module whose version begins its subfolder, and `advice` ends
    the error of a build that failed.
    """

    name: str
    folder: Path
    version_of: str
    programs: Mapping[str, GoProgram]
    advice: str

    def find(self, report: Report) -> Path:
        """The folder that holds them; builds them when this machine has none. Raises LocalError."""
        return find_all([self], report)[0]

    def required(self, module: str) -> str:
        """The version that go.mod requires of `module`; of `go`, the language's."""
        found = re.search(rf"^\s*(?:require )?{re.escape(module)} (\S+)", self._mod.read_text(), re.MULTILINE)
        if not found:
            raise LocalError(f"{self._mod} does not require {module}")
        return found.group(1)

    def key(self) -> str:
        """The name of the subfolder."""
        digest = hashlib.sha256(self._mod.read_bytes() + (self.folder / "go.sum").read_bytes())
        for source in sorted(self.folder.rglob("*.go")):
            digest.update(source.read_bytes())
        return "-".join((self.required(self.version_of), *_system(), digest.hexdigest()[:12]))

    def home(self) -> Path:
        """The folder that holds them once they are built."""
        return cache_folder() / self.name / self.key()

    def build(self, caches: Path, report: Report) -> None:
        """Fill `home`; Go keeps what it compiles in `caches`, unless the user has caches. Holds nobody off."""
        home = self.home()
        home.parent.mkdir(parents=True, exist_ok=True)
        for left in home.parent.glob(".building-*"):  # whoever began these was killed: our caller holds the lock
            shutil.rmtree(left, ignore_errors=True)
        go = find_go(numbers(self.required("go")), report)
        environment = go_environment() | _own_caches(go, caches)
        scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=home.parent))
        try:
            done = scratch / "bin"
            done.mkdir()
            for name, program in self.programs.items():
                version = self.required(program.module)
                with report.step(f"building {name} {version} (once, about {program.duration} on 2 cores)") as step:
                    build: list[str | Path] = [go, "build", "-mod=readonly", "-trimpath", "-o", done / name]
                    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={version}"
                    command = [*build, "-ldflags", flags, program.package]
                    self._run(command, scratch, environment, step.tick)
            done.rename(home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    @property
    def _mod(self) -> Path:
        return self.folder / "go.mod"

    def _run(
        self, command: list[str | Path], scratch: Path, environment: Mapping[str, str], tick: Callable[[], None]
    ) -> None:
        log = scratch / "log"
        # GOTMPDIR: what the compiler leaves behind when it is interrupted goes away with the rest
        environment = {**environment, "GOTMPDIR": str(scratch)}
        with Process(command, log=log, env=environment, cwd=self.folder) as compiler:
            while True:
                try:
                    returncode = compiler.wait(TICK_SECONDS)
                except subprocess.TimeoutExpired:
                    tick()
                else:
                    break
        if returncode != 0:
            raise LocalError(
                f"{tail(log)}\nThe build failed; above are its last lines. It needs the Go module proxy (GOPROXY), "
                f"2 GB of memory and 6 GB of disk, and continues where it stopped. {self.advice}"
            )


@translated_errors()
def find_all(wanted: Sequence[GoPrograms], report: Report) -> list[Path]:
    """The folder of each, in the same order; builds those that this machine has not got. Raises LocalError."""
    homes = [programs.home() for programs in wanted]
    if not all(home.exists() for home in homes):
        folder = cache_folder() / "go-builds"
        with exclusive(folder, report):
            caches = folder / "caches"  # an interrupted build leaves them, for the next one to continue
            for programs, home in zip(wanted, homes, strict=True):
                if not home.exists():  # somebody else may have built while we waited
                    programs.build(caches, report)
            shutil.rmtree(caches, ignore_errors=True)
    return homes


def _system() -> tuple[str, str]:
    machine = platform.machine().lower()
    return sys.platform, {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _own_caches(go: Path, folder: Path) -> dict[str, str]:
    """Go's caches grow by 5 GB: those that this machine does not have yet are ours, below `folder`, for the build."""
    ours = {}
    for name in ("GOCACHE", "GOMODCACHE"):
        asked = subprocess.run([go, "env", name], capture_output=True, text=True, check=False, env=go_environment())
        theirs = Path(asked.stdout.strip())
        if name not in os.environ and not (theirs.is_absolute() and theirs.is_dir() and any(theirs.iterdir())):
            ours[name] = str(folder / name.lower())
    if "GOMODCACHE" in ours:
        ours["GOFLAGS"] = "-modcacherw"  # else nobody could remove it
    return ours
