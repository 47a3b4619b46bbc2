"""Names, policies and batches: what is refused is refused before it is sent."""

import pytest

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import ContractError, InvalidPolicyError, OwnershipError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.policy import BOUNDS, Bounds, Policy
from circuitbreaker_contract.protocol import ReplyError


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a/b", "a{b", "a" * 64, "a\n", "ä"])
def test_a_name_that_kubernetes_would_not_have_never_becomes_a_key(name: str) -> None:
    """Names are the only text from outside in a key."""
    with pytest.raises(ValueError, match="must be 1 to 63 of"):
        BreakerKey("demo", name)
    with pytest.raises(ValueError, match="must be 1 to 63 of"):
        BreakerKey(name, "payments")


def test_the_default_prefix_leaves_the_shared_names_bare() -> None:
    """Two installations with two prefixes share nothing."""
    key = BreakerKey("demo", "payments")
    assert Keys().breaker(key) == "cb:{demo/payments}"
    assert (Keys().states, Keys().updates) == ("circuit_breaker_states", "circuit_breaker_updates")
    other = Keys("team-a:")
    assert other.breaker(key) == "team-a:{demo/payments}"
    assert (other.states, other.updates) == ("team-a:circuit_breaker_states", "team-a:circuit_breaker_updates")


@pytest.mark.parametrize("prefix", ["", ":", "cb", "c{b:", "a b:", "x" * 64 + ":"])
def test_a_prefix_that_could_break_keys_is_refused(prefix: str) -> None:
    """A prefix has no braces, since they choose the slot."""
    with pytest.raises(ValueError, match="key prefix"):
        Keys(prefix)


@pytest.mark.parametrize(
    ("key", "parsed"),
    [
        ("cb:{demo/payments}", BreakerKey("demo", "payments")),
        ("cb:{demo/payments}:window", None),
        ("cb:{demo}", None),
        ("x:{demo/payments}", None),
        ("cb:{demo/Payments}", None),
        ("cb:{a/b/c}", None),
    ],
)
def test_only_a_breakers_own_key_is_parsed(key: str, parsed: BreakerKey | None) -> None:
    """What SCAN brings may be anybody's."""
    assert parsed == Keys().parse(key)


NEEDED = {bounds.name: max(1, bounds.low) for bounds in BOUNDS.values() if bounds.required}
# What a field needs beside it, so that its own bounds are what is tested.
BESIDE = {
    "minimumCalls": {"windowCalls": 10_000},
    "slowCallDurationMs": {"slowCallRatePercent": 50},
    "slowCallRatePercent": {"slowCallDurationMs": 1_000},
    "backoffFactor": {"backoffMaxMs": 86_400_000},
    "backoffMaxMs": {"backoffFactor": 2},
    "jitterPercent": {"backoffFactor": 2, "backoffMaxMs": 86_400_000},
    "failureThreshold": {"failureRatePercent": 50},
}


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
def test_a_policy_holds_its_bounds(bounds: Bounds) -> None:
    """The lowest and highest values are in and survive the text; the next ones are out, and so is any other type.

    JSON has one kind of number, so 3.0 is 3, as it is to the Lua.
    """
    fine = {**NEEDED, **BESIDE.get(bounds.name, {})}
    for value in (bounds.low, bounds.high, float(bounds.high)):
        policy = Policy.from_mapping({**fine, bounds.name: value})
        assert Policy.from_json(policy.to_json()) == policy
    for value in (bounds.low - 1, bounds.high + 1, bounds.high - 0.5, True, "5"):
        with pytest.raises(InvalidPolicyError, match=f"{bounds.name}: must be a whole number from {bounds.low} to "):
            Policy.from_mapping({**fine, bounds.name: value})


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"windowCalls": 5, "windowMs": 5000}, "windowCalls: set only one of windowCalls and windowMs"),
        ({"windowCalls": 5, "minimumCalls": 6}, "minimumCalls: must not be larger than windowCalls"),
        ({"failureThreshold": 0}, "failureThreshold: 0 turns off the only rule"),
        ({"slowCallDurationMs": 5}, "slowCallDurationMs: set slowCallDurationMs and slowCallRatePercent together"),
        ({"slowCallRatePercent": 5}, "slowCallDurationMs: set slowCallDurationMs and slowCallRatePercent together"),
        ({"backoffFactor": 5}, "backoffFactor: set backoffFactor and backoffMaxMs together"),
        ({"backoffMaxMs": 500}, "backoffFactor: set backoffFactor and backoffMaxMs together"),
        ({"jitterPercent": 5}, "jitterPercent: set backoffFactor as well"),
        ({"recoveryTimeoutMs": 200, "backoffFactor": 2, "backoffMaxMs": 199}, "backoffMaxMs: must not be shorter than"),
        ({"mode": "Watch"}, "mode: must be Enforce or Observe"),
        ({"overrideReason": "x"}, "overrideState: missing"),
        ({"overrideState": "HalfOpen", "overrideReason": "x"}, "overrideState: must be Open or Closed"),
        ({"overrideState": "Open"}, "overrideReason: must be 1 to 1024 bytes without control characters"),
        ({"overrideState": "Open", "overrideReason": "a\nb"}, "overrideReason: must be 1 to 1024 bytes"),
        (
            {"overrideState": "Open", "overrideReason": "x", "overrideUntil": -1},
            "overrideUntil: must be a whole number",
        ),
        ({"overrideState": "Open", "overrideReason": "x", "mode": "Observe"}, "overrideState: Open refuses calls"),
        ({"colour": 5}, "a field that this version does not know: colour"),
    ],
)
def test_what_contradicts_itself_is_refused(fields: dict, wrong: str) -> None:
    """The text names the field and the fix."""
    with pytest.raises(InvalidPolicyError, match=wrong):
        Policy.from_mapping({**NEEDED, **fields})


@pytest.mark.parametrize("text", ["", "[]", "7", "{", '{"failureThreshold":1}'])
def test_a_text_that_is_no_policy_is_refused(text: str) -> None:
    """What comes back from Redis is as untrusted as what users send."""
    with pytest.raises(InvalidPolicyError):
        Policy.from_json(text)


def test_a_batch_says_what_is_wrong_with_it() -> None:
    """The client's mistake is caught in the client."""
    assert protocol.encode_batch([("S", 120), ("F", 1)]) == "S120 F1"
    for runs in ([], [("S", 0)], [("S", 1_000_001)], [("X", 1)], [("S", 1)] * 257):
        with pytest.raises(ValueError, match=r"run|a batch has"):
            protocol.encode_batch(runs)


@pytest.mark.parametrize("reply", [None, [], ["Closed"], ["Ajar", 1, 1, 1, 0], [b"\xff", 1, 1, 1, 0], "Closed"])
def test_a_reply_of_another_form_is_an_error(reply: object) -> None:
    """A damaged or foreign reply never becomes a state."""
    call = protocol.report("k", client="c", seq=1, order=(1, 1), batch=[("S", 1)])
    with pytest.raises(ReplyError, match="cb_report replied outside the contract"):
        call.read(reply)


def test_error_replies_become_exceptions() -> None:
    """Only the prefixes of the contract do; other errors of Redis stay what they were."""
    error = ContractError.from_reply("CBOWNER the breaker belongs to owner x")
    assert isinstance(error, OwnershipError)
    assert str(error) == "the breaker belongs to owner x"
    assert ContractError.from_reply("ERR Function not found") is None
