"""What a node is made of is brought, by stand-ins here; and not before it is known that there may be a node."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.node import packages
from circuitbreaker_local.progress import Report

IN_A_SANDBOX = """
import ctypes, os, sys
from circuitbreaker_local.node import __main__ as node, enclosure

class Sandbox:
    unshare = staticmethod(lambda flags: ctypes.set_errno(1) or -1)

enclosure._libc, os.getuid = Sandbox, lambda: 0
sys.argv = ["node", "sh"]
sys.exit(node.main())
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PATH, with a package manager that writes down what it is asked; the cache is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("chmod", "mkdir", "sh", "touch"):
        (folder / name).symlink_to(shutil.which(name) or name)
    file = f"install) touch {folder}/made-up;; download) touch containerd_2_all.deb;;"
    program(folder / "apt-get", f'echo "$*" >>{folder}/asked; case $1 in {file} esac')
    unpack = "touch $3/usr/bin/$each; chmod +x $3/usr/bin/$each"
    names = " ".join(packages.CONTAINERD_PROGRAMS)
    program(folder / "dpkg-deb", f"mkdir -p $3/usr/bin; for each in {names}; do {unpack}; done")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CB_CACHE_DIR", str(tmp_path / "cache"))
    return folder


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_containerd_is_unpacked_and_the_others_installed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its package starts a service where systemd runs, which would stay. A file that is no program counts, too."""
    monkeypatch.setattr(packages, "PACKAGES", {"containerd": "containerd", "made-up": str(folder / "made-up")})
    for _ in range(2):
        packages.ensure_packages(Report(io.StringIO()))
    asked = [each for each in (folder / "asked").read_text().splitlines() if each != "update -q"]
    assert asked == ["install -q -y --no-install-recommends made-up", "download -q containerd"]
    for name in packages.CONTAINERD_PROGRAMS:
        assert packages.program(name) == tmp_path / "cache" / "containerd" / name


def test_what_nobody_brought_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGES", {"made-up": "/nowhere/made-up"})
    with pytest.raises(LocalError, match=r"^a node needs made-up, which apt-get did not bring$"):
        packages.ensure_packages(Report(io.StringIO()))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has them")
def test_namespaces_are_tried_first(folder: Path) -> None:
    """Nothing is installed and built where there can be no node."""
    run = subprocess.run([sys.executable, "-c", IN_A_SANDBOX], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, (folder / "asked").exists()) == (1, False)
    assert re.fullmatch(r"error: this machine lets us make no namespaces \(Operation not permitted\): .*\n", run.stderr)
