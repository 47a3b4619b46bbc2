"""A Lease of coordination.k8s.io/v1 as values: what one says, and the body that takes, renews or releases it. Pure.

Bodies are made from the object that was read: its resourceVersion makes the write fail when somebody was faster, and
labels and annotations of others stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

API_VERSION = "coordination.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Lease:
    """One as it was read. `renewed` is a time of the holder's clock: it is only ever compared with itself."""

    holder: str
    renewed: str
    duration_seconds: int
    transitions: int
    body: Mapping[str, Any] = field(compare=False)  # the same holder, duration and renewal: nothing was renewed

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        spec = body.get("spec") or {}
        return cls(
            holder=str(spec.get("holderIdentity") or ""),
            renewed=str(spec.get("renewTime") or ""),
            duration_seconds=int(spec.get("leaseDurationSeconds") or 0),
            transitions=int(spec.get("leaseTransitions") or 0),
            body=body,
        )


def taken(lease: Lease | None, *, namespace: str, name: str, holder: str, seconds: int, at: str) -> dict[str, Any]:
    """The body that makes `holder` the holder; of None the first one."""
    metadata = {"namespace": namespace, "name": name} if lease is None else lease.body["metadata"]
    transitions = 0 if lease is None else lease.transitions + 1
    return _body(metadata, {"holderIdentity": holder, "acquireTime": at, "leaseTransitions": transitions}, seconds, at)


def renewed(lease: Lease, *, seconds: int, at: str) -> dict[str, Any]:
    return _body(lease.body["metadata"], lease.body["spec"], seconds, at)


def released(lease: Lease, *, at: str) -> dict[str, Any]:
    """Nobody's, at once: as client-go leaves one that it gives back."""
    return _body(lease.body["metadata"], {**lease.body["spec"], "holderIdentity": ""}, 1, at)


def _body(metadata: Mapping[str, Any], spec: Mapping[str, Any], seconds: int, at: str) -> dict[str, Any]:
    kept = {name: value for name, value in metadata.items() if name != "managedFields"}
    spec = {**spec, "leaseDurationSeconds": seconds, "renewTime": at}
    return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": kept, "spec": spec}
