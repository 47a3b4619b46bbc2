"""Options and variables: one clear error that names each wrong one."""

from pathlib import Path

import pytest

from circuitbreaker_client import CircuitBreakers, Policy, Settings, SettingsError
from circuitbreaker_client import settings as module
from circuitbreaker_client.settings import DEFAULT_POLICY
from circuitbreaker_contract.environment import POLICY_VARIABLES
from circuitbreaker_contract.policy import Mode
from circuitbreaker_operator.settings import Settings as OperatorSettings
from circuitbreaker_operator.settings import table


def test_defaults(monkeypatch) -> None:
    monkeypatch.setenv("CB_NAMESPACE", "from-the-process")
    assert Settings.from_env().namespace == "from-the-process"
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.namespace, settings.policy, settings.redis_timeout_seconds) == ("default", DEFAULT_POLICY, 0.1)


def test_client_and_operator_have_the_same_defaults() -> None:
    operator = OperatorSettings(_env_file=None)
    for name in ("failure_threshold", "recovery_timeout_ms", "half_open_limit", "probe_timeout_ms"):
        assert getattr(operator, name) == getattr(DEFAULT_POLICY, name), name


def test_typing_errors_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """And nothing of what others read: not even the operator's variables look like them."""
    Settings.from_env({"CB_FAILURE_TRESHOLD": "7", "CB_MIN_CALLS": "", "CB_COLOUR": "red", "CBREDIS_URL": "x"})
    assert caplog.messages == ["CB_FAILURE_TRESHOLD is not a setting of the client; CB_FAILURE_THRESHOLD is"]
    caplog.clear()
    shared = {variable for variable, _ in module._VARIABLES.values()} | {*POLICY_VARIABLES.values(), "CB_MODE"}
    Settings.from_env({variable: "x" for variable, _, _ in table() if variable not in shared})
    assert caplog.messages == []


def test_everything_from_the_environment(tmp_path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    settings = Settings.from_env(
        {
            "CB_REDIS_URL": "rediss://user@redis:6380/2",
            "CB_REDIS_PASSWORD_FILE": str(file),
            "CB_REDIS_TIMEOUT": "250ms",
            "CB_NAMESPACE": "shop",
            "CB_KEY_PREFIX": "team-a:",
            "CB_STATE_SYNC": "TRUE",
            "CB_DEFINE_MISSING": "on",
            "CB_STRICT": "0",
            "CB_FLUSH_INTERVAL": "20ms",
            "CB_MAX_STALENESS": "5",
            "CB_MAX_BREAKERS": "50",
            "CB_FAILURE_THRESHOLD": "7",
            "CB_RECOVERY_TIMEOUT": "45",
            "CB_HALF_OPEN_LIMIT": "4",
            "CB_PROBE_TIMEOUT": "1m30s",
            "CB_WINDOW_CALLS": "100",
            "CB_FAILURE_RATE_PERCENT": "50",
            "CB_MODE": "Observe",
            "CB_SUCCESS_THRESHOLD": "",
        }
    )
    assert settings == Settings(
        redis_url="rediss://user@redis:6380/2",
        redis_password_file=file,
        redis_timeout_seconds=0.25,
        namespace="shop",
        key_prefix="team-a:",
        define_missing=True,
        flush_interval_seconds=0.02,
        max_staleness_seconds=5.0,
        max_breakers=50,
        policy=Policy(7, 45_000, 4, 4, 90_000, window_calls=100, failure_rate_percent=50, mode=Mode.OBSERVE),
    )


def test_an_option_wins_over_its_variable() -> None:
    settings = Settings.from_env(
        {"CB_NAMESPACE": "Nonsense", "CB_FAILURE_THRESHOLD": "x"}, namespace="shop", policy=DEFAULT_POLICY
    )
    assert (settings.namespace, settings.policy) == ("shop", DEFAULT_POLICY)


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("CB_REDIS_URL", "localhost:6379", "must look like redis://host:6379/0"),
        ("CB_REDIS_PASSWORD_FILE", "/nowhere/at/all", "no file at /nowhere/at/all"),
        ("CB_REDIS_TIMEOUT", "fast", "neither a duration like"),
        ("CB_REDIS_TIMEOUT", "0", "must be from 0.001 to 60"),
        ("CB_NAMESPACE", "Shop", "no name of a namespace"),
        ("CB_KEY_PREFIX", "team-a", "ending with ':'"),
        ("CB_STATE_SYNC", "perhaps", "must be one of true, 1, yes, on"),
        ("CB_MAX_BREAKERS", "-1", "not a whole number"),
        ("CB_FAILURE_THRESHOLD", "5.0", "not a whole number"),
        ("CB_FAILURE_THRESHOLD", "0", "turns off the only rule; set CB_FAILURE_RATE_PERCENT or"),
        ("CB_HALF_OPEN_LIMIT", "0", "must be from 1 to 1000"),
        ("CB_RECOVERY_TIMEOUT", "25h", "must be from 100 to 86400000 ms"),
        ("CB_SLOW_CALL_DURATION", "1s", "set CB_SLOW_CALL_DURATION and CB_SLOW_CALL_RATE_PERCENT together"),
        ("CB_MODE", "observe", "must be Enforce or Observe"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, text: str) -> None:
    with pytest.raises(SettingsError) as raised:
        CircuitBreakers.from_env({variable: value})
    assert variable in str(raised.value)
    assert text in str(raised.value)
    assert "\n" not in str(raised.value)


def test_all_wrong_ones_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        CircuitBreakers.from_env({"CB_STATE_SYNC": "x", "CB_FAILURE_THRESHOLD": "y", "CB_NAMESPACE": "Z"})
    assert [line.partition(":")[0] for line in str(raised.value).splitlines()] == [
        "CB_NAMESPACE", "CB_STATE_SYNC", "CB_FAILURE_THRESHOLD",
    ]  # fmt: skip


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(SettingsError, match=r"redis_timeout_seconds: must be from 0\.001 to 60"):
        CircuitBreakers(redis_timeout_seconds=0)
    with pytest.raises(SettingsError, match="strict: there is no Redis to ask"):
        CircuitBreakers(strict=True, state_sync=False)
    with pytest.raises(SettingsError, match="policy: must be a Policy"):
        CircuitBreakers(policy={"failureThreshold": 5})
    with pytest.raises(TypeError, match="redis_urll"):
        CircuitBreakers(redis_urll="redis://localhost")


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Settings(redis_url="redis://:secret@localhost"))
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({"CB_REDIS_URL": "redis://:secret@localhost:port"})
    assert "secret" not in str(raised.value)


def test_the_pods_own_namespace(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "NAMESPACE_FILE", tmp_path / "namespace")
    assert Settings.of().namespace == "default"
    Path(tmp_path / "namespace").write_text("shop\n")
    assert Settings.of().namespace == "shop"
    assert Settings.from_env({}).namespace == "shop"
    assert Settings.from_env({"CB_NAMESPACE": "other"}).namespace == "other"
