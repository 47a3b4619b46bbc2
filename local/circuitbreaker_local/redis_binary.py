"""redis-server, or its fork valkey-server: where it comes from.

`$CB_REDIS_SERVER` decides when it is set; else PATH; else the system's package manager, where we may use it without a
password. On Debian and its kin the package that is called redis-server also starts a daemon, and `redis-tools` holds
the very same program under the name of another of its roles, redis-check-rdb: it goes by the name it is called by. So
we install only the tools, and call the program by the right name from our cache.
"""

import re
import shutil
import subprocess
from pathlib import Path

from circuitbreaker_local.cache import cache_folder, translated_errors
from circuitbreaker_local.choice import chosen_program
from circuitbreaker_local.packages import found_or_brought, install
from circuitbreaker_local.progress import Report

# The contract's functions need FUNCTION (7.0); every Valkey has it, 7.2 is its first.
OLDEST = {"Redis": (7, 0), "Valkey": (7, 2)}
NAMES = ("redis-server", "valkey-server")
PACKAGES = {"apt-get": ("redis-tools",), "dnf": ("valkey", "redis"), "apk": ("valkey", "redis"), "brew": ("redis",)}
ADVICE = "Redis 7.0 or newer is needed: install redis-server (or valkey-server 7.2), or set CB_REDIS_SERVER to its path"


def find_redis_server(report: Report | None = None) -> Path:
    """A redis-server >= 7.0 or valkey-server >= 7.2; installs one where it may. Raises LocalError."""
    if chosen := chosen_program("CB_REDIS_SERVER", unfit):
        return chosen
    report = report or Report()
    return found_or_brought(_candidates, unfit, lambda: install(PACKAGES, report), ADVICE, report)


def unfit(server: Path) -> str:
    """Why `server` will not do; empty when it will."""
    try:
        asked = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{server} --version does not answer ({error})"
    found = re.search(r"\b(Redis|Valkey) server v=(\d+)\.(\d+)", asked.stdout)
    if not found:
        return f"{server} is no Redis: {asked.stdout.strip()[:80]!r}"
    product, major, minor = found.groups()
    if (int(major), int(minor)) < OLDEST[product]:
        oldest = ".".join(map(str, OLDEST[product]))
        return f"{server} is {product} {major}.{minor}, older than {oldest}"
    return ""


@translated_errors()
def _candidates() -> list[Path]:
    found = [Path(path) for path in map(shutil.which, NAMES) if path]
    tools = shutil.which("redis-check-rdb")
    if tools:
        by_its_name = cache_folder() / "redis" / "redis-server"
        if not by_its_name.is_symlink() or by_its_name.readlink() != Path(tools):
            by_its_name.parent.mkdir(parents=True, exist_ok=True)
            by_its_name.unlink(missing_ok=True)
            by_its_name.symlink_to(tools)
        found.append(by_its_name)
    return found
