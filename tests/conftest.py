"""The control plane and Redis of the tests are those of the demo."""

pytest_plugins = ["circuitbreaker_local.pytest_plugin"]
