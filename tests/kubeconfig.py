"""Kubeconfig files that only a test would write: any server, any way to log in."""

import json
from pathlib import Path
from typing import Any


def kubeconfig_with(path: Path, *, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    """With one context, which is the current one. JSON, which is YAML."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": "now", "context": {"cluster": "here", "user": "me"}}],
        "current-context": "now",
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
