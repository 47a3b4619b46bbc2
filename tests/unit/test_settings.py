"""The environment: what it may say, and what a person reads who said it wrong."""

import re
from pathlib import Path

import pytest

from circuitbreaker_client import settings as client_settings
from circuitbreaker_operator.app import lease_namespace
from circuitbreaker_operator.errors import SettingsError
from circuitbreaker_operator.settings import Settings, table, unknown_variables

GOOD = {
    "bare seconds": ("CB_RECOVERY_TIMEOUT", "30", "recovery_timeout_ms", 30_000),
    "a duration": ("CB_RECOVERY_TIMEOUT", "1m30s", "recovery_timeout_ms", 90_000),
    "no refresh": ("CB_STATUS_REFRESH", "0", "status_refresh_ms", 0),
    "no namespaces are all": ("CB_NAMESPACES", "", "namespaces", ()),
    "namespaces": ("CB_NAMESPACES", "shop, bank,", "namespaces", ("shop", "bank")),
    "off": ("CB_METRICS_PER_BREAKER", "off", "metrics_per_breaker", False),
    "No": ("CB_METRICS_PER_BREAKER", "No", "metrics_per_breaker", False),
    "0": ("CB_METRICS_PER_BREAKER", "0", "metrics_per_breaker", False),
    "yes": ("CB_METRICS_PER_BREAKER", "yes", "metrics_per_breaker", True),
    "empty is not set": ("CB_SUCCESS_THRESHOLD", "", "success_threshold", None),
}


@pytest.mark.parametrize(("variable", "text", "field", "value"), GOOD.values(), ids=GOOD)
def test_what_is_understood(monkeypatch, variable: str, text: str, field: str, value: object) -> None:
    """Durations, lists and booleans as people write them."""
    monkeypatch.setenv(variable, text)
    assert getattr(Settings.load(), field) == value


BAD = {
    "CB_METRICS_PER_BREAKER": ("perhaps", "must be one of true, 1, yes, on, false, 0, no, off (it is 'perhaps')"),
    "CB_RECOVERY_TIMEOUT": ("25h", "must be from 100ms to 24h (it is '25h')"),
    "CB_HALF_OPEN_LIMIT": ("1001", "must be less than or equal to 1000 (it is '1001')"),
    "CB_SUCCESS_THRESHOLD": ("0", "must be greater than or equal to 1 (it is '0')"),
    "CB_PROBE_TIMEOUT": ("soon", "'soon' is neither a duration like 30s, 1m30s or 500ms nor a whole number of seconds"),
    "CB_FAILURE_THRESHOLD": ("0", "must be greater than or equal to 1 (it is '0')"),
    "CB_NAMESPACES": ("shop,Bank", "'Bank' is no name of a namespace"),
    "CB_KEY_PREFIX": ("{x}:", "key prefix '{x}:': must be 2 to 64 of"),
    "CB_OWNER": ("me and you", "must be 1 to 64 of A-Z, a-z, 0-9 and '_.:-'"),
    "CB_HTTP_PORT": ("eighty", "must be a valid integer"),
    "CB_REDIS_PASSWORD_FILE": ("/nonexistent/password", "no file at /nonexistent/password"),
}


@pytest.mark.parametrize(("variable", "text", "complaint"), [(name, *rest) for name, rest in BAD.items()], ids=BAD)
def test_what_is_wrong_is_named(monkeypatch, variable: str, text: str, complaint: str) -> None:
    """The variable, what was found, what would be right: one line."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(SettingsError) as raised:
        Settings.load()
    assert str(raised.value).startswith(f"{variable}: {complaint}")
    assert "\n" not in str(raised.value)


BAD_URLS = {
    "another scheme": "http://redis:6379",
    "a port out of range": "redis://redis:70000/0",
    "port 0": "redis://redis:0",
    "a port in words": "redis://redis:hunter2/0",
    "a slash in a password": "redis://user:hunter2/x@redis:6379/0",
    "a database in words": "redis://redis:6379/hunter2",
    "brackets without end": "redis://[hunter2:6379/0",
    "options": "redis://redis:6379/0?password=hunter2",
    "several hosts": "redis://hunter2,redis:6379",
    "no host": "redis://user:hunter2@/0",
}


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
def test_urls_of_redis_that_cannot_be(monkeypatch, url: str) -> None:
    """Found before the first connection, and without a word of the URL, which may have a password."""
    monkeypatch.setenv("CB_REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"\ACB_REDIS_URL: must look like redis://host:6379/0.*\Z") as raised:
        Settings.load()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("url", ["redis://redis", "redis://redis:6379/", "rediss://[::1]:6380/15"])
def test_urls_of_redis(monkeypatch, url: str) -> None:
    """Port and database may be left out."""
    monkeypatch.setenv("CB_REDIS_URL", url)
    assert Settings.load().redis_url.get_secret_value() == url


def test_every_wrong_variable_has_its_line(monkeypatch) -> None:
    """All at once, so that one attempt is enough to put them right."""
    monkeypatch.setenv("CB_HTTP_PORT", "x")
    monkeypatch.setenv("CB_LOG_FORMAT", "xml")
    with pytest.raises(SettingsError) as raised:
        Settings.load()
    assert [line.partition(":")[0] for line in str(raised.value).splitlines()] == ["CB_HTTP_PORT", "CB_LOG_FORMAT"]


def test_a_password_is_never_said(monkeypatch) -> None:
    """Neither by a complaint, nor by printing the settings, nor as the address for the log."""
    monkeypatch.setenv("CB_REDIS_URL", "https://user:hunter2@redis:6379")
    with pytest.raises(SettingsError) as raised:
        Settings.load()
    monkeypatch.setenv("CB_REDIS_URL", "rediss://user:hunter2@redis:6380/1")
    settings = Settings.load()
    assert settings.redis_address == "rediss://redis:6380/1"
    assert "hunter2" not in str(raised.value) + repr(settings)


def test_names_that_nobody_reads_are_said() -> None:
    """A typing error shows; a variable of another part of the product is none."""
    environment = {"CB_FAILURE_TRESHOLD": "1", "CB_NAMESPACE": "shop", "CB_STATE_SYNC": "1", "CB_XYZ": "", "PATH": ""}
    assert unknown_variables(environment) == [
        "CB_FAILURE_TRESHOLD is not a setting; CB_FAILURE_THRESHOLD is",
        "CB_XYZ is not a setting",
    ]


def test_what_the_client_reads_is_no_mistake() -> None:
    """Operator and services may share one set of variables."""
    read = set(re.findall(r'"(CB_[A-Z_]+)"', Path(client_settings.__file__).read_text(encoding="utf-8")))
    assert {"CB_STRICT", "CB_MAX_BREAKERS"} <= read
    assert unknown_variables(dict.fromkeys(read, "")) == []


def test_every_setting_is_explained() -> None:
    """What `--help` prints, with defaults as one would write them."""
    rows = {variable: (default, text) for variable, default, text in table()}
    assert all(text for _, text in rows.values())
    assert [rows[name][0] for name in ("CB_RECOVERY_TIMEOUT", "CB_STATUS_QPS", "CB_METRICS_PER_BREAKER")] == [
        "30s",
        "100.0",
        "true",
    ]


@pytest.mark.parametrize(
    ("variables", "complaint"),
    {
        "deadline": ({"CB_LEASE_DURATION": "10s"}, "CB_LEASE_RENEW_DEADLINE: must be shorter than CB_LEASE_DURATION"),
        "retry": ({"CB_LEASE_RETRY": "6s"}, "CB_LEASE_RETRY: must be at most half of CB_LEASE_RENEW_DEADLINE"),
        "whole": ({"CB_LEASE_DURATION": "15500ms"}, "CB_LEASE_DURATION: must be whole seconds, as a Lease has them"),
        "word": ({"CB_LEADER_ELECTION": "perhaps"}, "CB_LEADER_ELECTION: must be auto, true or false"),
        "name": ({"CB_LEASE_NAME": "a/b"}, "CB_LEASE_NAME: must be a name as Kubernetes has them"),
    }.values(),
)
def test_leases_that_cannot_be(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], complaint: str) -> None:
    """A leader stops before another one may start, and has tried more than once."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=complaint):
        Settings.load()


def test_where_the_lease_is(tmp_path: Path) -> None:
    """In a pod there is an election unless it is refused; elsewhere only when it is asked for."""
    pod, nowhere = tmp_path / "namespace", tmp_path / "missing"
    pod.write_text("breakers\n")
    assert lease_namespace(Settings.load(), pod) == "breakers"
    assert lease_namespace(Settings.load(), nowhere) is None
    assert lease_namespace(Settings.load(leader_election="no"), pod) is None
    assert lease_namespace(Settings.load(leader_election="yes", lease_namespace="other"), nowhere) == "other"
    with pytest.raises(SettingsError, match="CB_LEASE_NAMESPACE"):
        lease_namespace(Settings.load(leader_election="on"), nowhere)
