"""Who has not installed an extra is told in one line what to install, and nothing else is lost."""

import subprocess
import sys

import pytest

EXTRAS = {
    "httpx": "httpx",
    "requests": "requests",
    "aiohttp": "aiohttp",
    "prometheus": "prometheus_client",
    "opentelemetry": "opentelemetry",
}
WITHOUT = "import sys; sys.modules[{package!r}] = None; "  # what Python takes for: it is not there


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(("extra", "package"), EXTRAS.items(), ids=EXTRAS)
def test_a_missing_library_is_named(extra: str, package: str) -> None:
    done = run(WITHOUT.format(package=package) + f"import circuitbreaker_client.{extra}")
    expected = f"needs the package {package}: pip install 'circuitbreakers[{extra}]'"
    last = done.stderr.splitlines()[-1]
    assert last == f"ModuleNotFoundError: circuitbreaker_client.{extra} {expected}"
    assert "During handling" not in done.stderr
    assert done.returncode == 1


def test_the_client_itself_needs_none_of_them() -> None:
    without = "".join(WITHOUT.format(package=package) for package in EXTRAS.values())
    done = run(without + "import circuitbreaker_client; print(circuitbreaker_client.CircuitBreakers.__name__)")
    assert (done.stdout, done.stderr) == ("CircuitBreakers\n", "")
