"""What is refused, and in which words: the Lua and its twin say the same of any text that anybody may send."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuitbreaker_contract.errors import ContractError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.policy import BOUNDS
from tests.contract.stores import LuaStore, TwinStore

KEY = Keys().breaker(BreakerKey("demo", "payments"))
START_MS = 1_800_000_000_000
REQUIRED = {"failureThreshold": 3, "recoveryTimeoutMs": 1000, "halfOpenLimit": 2, "successThreshold": 1}
NEEDED = {**REQUIRED, "probeTimeoutMs": 1000}
WORDS = ("mode", "overrideState", "overrideUntil", "overrideReason", "unknown")

same = settings(
    max_examples=1_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
ids = st.text("aZ09_.:-é\n ", max_size=3) | st.just("x" * 65) | st.just("a")
wholes = st.sampled_from(
    ["0", "1", "2", "007", "-1", "1.0", "1e3", "0x1", "", " 1", "9007199254740991", "9" * 16, "1" * 17]
)
batches = st.text("SFLMINX019 ,\t", max_size=8) | st.sampled_from(
    ["S1 F2", "S1000001", " ".join(["S1"] * 257), "S1\x00"]
)
values = (
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 0, 1, 5, 100, 101, 2**31, 2**53, 1e300, 0.5, 3.0, -0.0])
    | st.sampled_from(["", "Open", "Closed", "HalfOpen", "Observe", "Enforce", "because", "a\nb", "é" * 600])
    | st.just([])
    | st.just(["Open"])
    | st.just({})
)
policies = st.dictionaries(st.sampled_from([*(bounds.name for bounds in BOUNDS.values()), *WORDS]), values, max_size=4)
resumes = st.dictionaries(
    st.sampled_from(["incarnation", "generation", "state", "since", "openUntil", "attempt", "forced", "lastReset"]),
    values,
    max_size=5,
)
texts = st.sampled_from(["", "{", "[]", "[1]", "1", '"x"', "null", " {}", "{} x", "nonsense"])


def answer(store: LuaStore | TwinStore, *parts: str | int) -> Any:
    try:
        reply = store.execute(*parts)
        return reply if parts[1] != "cb_observe" else "a snapshot"  # the differential test compares those
    except ContractError as error:
        return f"{error.prefix} {error}"


def agree(lua_store: LuaStore, *parts: str | int) -> None:
    """On a breaker that was just made, with the clock at its beginning."""
    lua_store.client.flushall()
    twin = TwinStore()
    for store in (twin, lua_store):
        store.set_clock(START_MS)
        answer(store, "FCALL", "cb_configure", 1, KEY, "o", "u", 1, json.dumps(NEEDED), 1)
    assert answer(twin, *parts) == answer(lua_store, *parts)
    assert answer(twin, "FCALL_RO", "cb_version", 0)[0] == 1
    found = [answer(store, "FCALL", "cb_tick", 1, KEY) for store in (twin, lua_store)]
    assert found[0] == found[1]


@same
@given(client=ids, seq=wholes, incarnation=wholes, generation=wholes, batch=batches)
def test_reports(lua_store: LuaStore, client: str, seq: str, incarnation: str, generation: str, batch: str) -> None:
    agree(lua_store, "FCALL", "cb_report", 1, KEY, client, seq, incarnation, generation, batch)


@same
@given(client=ids, lease=ids, incarnation=wholes, generation=wholes, outcome=st.sampled_from("SFLMINx") | st.just(""))
def test_probes(lua_store: LuaStore, client: str, lease: str, incarnation: str, generation: str, outcome: str) -> None:
    agree(lua_store, "FCALL", "cb_acquire", 1, KEY, client, lease)
    agree(lua_store, "FCALL", "cb_settle", 1, KEY, client, lease, incarnation, generation, outcome)


@same
@given(policy=policies.map(lambda some: json.dumps({**NEEDED, **some})) | texts)
def test_policies(lua_store: LuaStore, policy: str) -> None:
    agree(lua_store, "FCALL", "cb_configure", 1, KEY, "o", "u", 2, policy, 1)


@same
@given(owner=ids, uid=ids, generation=wholes, project=wholes, resume=resumes.map(json.dumps) | texts)
def test_definitions(lua_store: LuaStore, owner: str, uid: str, generation: str, project: str, resume: str) -> None:
    agree(lua_store, "FCALL", "cb_configure", 1, KEY, owner, uid, generation, json.dumps(NEEDED), project, resume)


@same
@given(key=st.text("c:{}/a-.A", max_size=10) | st.just("cb:{demo/payments}"), rest=st.lists(ids, max_size=3))
def test_calls(lua_store: LuaStore, key: str, rest: list[str]) -> None:
    for function in ("cb_tick", "cb_observe", "cb_reset", "cb_delete", "cb_acquire"):
        parts = ("FCALL_RO" if function == "cb_observe" else "FCALL", function, 1, key, *rest)
        agree(lua_store, *parts)
