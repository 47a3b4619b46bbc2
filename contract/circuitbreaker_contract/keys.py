"""Names of keys and channels. One breaker, one hash tag, so one slot of a Redis Cluster."""

import re
from dataclasses import dataclass
from functools import lru_cache

DEFAULT_PREFIX = "cb:"
PREFIX_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}:")
NAME_FORM = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_KEY_FORM = re.compile(r"(?P<prefix>[^{}]*)\{(?P<namespace>[^{}/]+)/(?P<name>[^{}/]+)\}")


@dataclass(frozen=True, slots=True, order=True)
class BreakerKey:
    """A breaker's name: the namespace and name of its resource. Both obey Kubernetes' rules, at most 63 characters.

    Raises ValueError for any other name, so that no text from outside ever becomes part of a key.
    """

    namespace: str
    name: str

    def __post_init__(self) -> None:
        for what, text in (("namespace", self.namespace), ("name", self.name)):
            if not NAME_FORM.fullmatch(text):
                raise ValueError(
                    f"{what} {text!r}: must be 1 to 63 of a-z, 0-9, '-' and '.', "
                    "beginning and ending with a letter or digit"
                )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> "BreakerKey":
        """The key written as `namespace/name`; raises ValueError for another form."""
        namespace, _, name = text.partition("/")
        return cls.of(namespace, name)

    @classmethod
    @lru_cache(maxsize=32_768)
    def of(cls, namespace: str, name: str) -> "BreakerKey":
        """The key of these names; of thousands that are read again and again none is checked and made anew."""
        return cls(namespace, name)


@dataclass(frozen=True, slots=True)
class Keys:
    """Every name in Redis under one prefix. Another prefix than `cb:` also stands before the two shared names."""

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not PREFIX_FORM.fullmatch(self.prefix):
            raise ValueError(
                f"key prefix {self.prefix!r}: must be 2 to 64 of A-Z, a-z, 0-9 and '_.:-', ending with ':'"
            )

    @property
    def states(self) -> str:
        """The shared hash: field `namespace/name`, value the state. Advisory."""
        return self._shared("circuit_breaker_states")

    @property
    def updates(self) -> str:
        """The shared channel: one JSON message for each change. Advisory."""
        return self._shared("circuit_breaker_updates")

    def updates_of(self, namespace: str) -> str:
        """The channel of one namespace's changes, for applications that may not hear the shared one. Advisory."""
        return f"{self.updates}:{namespace}"

    @property
    def deferred(self) -> str:
        """The operator's own: which of its installations has put off Events, and since which incarnation."""
        return f"{self.prefix}{{operator}}:deferred"

    def breaker(self, key: BreakerKey) -> str:
        """The breaker's hash, and the name from which its other keys derive."""
        return f"{self.prefix}{{{key}}}"

    def history(self, key: BreakerKey) -> str:
        return f"{self.breaker(key)}:history"

    def of_breaker(self, key: BreakerKey) -> tuple[str, ...]:
        """Every key that the breaker can have."""
        root = self.breaker(key)
        return (root, *(f"{root}:{part}" for part in ("window", "probes", "reporters", "history")))

    @property
    def breakers_pattern(self) -> str:
        """A SCAN pattern that matches each breaker's hash (and nothing that `parse` accepts besides)."""
        return f"{self.prefix}{{*}}"

    def parse(self, key: str) -> BreakerKey | None:
        """The breaker whose hash is at `key`; None for a key of anything else."""
        match = _KEY_FORM.fullmatch(key)
        if match is None or match["prefix"] != self.prefix:
            return None
        try:
            return BreakerKey.of(match["namespace"], match["name"])
        except ValueError:
            return None

    def _shared(self, name: str) -> str:
        return name if self.prefix == DEFAULT_PREFIX else self.prefix + name
