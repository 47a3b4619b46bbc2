"""What all tests share: servers as fixtures, no setting of the shell, and a seed known before a property test fails."""

import os
import secrets

import pytest

from circuitbreaker_operator.settings import table

pytest_plugins = ["circuitbreaker_local.pytest_plugin"]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """A run of Hypothesis without a seed of its own gets one, so that any run can be repeated whole."""
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = secrets.randbelow(2**32)


def pytest_configure() -> None:
    """None of the operator's settings is taken from the shell of whoever runs the tests."""
    for variable, _, _ in table():
        os.environ.pop(variable, None)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed of property tests: {config.getoption('hypothesis_seed')} (--hypothesis-seed repeats a run)"
