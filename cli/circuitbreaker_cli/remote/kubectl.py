"""The API server, by kubectl: each call is one process of it, with the user's own contexts and logins."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.errors import CommandError, ConflictError, KubectlError
from circuitbreaker_cli.words import safe
from circuitbreaker_operator.resource import GROUP, PLURAL

RESOURCE: Final = f"{PLURAL}.{GROUP}"
MANAGER: Final = "kubectl-breaker"  # the field manager of what is written here: Events and managedFields name it
_LOGGED: Final = re.compile(r"[EFIW]\d{4} \d{2}:\d{2}:\d{2}")  # a line of Kubernetes' logger
_CONFLICT: Final = "Error from server (Conflict)"
_SECONDS: Final = 60.0  # for one call; kubectl itself would wait for ever


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Which cluster and namespace, as kubectl's own flags say it; "" leaves it to the kubeconfig."""

    context: str = ""
    namespace: str = ""
    kubeconfig: str = ""
    all_namespaces: bool = False

    def command(self, *arguments: str) -> list[str]:
        """The whole command line."""
        program = shutil.which("kubectl")
        if program is None:
            raise CommandError("there is no kubectl on the PATH; this is a plugin of it and needs it")
        flags = [
            f"--{name}={value}" for name, value in (("kubeconfig", self.kubeconfig), ("context", self.context)) if value
        ]
        if self.namespace and not self.all_namespaces:
            flags.append(f"--namespace={self.namespace}")
        return [program, *flags, *arguments]

    def run(self, *arguments: str, stdin: str | None = None, seconds: float = _SECONDS) -> str:
        """What kubectl prints; raises KubectlError with what it complains about."""
        try:
            done = subprocess.run(  # noqa: S603 # no shell; the arguments are one each
                self.command(*arguments),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl gave no answer within {seconds:.0f} s") from None
        if done.returncode != 0:
            said = complaint(done.stderr)
            raise ConflictError(said) if _CONFLICT in said else KubectlError(said)
        return done.stdout

    def read(self, *arguments: str, seconds: float = _SECONDS) -> dict[str, Any]:
        """The object that kubectl prints as JSON."""
        text = self.run(*arguments, "--output=json", seconds=seconds)
        try:
            found = json.loads(text)
        except ValueError as error:
            raise KubectlError(f"kubectl printed something that is no JSON: {error}") from error
        return found if isinstance(found, dict) else {}

    def breakers(self, *, selector: str = "") -> list[View]:
        """All of the namespace, or of all."""
        scope = ["--all-namespaces"] if self.all_namespaces else []
        chosen = [f"--selector={selector}"] if selector else []
        return [View(each) for each in self.read("get", RESOURCE, *scope, *chosen).get("items") or []]

    def breaker(self, name: str, *, seconds: float = _SECONDS) -> View:
        """One, with who wrote which field."""
        return View(self.read("get", RESOURCE, checked_name(name), "--show-managed-fields", seconds=seconds))

    def patch(self, view: View, body: Mapping[str, Any], *, dry_run: bool = False, exact: bool = False) -> View:
        """Writes, or asks the API server whether it would take it. A breaker made anew meanwhile is left alone.

        With `exact` so is one that anybody wrote since; raises ConflictError.
        """
        version = {"resourceVersion": view.resource_version} if exact else {}
        text = json.dumps({**body, "metadata": {**body.get("metadata", {}), "uid": view.uid, **version}})
        flags = ["--type=merge", f"--field-manager={MANAGER}", f"--namespace={view.namespace}", "--show-managed-fields"]
        dry = ["--dry-run=server"] if dry_run else []
        return View(self.read("patch", RESOURCE, checked_name(view.name), *flags, *dry, f"--patch={text}"))


def complaint(stderr: str) -> str:
    """What kubectl said, each line safe to print; its log of each try only where it says nothing else."""
    said = [safe(line) for line in stderr.splitlines() if line.strip()]
    lines = [line for line in said if not _LOGGED.match(line)] or said
    return "\n".join(lines[-20:]) or "kubectl failed and did not say why"


def checked_name(name: str) -> str:
    """The name itself, which kubectl must not take for a flag or for another kind of resource."""
    bare = name.removeprefix(f"{PLURAL[:-1]}.{GROUP}/").removeprefix("breaker/")
    if not bare or bare.startswith("-") or "/" in bare:
        raise CommandError(f"{safe(name)!r} is no name of a breaker")
    return bare
