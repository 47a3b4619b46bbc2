"""Input that somebody hostile would send: seeded, so that a seed repeats a storm."""

import json
import random
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import redis

from circuitbreaker_contract.keys import BreakerKey, Keys
from tests.contract.layout import COUNTS_NAMES, STANDING_NAMES, raw_hash

LARGE = (0, 1, -1, 2**31, 2**53, 2**60, 2**63 - 1)
NUMBERS = (*map(float, LARGE), float("nan"), float("inf"), float("-inf"), -(2.0**60), 0.5, 1e300, 9e12, 1.8e12)
TEXTS = (
    "",
    "<script>alert(1)</script>",
    "a\nlevel=ERROR forged\r\n",
    '"}\n# HELP evil 1\nevil{x="1"} 1\n',
    "{shop/other}",
    "}:history",
    "\x1b[31mred\x00\x07",
    "\u202egnp.exe\u2028\u0000é漢字🔥",
    "%s %(name)s {0} {name} ${HOME} $(id)",
    "../../etc/passwd",
    "x" * 65_536,
    "ünï" * 20_000,
)
TIMES = (
    "0001-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-02-28T23:59:59.999999999Z",
    "2255-03-14T16:00:00Z",
    "2255-03-14T16:00:01Z",
)
STATES = ("Closed", "Open", "HalfOpen")
REPLACEMENTS = (b"", b"\xff\xfe\x00", b"nan", b"inf", b"-1", b"1e300", b"0x10", b"9" * 400, b"9" * 5_000, b"{}", b"[]")


class Target(NamedTuple):
    """A breaker to damage; `root` is its hash."""

    root: str
    key: BreakerKey
    keys: Keys


class Hostile:
    """A generator of bad input."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def one(self, *choices: Any) -> Any:
        return self.chance.choice(choices)

    def text(self, longest: int = 70_000) -> str:
        return str(self.chance.choice(TEXTS))[:longest]

    def some(self, fields: dict[str, Callable[[], Any]]) -> dict[str, Any]:
        """A random part of the fields."""
        return {name: make() for name, make in fields.items() if self.chance.random() < 0.5}

    # -- the API server

    def spec(self) -> dict[str, Any]:
        """Usually one that the API server takes."""
        whole = self.chance.randint
        spec = self.some(
            {
                "failureThreshold": lambda: self.one(1, 5, 1_000_000, whole(1, 100)),
                "recoveryTimeout": lambda: self.one("100ms", "24h", "1s", "1m30s", "99ms1ms", "1h1h1h1h"),
                "halfOpenLimit": lambda: whole(1, 1_000),
                "successThreshold": lambda: whole(1, 1_000),
                "probeTimeout": lambda: self.one("100ms", "1h", "1s"),
                "window": lambda: self.one({"calls": whole(1, 10_000)}, {"duration": self.one("1s", "1h")}),
                "failureRatePercent": lambda: whole(1, 100),
                "quorum": lambda: {"minReporters": whole(1, 1_000)},
                "mode": lambda: self.one("Enforce", "Enforce", "Observe"),
                "override": self.override,
                "backoff": lambda: {
                    "factor": whole(1, 10),
                    "max": self.one("24h", "100ms", "1m"),
                    "jitterPercent": whole(0, 50),
                },
            }
        )
        if self.chance.random() < 0.3:
            spec |= {"slowCallDuration": self.one("1ms", "1h"), "slowCallRatePercent": whole(1, 100)}
        return spec

    def override(self) -> dict[str, Any]:
        override = {"state": self.one("Open", "Closed"), "reason": self.text(256) or "x"}
        return override if self.chance.random() < 0.4 else override | {"until": self.one(*TIMES)}

    def annotations(self) -> dict[str, str]:
        names = ("circuitbreaker.dev/reset", "circuitbreaker.dev/last-handled-configuration", "circuitbreaker.dev/seen")
        return self.some(dict.fromkeys(names, self.text))

    def number(self) -> Any:
        return self.one(*(number for number in LARGE if number >= 0))

    def incarnation(self) -> int:
        return int(self.one(1, 1_800_000_000_000, 8_999_999_999_998, 2**53, 2**60))

    def entry(self) -> dict[str, Any]:
        moved = {"from": self.one("", *STATES), "to": self.one(*STATES), "at": self.one(*TIMES)}
        return moved | {"reason": self.text(256), "stateGeneration": self.number()}

    def condition(self, kind: str) -> dict[str, Any]:
        said = {"type": kind, "status": self.one("True", "False", "Unknown"), "message": self.text(1_024)}
        said |= {"reason": self.one("PolicyInForce", "InvalidSpec", "StoreConflict", "StoreUnavailable", "Forged")}
        return said | {"lastTransitionTime": self.one(*TIMES), "observedGeneration": self.number()}

    def status(self) -> dict[str, Any]:
        number, time = self.number, lambda: self.one(*TIMES)
        policy = {
            "window": lambda: self.one({"duration": self.text(32)}, {"calls": 1}, {}),
            "recoveryTimeout": lambda: self.text(32),
            "override": lambda: {"state": "Open", "until": self.text(40), "reason": self.text(256)},
            "backoff": lambda: {"max": self.text(32)},
        }
        shadow = {"state": lambda: self.one(*STATES), "since": time, "wouldHaveOpened": number, "notPermitted": number}
        kinds = ["Ready", "Healthy", "QuorumReachable", "Forged", "x/y"]
        return self.some(
            {
                "observedGeneration": number,
                "state": lambda: self.one(*STATES),
                "since": time,
                "reason": lambda: self.text(256),
                "message": lambda: self.text(1_024),
                "incarnation": self.incarnation,
                "stateGeneration": number,
                "catchUp": lambda: self.some(
                    {
                        "incarnation": self.incarnation,
                        "stateGeneration": number,
                        "skipped": lambda: self.one(1, 7, 2**53),
                    }
                ),
                "forced": lambda: self.one(True, False),
                "openUntil": time,
                "attempt": number,
                "consecutiveFailures": number,
                "window": lambda: self.some({"calls": number, "failures": number, "failureRatePercent": lambda: 33.3}),
                "totals": lambda: self.some({"successes": number, "late": number}),
                "reporters": number,
                "shadow": lambda: self.some(shadow),
                "lastReset": lambda: self.text(256),
                "trips": number,
                "transitions": lambda: [self.entry() for _ in range(self.chance.randint(0, 5))],
                "policy": lambda: self.some(policy),
                "conditions": lambda: [self.condition(kind) for kind in kinds[: self.chance.randint(0, 5)]],
            }
        )

    # -- Redis

    def damage(self, client: "redis.Redis", key: BreakerKey, keys: Keys) -> str:
        """Damages one thing of a breaker; says what."""
        kinds = (
            *(self._packed, self._packed, self._packed, self._field, self._field, self._policy),
            *(self._history, self._history, self._probes, self._window, self._type, self._reporter, self._shared),
            *(self._message, self._message),
        )
        kind = self.chance.choice(kinds)
        try:
            kind(client, Target(keys.breaker(key), key, keys))
        except redis.ResponseError:
            client.delete(*keys.of_breaker(key))  # an earlier damage gave it another type
        return kind.__name__.strip("_")

    def _packed(self, client: "redis.Redis", at: Target) -> None:
        part, names = self.one(("standing", STANDING_NAMES), ("counts", COUNTS_NAMES))
        raw = raw_hash(client, at.root).get(part.encode(), b"")
        doubles = list(struct.unpack(f"<{len(raw) // 8}d", raw[: len(raw) // 8 * 8]))
        if not doubles or self.chance.random() < 0.1:
            client.hset(at.root, part, self.one(*REPLACEMENTS))
            return
        for _ in range(self.chance.randint(1, 3)):
            doubles[self.chance.randrange(min(len(doubles), len(names)))] = self.one(*NUMBERS)
        client.hset(at.root, part, struct.pack(f"<{len(doubles)}d", *doubles) + raw[len(doubles) * 8 :])

    def _field(self, client: "redis.Redis", at: Target) -> None:
        names = raw_hash(client, at.root).keys() - {b"standing", b"counts", b"policy"}
        forged = ("t:Closed:Open:Forged", "t:Ajar:Open:Reset", "ms:Ajar", "probesGranted", "c:", "attempt", "lastReset")
        name = self.one(*sorted(names), *forged, "shadowState", "shadowSince", "resourceGeneration", "owner", "uid")
        client.hset(at.root, name, self.one(*REPLACEMENTS, self.text(), str(self.one(*LARGE))))

    def _policy(self, client: "redis.Redis", at: Target) -> None:
        text = (raw_hash(client, at.root).get(b"policy") or b"{}").decode(errors="replace")
        deep = "[" * 990 + "]" * 990
        changed = (
            text[:-1] + ',"new":' + deep + "}",
            text.replace("5", self.one("NaN", "1e999", "-5", "99999999999999999999")),
            text[:-1] + f',"overrideState":"Open","overrideUntil":0,"overrideReason":{json.dumps(self.text(900))}}}',
            text[:-1] + ',"mode":"Observe"}',
            self.text(),
            deep,
        )
        client.hset(at.root, "policy", self.one(*changed))
        if self.chance.random() < 0.7:
            client.hset(
                at.root, "standing", (raw_hash(client, at.root).get(b"standing") or b"")[:64] + struct.pack("<d", 7)
            )

    def _history(self, client: "redis.Redis", at: Target) -> None:
        number = lambda: self.one(*map(str, LARGE), "nan", "", "1e9", "9" * 400, "9" * 5_000, " 7 ", "1_0")  # noqa: E731
        entry = {
            "previous": self.one("", *STATES, "Ajar"),
            "state": self.one(*STATES, *STATES, "Ajar"),
            "reason": self.one("Forced", "FailureRate", "Reset", "Restored", self.text(300)),
            "forced": self.one("", "Open", "Closed"),
            "note": self.text(),
        }
        names = ("at", "incarnation", "generation", "attempt", "consecutiveFailures", "openUntil", "windowCalls")
        entry |= {name: self.one(number(), "1800000000000", "3") for name in (*names, "windowFailures", "windowSlow")}
        for name in list(entry):
            if self.chance.random() < 0.03:
                del entry[name]
        client.xadd(f"{at.root}:history", entry or {"x": "y"})

    def _probes(self, client: "redis.Redis", at: Target) -> None:
        scores = [number for number in NUMBERS if number == number]  # noqa: PLR0124 # Redis takes no NaN
        members = {self.text(2_000) + str(each): self.one(*scores) for each in range(self.chance.randint(1, 20))}
        client.zadd(f"{at.root}:probes", members)

    def _window(self, client: "redis.Redis", at: Target) -> None:
        name = f"{at.root}:window"
        client.delete(name)
        if self.chance.random() < 0.5:
            client.set(name, self.text())
        else:
            client.hset(name, self.one("1", "inf", "nan", self.text(99)), self.one("1:2:3", "9" * 99 + ":1:1", "x"))

    def _type(self, client: "redis.Redis", at: Target) -> None:
        name = self.chance.choice(at.keys.of_breaker(at.key))
        client.delete(name)
        self.one(lambda: client.set(name, self.text()), lambda: client.rpush(name, "x"), lambda: None)()

    def _reporter(self, client: "redis.Redis", at: Target) -> None:
        entry = self.one(struct.pack("<5d", *(self.one(*NUMBERS) for _ in range(5))), b"short")
        client.hset(at.root, "c:" + self.text(2_000), entry)

    def _shared(self, client: "redis.Redis", at: Target) -> None:
        client.hset(at.keys.states, self.one(str(at.key), self.text(), "a/b", "a/b/c"), self.text())

    def _message(self, client: "redis.Redis", at: Target) -> None:
        message = {
            "service": self.one(str(at.key), str(at.key), self.text(), 7, None, ["x"]),
            "state": self.one(*STATES, self.text(), None, {}),
            "retryAfterMs": self.one(0, -1, 1, 2**60, 10**400, 0.5, "1", None, True),
        }
        raw = json.dumps(self.one(message, message, message, [], 7, self.text(), {"service": {}}))
        client.publish(
            at.keys.updates, self.one(raw, raw, raw, raw[:-2], "[" * 4_000, b"\xff\xfe\x00", '{"service":' * 500)
        )
