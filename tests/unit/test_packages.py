"""What package managers are asked, by stand-ins: one at a time, each to its end, and nothing is said that is not so."""

import io
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from circuitbreaker_local import __main__, packages, prometheus_binary
from circuitbreaker_local.chromium_binary import find_chromium
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.progress import Report
from circuitbreaker_local.redis_server import find_redis_server
from circuitbreaker_local.waiting import wait_until

FIND = "from circuitbreaker_local.chromium_binary import find_chromium; print(find_chromium())"
# In the background of a shell SIGINT is ignored, and that is inherited: ask for Python's own answer to it.
FIND_AFTER_CTRL_C = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {FIND}"
TOOLS = ("cat", "chmod", "cp", "env", "mkdir", "rmdir", "sleep")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PATH: sudo that asks nothing, and what stand-ins need. The cache is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name) or name)
    program(folder / "sudo", 'shift; exec "$@"')
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CB_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("CB_CHROMIUM", "CB_PROMETHEUS", "CB_REDIS_SERVER"):
        monkeypatch.delenv(name, raising=False)
    return folder


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def bringing(folder: Path, before: str = "", after: str = "") -> str:
    """An apt-get whose `install` does `before`, brings Chromium, and does `after`."""
    brought = f'printf "#!/bin/sh\\necho Chromium 120.0\\n" >{folder}/new; chmod +x {folder}/new; '
    return f'[ "$1" = install ] || exit 0\n{before}\n{brought} cp {folder}/new {folder}/chromium\n{after}'


def test_two_that_look_at_once_install_once(folder: Path) -> None:
    """apt-get takes no second one beside it, and does not wait."""
    busy = f"mkdir {folder}/lock || exit 100; echo . >>{folder}/installed; sleep 0.5"
    program(folder / "apt-get", bringing(folder, busy, f"rmdir {folder}/lock"))
    both = [subprocess.Popen([sys.executable, "-c", FIND], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=20)[0].strip() for process in both] == [str(folder / "chromium")] * 2
    assert (folder / "installed").read_text() == ".\n"


def test_another_s_lock_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a daily update, say, which apt-get itself does not wait for."""
    monkeypatch.setattr(packages, "TICK_SECONDS", 0.01)
    held = f'[ -e {folder}/again ] || {{ echo >{folder}/again; echo "E: Could not get lock /x"; exit 100; }}'
    program(folder / "apt-get", bringing(folder, held))
    said = io.StringIO()
    assert find_chromium(Report(said)) == folder / "chromium"
    assert [re.sub(r" after .*", "", line) for line in said.getvalue().splitlines()] == [
        "installing chromium with apt-get ...",
        "another process installs packages; waiting for it",
        "installing chromium with apt-get ... done",
    ]


def test_an_installation_that_failed_is_said(folder: Path) -> None:
    program(folder / "apt-get", '[ "$1" = update ] || { echo "E: Unable to locate package"; exit 100; }')
    said = io.StringIO()
    with pytest.raises(LocalError, match=r"^Chromium 111 or newer is needed: install chromium"):
        find_chromium(Report(said))
    assert [re.sub(r" after .*", "", line) for line in said.getvalue().splitlines()] == [
        "installing chromium with apt-get ...",
        "installing chromium with apt-get ... failed",
        "E: Unable to locate package",
        "apt-get could not install chromium",
    ]


def test_an_installation_comes_to_its_end(folder: Path) -> None:
    """Ctrl-C ends the command when the package manager has done what it began."""
    waits = f"echo >{folder}/began; while [ ! -e {folder}/go-on ]; do sleep 0.05; done"
    program(folder / "apt-get", bringing(folder, waits))
    words = [sys.executable, "-c", FIND_AFTER_CTRL_C]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        wait_until((folder / "began").exists, timeout_seconds=20, what="the installation to begin")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = [process.stderr.readline(), process.stderr.readline()]
        (folder / "go-on").touch()
        rest = process.communicate(timeout=20)[1]
    assert said[1] == "finishing the installation, then ending\n"
    assert "interrupted after" in rest
    assert rest.endswith("KeyboardInterrupt\n")
    assert (folder / "chromium").exists()


def test_a_package_is_fetched_once(folder: Path, tmp_path: Path) -> None:
    """It is unpacked and not installed; one package brings both programs."""
    program(folder / "apt-get", f'[ "$1" = update ] || {{ echo "$*" >>{folder}/asked; echo >prometheus_2_all.deb; }}')
    unpacks = (
        "for each in prometheus promtool; do printf '#!/bin/sh\\necho %s, version 2.42\\n' $each >$3/usr/bin/$each"
    )
    program(folder / "dpkg-deb", f"mkdir -p $3/usr/bin; {unpacks}; chmod +x $3/usr/bin/$each; done")
    found = [prometheus_binary.find_prometheus(Report(io.StringIO())), prometheus_binary.find_promtool()]
    assert found == [tmp_path / "cache" / "prometheus" / name for name in ("prometheus", "promtool")]
    assert (folder / "asked").read_text() == "download -q prometheus\n"
    assert sorted(found[0].parent.iterdir()) == found


@pytest.mark.parametrize("find", [find_redis_server, find_chromium, prometheus_binary.find_prometheus])
def test_a_cache_that_is_not_ours(folder: Path, tmp_path: Path, find: Callable[[Report], Path]) -> None:
    """The error says what to do. A file is in the way of everybody, root too."""
    program(folder / "redis-check-rdb", "exit 1")
    (tmp_path / "cache").touch()
    with pytest.raises(LocalError, match=r"/cache\b.*: set CB_CACHE_DIR to a folder of yours$"):
        find(Report(io.StringIO()))


def test_what_few_tests_need_is_brought_before_they_begin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be had is said, and the others are not kept from running."""
    built = []
    monkeypatch.setattr(__main__, "find_redis_server", built.append)
    monkeypatch.setattr(__main__, "control_plane_binaries", built.append)
    program(folder / "apt-get", bringing(folder))
    report = Report(said := io.StringIO())
    __main__.binaries(report, node=False)
    assert built == [report, report]
    assert (folder / "chromium").exists()
    assert [line.split(":")[:2] for line in said.getvalue().splitlines()[2:]] == [
        ["going on without", f" {name} 2.30 or newer is needed"] for name in ("prometheus", "promtool")
    ]
