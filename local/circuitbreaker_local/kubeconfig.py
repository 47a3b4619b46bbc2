"""Kubeconfig files: how kubectl, Kopf and kubernetes.aio find the API server and who they are there."""

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

NAME = "circuitbreaker-local"


@dataclass(frozen=True)
class Server:
    """An API server, and the certificate (PEM) of the authority that vouches for it."""

    url: str
    authority: str


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, in one step: a reader sees the old text or the new."""
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    beside.rename(path)


def write_kubeconfig(path: Path, server: Server, *, user: str, token: str, namespace: str = "default") -> None:
    """JSON, which is YAML: nothing to quote, and nothing to depend on."""
    authority = base64.b64encode(server.authority.encode()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": NAME, "cluster": {"server": server.url, "certificate-authority-data": authority}},
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": user, "namespace": namespace}}],
        "current-context": NAME,
    }
    write_private(path, json.dumps(config, indent=2) + "\n")


def authority_of(chain: str) -> str:
    """The last certificate of a PEM chain: the one that signed the others."""
    begin = "-----BEGIN CERTIFICATE-----"
    return begin + chain.rpartition(begin)[2]
