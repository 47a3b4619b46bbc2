"""The session in contract/README.md is what a reader sees."""

import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from circuitbreaker_contract import library

README = Path(__file__).parents[2] / "contract" / "README.md"
SHOWN_INCARNATION = "1795502492593"


def session() -> list[tuple[str, str]]:
    """(command, what it prints) of every console block."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    entries = [entry.partition("\n") for block in blocks for entry in re.split(r"^> ", block, flags=re.MULTILINE)[1:]]
    return [(command, printed) for command, _, printed in entries]


def test_the_session_can_be_repeated(shared_redis) -> None:
    """Every command of the README prints what the README says, but for the time in it."""
    cli = shutil.which("redis-cli") or shutil.which("valkey-cli")
    if cli is None:
        pytest.skip("no redis-cli beside the server")

    def run(*words: str, given: str = "") -> str:
        done = subprocess.run(
            [cli, "-u", shared_redis.url, "--no-raw", *words], input=given, capture_output=True, text=True, check=True
        )
        return done.stdout

    run("-x", "FUNCTION", "LOAD", "REPLACE", given=library.source())
    incarnation = SHOWN_INCARNATION
    assert len(session()) >= 6
    for command, expected in session():
        if "cb_acquire" in command:
            time.sleep(1.0)  # the session says to wait that long; Redis' clock is not ours to set here
        printed = run(*shlex.split(command.replace(SHOWN_INCARNATION, incarnation)))
        if "cb_configure" in command:
            incarnation = re.search(r"\d{13}", printed)[0]
        assert printed.replace(incarnation, SHOWN_INCARNATION) == expected
