"""The API server's own audit log as a witness: every request of one user, with its answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# RequestReceived says nothing more; of a watch the answer begins long before it is complete.
POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"


class Right(NamedTuple):
    """One rule, taken apart. `name` is "" where any will do."""

    group: str
    resource: str
    verb: str
    name: str = ""


@dataclass(frozen=True)
class Request:
    """A request of the operator, as the audit log has it."""

    right: Right
    namespace: str
    code: int
    path: str


class Audit:
    """What `user` asked of the API server that is given `arguments`; `begin` forgets what came before."""

    def __init__(self, folder: Path, user: str) -> None:
        policy = folder / "policy.yaml"
        policy.write_text(POLICY, encoding="utf-8")
        self._path, self._user, self._from = folder / "audit.log", user, 0
        self.arguments = (f"--audit-policy-file={policy}", f"--audit-log-path={self._path}")

    def begin(self) -> None:
        self._from = self._path.stat().st_size

    def requests(self) -> list[Request]:
        with self._path.open("rb") as log:
            log.seek(self._from)
            lines = [line for line in log.read().splitlines(keepends=True) if line.endswith(b"\n")]
        entries = (json.loads(line) for line in lines)
        return [_request(entry) for entry in entries if entry["user"]["username"] == self._user]


def _request(entry: Mapping[str, Any]) -> Request:
    about = entry.get("objectRef") or {}
    resource = "/".join(filter(None, (about.get("resource", ""), about.get("subresource", ""))))
    right = Right(about.get("apiGroup", ""), resource, entry["verb"], about.get("name", ""))
    code = (entry.get("responseStatus") or {}).get("code", 0)
    return Request(right, about.get("namespace", ""), code, entry["requestURI"])
