"""`make demo HOLD=1` to its end, then what it invites to, as a reader would type it."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from circuitbreaker_local.waiting import wait_until

MODULE = "circuitbreaker_local.demo"
# In the background of a shell SIGINT is ignored, and that is inherited: ask for Python's own answer to it.
HOLD = f"""
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv[1:] = ["--hold"]
runpy.run_module({MODULE!r}, run_name="__main__", alter_sys=True)
"""


def behind_a_proxy() -> dict[str, str]:
    """This process' environment, with a proxy for everything."""
    ours = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return ours | dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")


def shell(lines: list[str]) -> str:
    """What a new terminal prints; raises when one of the lines fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CB_", "KUBE"))}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("kubernetes_binaries", "redis_server_binary")
def test_the_demo_happens_and_what_it_invites_to_works(tmp_path: Path) -> None:
    """The page is there, every printed command does what it says, and Ctrl-C leaves nothing behind.

    Behind a proxy that leads nowhere: nothing of it is the proxy's to know.
    """
    log = tmp_path / "demo.log"
    with log.open("w") as output:
        demo = subprocess.Popen(
            [sys.executable, "-c", HOLD],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=behind_a_proxy(),
        )
    try:
        said = lambda: log.read_text(encoding="utf-8")  # noqa: E731
        # The last of the invitations.
        wait_until(lambda: "HGETALL" in said() or demo.poll() is not None, timeout_seconds=180, what="the demo")
        assert demo.poll() is None, said()
        invited = said().rpartition("Yours to play with")[2]
        page = re.search(r"the page  (http://127\.0\.0\.1:\d+/)", invited)
        assert page is not None
        with urllib.request.urlopen(page[1], timeout=10) as answer:
            assert "<title>Circuit breakers</title>" in answer.read().decode()
        exports = re.findall(r"^ +(export .*)$", invited, re.MULTILINE)
        commands = re.findall(r"^ +\$ (.*)$", invited, re.MULTILINE)
        assert len(exports) == 2
        tried = [line for line in commands if line.startswith("kubectl breaker")]
        assert len(tried) == 4
        shown = shell([*exports, *tried[:3], "kubectl breaker list", tried[3], "kubectl breaker list"])
        assert re.search(r"^payments +Open +Forced ", shown, re.MULTILINE), shown
        assert not re.search(r"^payments .*Forced", shown.rpartition("NAME ")[2], re.MULTILINE), shown
        folder = re.search(r"KUBECONFIG='?(.*)/", exports[0])
        assert folder is not None
        assert Path(folder[1]).is_dir()
    finally:
        demo.send_signal(signal.SIGINT)
        code = demo.wait(60)
    assert (code, Path(folder[1]).exists()) == (130, False), said()
