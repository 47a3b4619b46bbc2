"""In a container the user is a number without an entry in /etc/passwd. Kopf asked for its name, and no watch began.

The operator got ready all the same, served what its sweep found, and would have given up after ten minutes.
"""

from pathlib import Path

import pytest

from tests.cluster.world import World

NOBODY = """
import pwd
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
"""


def test_the_watch_needs_no_name(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOBODY, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    # No sweep comes to help within this test.
    with world.operator(SWEEP_INTERVAL="1h") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        assert "started again" not in operator.log
