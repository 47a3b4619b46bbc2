"""The demo's steps. Each shows something and checks that it happened; the first that did not ends the demo."""

import http.client
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import redis

from circuitbreaker_local.binaries import control_plane_binaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.demo.screen import Follower, Screen
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.processes import Process, free_port
from circuitbreaker_local.progress import Report
from circuitbreaker_local.redis_server import RedisServer, find_redis_server

ROOT = Path(__file__).parents[3]
FLEET = 3
STEP_SECONDS = 30.0  # how long a step may take before it counts as not having happened
NOTICE_SECONDS = 0.5  # a connection breaks a moment before its other end counts as ended
METRICS = r'^circuitbreaker_(state|(transitions|calls|not_permitted)_total)\{.*"payments"'  # for grep -E and for re


class DemoError(Exception):
    """What a step shows did not happen; the text begins with the step's name."""


class PartEndedError(DemoError):
    """A part is no longer there; the text says which, how, and what it said last."""


FAILURES = (LocalError, OSError, http.client.HTTPException, redis.RedisError, KeyError, ValueError)


class Story:
    """Everything that runs, and the steps in order. Enter it, then `tell`; leaving it ends all that it started."""

    def __init__(self, screen: Screen, report: Report) -> None:
        self.screen, self.report = screen, report
        self._running = ExitStack()
        self.parts: list[Process] = []  # a part comes after those whose end would end it
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def tell(self) -> None:
        """All steps. Raises DemoError."""
        self._start_parts()
        self._start_operator()
        self._apply()
        self._start_fleet()
        self._break_backend()
        self._heal_backend()
        self._look_back()
        self._show_page_and_plugin()

    def hold(self) -> None:
        """Says where everything is, and keeps it running until Ctrl-C."""
        say = self.screen.say
        self.screen.step(self._number + 1, "Yours to play with (Ctrl-C ends everything and removes what it kept)")
        say(f"the page  {self.page}")
        say(f"break it  curl -X POST http://{self.backend}/mood/failing")
        say(f"heal it   curl -X POST http://{self.backend}/mood/ok")
        say(f"metrics   {self.page}metrics")
        say("")
        say("In another terminal:")
        say("")
        say(f"export KUBECONFIG={shlex.quote(str(self.plane.kubeconfig))}")
        say(f"export PATH={':'.join(shlex.quote(str(folder)) for folder in self._programs())}:$PATH")
        for line in (
            "kubectl breaker list",
            "kubectl breaker explain payments",
            "kubectl breaker trip payments --reason 'trying it' --for 1m --yes",
            "kubectl breaker release payments --yes",
            "kubectl get circuitbreakers --watch",
            f"redis-cli -u {self.redis.url} HGETALL circuit_breaker_states",
        ):
            self.screen.command(line)
        while True:
            self._check_parts()
            self._say_new_lines()
            time.sleep(0.2)  # the pace at which lines appear

    # --- steps

    def _start_parts(self) -> None:
        with self._step("A Kubernetes API and a Redis, on this machine"):
            server = find_redis_server(self.report)  # first: whoever cannot have one should not wait for a build before
            self.binaries = control_plane_binaries(self.report)
            self.plane = self._running.enter_context(ControlPlane(self.binaries))
            self.parts += (self.plane.etcd.process, self.plane.api_server.process)
            self.redis = self._running.enter_context(RedisServer(server))
            self.parts.append(self.redis.process)
            self.screen.say(f"kube-apiserver with etcd, and {server.name}, run in {self.plane.folder}.")

    def _start_operator(self) -> None:
        with self._step("The operator"):
            self.plane.apply(ROOT / "crds" / "circuitbreakers.yaml")
            self.plane.until_served("circuitbreakers.circuitbreaker.dev")
            self.http_port = free_port()
            command = Path(sys.executable).with_name("circuitbreaker-operator")
            environment = {"CB_REDIS_URL": self.redis.url, "CB_HTTP_HOST": "127.0.0.1"}
            environment |= {"CB_HTTP_PORT": str(self.http_port), "KUBECONFIG": str(self.plane.kubeconfig)}
            self.operator = self._process("operator", [command, "run"], environment)
            self._until(lambda: self._get("/readyz") is not None, "the operator is ready", self.operator)
            self.screen.say("It watches CircuitBreaker resources and has loaded the breaker functions into Redis.")

    def _apply(self) -> None:
        with self._step("Two breakers, declared"):
            samples = ROOT / "manifests" / "samples"
            self._kubectl("apply", "-f", "manifests/samples", shown=samples)
            self._kubectl("wait", "--for=condition=Ready", "circuitbreakers", "--all", "--timeout=20s", quiet=True)
            self._kubectl("get", "circuitbreakers")
            self.screen.say(
                "Ready: the specs are in force in Redis. payments opens after 5 failures in a row, for 5 s."
            )

    def _start_fleet(self) -> None:
        with self._step(f"A service: {FLEET} processes that call a backend through the breaker `payments`"):
            port = free_port()
            self.backend = f"127.0.0.1:{port}"
            module = "circuitbreaker_local.demo"
            backend = self._process("backend", [sys.executable, "-m", f"{module}.backend", str(port)])
            self._until(lambda: self._mood("ok"), "the backend answers", backend)
            self.followers = []
            for number in range(1, FLEET + 1):
                name = f"service-{number}"
                command = [sys.executable, "-m", f"{module}.service", name, "default/payments", self.backend]
                process = self._process(name, command, {"CB_REDIS_URL": self.redis.url})
                self.followers.append(Follower(process.log))
            self._until_everyone_says("the breaker is Closed")
            self._until(lambda: self._total("successes") >= 20, "twenty calls have been counted", process)
            self.screen.say(f"{self._total('successes')} calls counted so far; Redis sees batches, not calls.")
            self.screen.command("kubectl get circuitbreakers payments --watch")
            arguments = ["get", "circuitbreakers", "payments", "--watch"]
            watch = self._process("watch", [self.binaries.kubectl, *self.plane.kubectl_flags(), *arguments])
            self.table = Follower(watch.log)
            self._until(lambda: bool(self.table.lines), "the table appears", watch)

    def _break_backend(self) -> None:
        with self._step("The backend fails"):
            self.screen.say(
                "Each process sees a few failures; together they are 5 in a row, and all of them stop calling."
            )
            self._mood("failing")
            self._until_everyone_says("the breaker is Open")
            self._until_table_says("Open")
            served = self._served()
            self.screen.command(f"redis-cli -u {self.redis.url} HGET circuit_breaker_states default/payments")
            with redis.Redis.from_url(self.redis.url, decode_responses=True) as client:
                shown = str(client.hget("circuit_breaker_states", "default/payments"))
            self.screen.output(shown)
            self._check(shown == "Open", f"the states hash says {shown}, not Open")
            before = self._total("notPermitted")
            self._until(lambda: self._total("notPermitted") >= before + 30, "refused calls are counted", self.operator)
            refused = self._total("notPermitted")
            self._check(self._served() == served, "calls reached the backend while the breaker was Open")
            self.screen.say(
                f"{refused} calls refused so far, by the processes themselves; the backend saw none of them."
            )

    def _heal_backend(self) -> None:
        with self._step("The backend comes back, slowly at first"):
            self.screen.say("When 5 s are over the breaker is HalfOpen: one probe at a time; 3 good ones close it.")
            self._mood("slow")
            self._until_table_says("HalfOpen")
            self._until_table_says("Closed")
            self._mood("ok")
            self._until_everyone_says("the breaker is Closed")
            states = [line.split()[1] for line in self.table.lines if line.startswith("payments ")]
            story = [state for state, before in zip(states, ["", *states], strict=False) if state != before]
            self._check(story == ["Closed", "Open", "HalfOpen", "Closed"], f"the table told another story: {story}")

    def _look_back(self) -> None:
        with self._step("What remains to be seen"):
            columns = "custom-columns=TYPE:.type,REASON:.reason,MESSAGE:.message"
            ours = ("--field-selector", "involvedObject.name=payments")
            events = ("get", "events", *ours, "--sort-by=.metadata.creationTimestamp", "-o", columns)
            wanted = ("CircuitOpened", "CircuitHalfOpen", "CircuitClosed")
            self._until(
                lambda: all(reason in self.plane.kubectl(*events) for reason in wanted),
                "the Events are there",
                self.operator,
            )
            self._kubectl(*events)
            self.screen.command(f"curl -s http://127.0.0.1:{self.http_port}/metrics | grep -E '{METRICS}'")
            lines = [line for line in self._read("/metrics").splitlines() if re.search(METRICS, line)]
            self.screen.output("\n".join(lines))
            opened = 'from_state="Closed",to_state="Open",reason="ConsecutiveFailures"} 1'
            self._check(any(line.endswith(opened) for line in lines), "no metric tells the opening")
            self.screen.command(f"curl -s http://127.0.0.1:{self.http_port}/health | python3 -m json.tool")
            health = json.loads(self._read("/health"))
            self.screen.output(json.dumps(health, indent=4))
            self._check(health["open_circuits"] == [], "/health still lists an open circuit")

    def _show_page_and_plugin(self) -> None:
        with self._step("A page for people, and a plugin of kubectl"):
            self.page = f"http://127.0.0.1:{self.http_port}/"
            self._check("<title>Circuit breakers</title>" in self._read("/"), "the operator serves no page")
            listing = json.loads(self._read("/api/breakers"))
            shown = {row[1]: row[2] for row in listing["rows"]}
            self._check(shown.get("payments") == "Closed", f"the page tells another story: {shown}")
            self.screen.say(f"The operator serves a live page of all breakers: {self.page}")
            self._plugin("list")
            self._plugin("explain", "payments")

    # --- tools

    @contextmanager
    def _step(self, title: str) -> Iterator[None]:
        self._number += 1
        self.screen.step(self._number, title)
        try:
            yield
            self._check_parts()
        except (*FAILURES, DemoError) as error:
            why = str(error) if isinstance(error, PartEndedError) else self._obituary(NOTICE_SECONDS) or str(error)
            raise DemoError(f"step {self._number} ({title}) did not happen: {why}") from error

    def _process(self, name: str, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> Process:
        log = self.plane.folder / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CB_")}
        process = Process(command, log=log, env=inherited | {"PYTHONUNBUFFERED": "1"} | (environment or {}))
        process.name = name
        self._running.callback(process.stop, 5.0)
        self.parts.append(process)
        return process

    def _kubectl(self, *words: str, quiet: bool = False, shown: Path | None = None) -> None:
        """Runs kubectl; `shown` is the real path behind the last word, which is printed as a reader would type it."""
        if not quiet:
            self.screen.command("kubectl " + " ".join(f"'{word}'" if " " in word else word for word in words))
        printed = self.plane.kubectl(*(words if shown is None else (*words[:-1], str(shown))))
        if not quiet:
            self.screen.output(printed)

    def _programs(self) -> tuple[Path, Path]:
        """The folders of kubectl and of its plugin."""
        return self.binaries.kubectl.parent, Path(sys.executable).parent

    def _plugin(self, *words: str) -> None:
        self.screen.command(f"kubectl breaker {' '.join(words)}")
        path = os.pathsep.join([*map(str, self._programs()), os.environ.get("PATH", os.defpath)])
        done = subprocess.run(
            [self.binaries.kubectl, "breaker", *words],
            env=os.environ | {"PATH": path, "KUBECONFIG": str(self.plane.kubeconfig)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        self._check(done.returncode == 0, f"kubectl breaker {words[0]}: {done.stderr.strip()}")
        self.screen.output(done.stdout)

    def _until(self, condition: Callable[[], bool], what: str, process: Process) -> None:
        deadline = time.monotonic() + STEP_SECONDS
        while not condition():
            self._check_parts()
            if time.monotonic() > deadline:
                raise DemoError(
                    f"waited for this in vain: {what}; the end of the log of {process.name}:\n{process.tail()}"
                )
            self._say_new_lines()
            time.sleep(0.02)  # between two looks
        self._say_new_lines()

    def _until_everyone_says(self, text: str) -> None:
        self._until(
            lambda: all(any(text in line for line in follower.lines[-1:]) for follower in self.followers),
            f"every process says: {text}",
            self.operator,
        )

    def _until_table_says(self, state: str) -> None:
        self._until(
            lambda: any(line.split()[1] == state for line in self.table.lines[-1:]),
            f"kubectl get shows {state}",
            self.operator,
        )

    def _say_new_lines(self) -> None:
        for follower in (*getattr(self, "followers", ()), *([self.table] if hasattr(self, "table") else ())):
            self.screen.output("\n".join(follower.new_lines()))

    def _obituary(self, within_seconds: float = 0.0) -> str:
        """Of the first part that has ended, or does so within this time; empty when all run."""
        deadline = time.monotonic() + within_seconds
        while True:
            ended = next(filter(None, (part.obituary() for part in self.parts)), "")
            if ended or time.monotonic() >= deadline:
                return ended
            time.sleep(0.02)  # between two looks

    def _check_parts(self) -> None:
        ended = self._obituary()
        if ended:
            raise PartEndedError(ended)

    def _check(self, happened: bool, otherwise: str) -> None:
        if not happened:
            raise DemoError(otherwise)

    def _total(self, field: str) -> int:
        with redis.Redis.from_url(self.redis.url, decode_responses=True) as client:
            reply = client.execute_command("FCALL_RO", "cb_observe", 1, "cb:{default/payments}")
        return int(dict(zip(reply[::2], reply[1::2], strict=True))[field])

    def _mood(self, mood: str) -> bool:
        connection = http.client.HTTPConnection(self.backend, timeout=2)
        try:
            connection.request("POST", f"/mood/{mood}")
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        else:
            return answer.status == http.HTTPStatus.OK
        finally:
            connection.close()

    def _served(self) -> int:
        with urllib.request.urlopen(f"http://{self.backend}/served", timeout=5) as answer:  # our own server
            return int(answer.read())

    def _get(self, path: str) -> str | None:
        try:
            return self._read(path)
        except (OSError, http.client.HTTPException):
            return None

    def _read(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:  # ours
            return str(answer.read().decode())
