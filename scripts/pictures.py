"""`make pictures`: the README's pictures, taken from the demo while it runs. Overwrites docs/images.

The page is photographed by Chromium; what kubectl breaker prints is drawn as SVG, with its own colours and no font of
anybody else's. The demo is a minute old, so the list is made one of an ordinary cluster: with breakers besides the
demo's, and with histories of an hour, which are made up.
"""

import json
import os
import pty
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from pathlib import Path

import redis
from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from circuitbreaker_local import interrupts
from circuitbreaker_local.chromium_binary import find_chromium
from circuitbreaker_local.demo.screen import Screen
from circuitbreaker_local.demo.story import STEP_SECONDS, DemoError, Story
from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.progress import Report

IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLUMNS = 108
LARGEST_BYTES = 300_000
MORE = {
    "checkout": {"failureRatePercent": 50, "minimumCalls": 10},
    "fraud-check": {"mode": "Observe"},
    "inventory": {"window": {"calls": 100}},
    "ledger": {"override": {"state": "Open", "reason": "year-end closing"}},
    "mail": {},
    "pricing": {"slowCallDuration": "2s", "slowCallRatePercent": 60},
    "recommendations": {"backoff": {"factor": 2, "max": "10m"}},
    "shipping": {},
}


class Pictures(Story):
    """The demo, and a camera."""

    def take(self) -> None:
        """The demo's story, a few more outages of its backend, then both pictures while the breaker is Open."""
        self.tell()
        kind = {"apiVersion": "circuitbreaker.dev/v1alpha1", "kind": "CircuitBreaker"}
        items = [kind | {"metadata": {"name": name}, "spec": spec} for name, spec in MORE.items()]
        manifest = self.plane.folder / "more.json"
        manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}), encoding="utf-8")
        self.plane.kubectl("apply", "-f", str(manifest))
        self.plane.kubectl("wait", "--for=condition=Ready", "circuitbreakers", "--all", "--timeout=20s")
        for _ in range(2):
            self._go("failing", "Open")
            self._go("ok", "Closed")
        self._go("failing", "Open")
        self._make_up_histories()
        with sync_playwright() as driver:
            sandbox = [] if os.getuid() else ["--no-sandbox"]  # Chromium refuses to sandbox itself for root
            browser = driver.chromium.launch(executable_path=find_chromium(self.report), args=sandbox)
            page = browser.new_page(
                viewport={"width": 1280, "height": 620}, color_scheme="light", reduced_motion="reduce"
            )
            page.goto(self.page)
            page.locator("#link[data-is=live]").wait_for()
            page.locator("#rows tr").nth(len(MORE) + 1).wait_for()
            page.locator('tr[data-key="default/payments"][data-row="Open"]').wait_for()
            page.wait_for_timeout(2_500)  # the counts of what is on the screen come every 2 s
            page.screenshot(path=IMAGES / "page.png")
            browser.close()
        lines = ["list --sort state", "explain payments"]
        (IMAGES / "kubectl-breaker.svg").write_text(drawing([(line, self._at_terminal(line)) for line in lines]))
        self._go("ok", "Closed")

    def _make_up_histories(self) -> None:
        """Openings of the last hour, before what really happened."""
        chance = random.Random(7)  # noqa: S311 # the same picture each time
        with redis.Redis.from_url(self.redis.url, decode_responses=True) as client:
            for name in ("payments", "checkout", "pricing", "recommendations", "inventory"):
                stream = f"cb:{{default/{name}}}:history"
                real = [fields for _, fields in client.xrange(stream)]
                client.delete(stream)
                at_ms = int(real[0]["at"]) - 3_500_000
                while (at_ms := at_ms + chance.randint(120, 1_400) * 1000) < int(real[0]["at"]) - 300_000:
                    steps = (("Closed", "Open", 40), ("Open", "HalfOpen", 15), ("HalfOpen", "Closed", 0))
                    for before, after, seconds in steps:
                        moved = {"previous": before, "state": after, "at": str(at_ms), "note": "", "forced": ""}
                        client.xadd(stream, real[0] | moved)
                        at_ms += seconds * chance.randint(1, 6) * 1000
                for fields in real:
                    client.xadd(stream, fields)

    def _go(self, mood: str, state: str) -> None:
        self._mood(mood)
        show = ("get", "circuitbreaker", "payments", "-o", "jsonpath={.status.state}")
        until(lambda: self.plane.kubectl(*show) == state, f"payments is {state}")

    def _at_terminal(self, line: str) -> str:
        """What the plugin prints at a terminal, colours and all."""
        inner, outer = pty.openpty()
        path = os.pathsep.join([*map(str, self._programs()), os.environ["PATH"]])
        environment = os.environ | {"PATH": path, "KUBECONFIG": str(self.plane.kubeconfig), "TERM": "xterm-256color"}
        environment |= {"COLUMNS": str(COLUMNS), "COLORTERM": "truecolor"}
        environment.pop("NO_COLOR", None)
        command = [str(self.binaries.kubectl), "breaker", *line.split()]
        process = subprocess.Popen(command, env=environment, stdin=outer, stdout=outer, stderr=outer)
        os.close(outer)
        said = b""
        with suppress(OSError):  # the other end is closed
            while some := os.read(inner, 65_536):
                said += some
        os.close(inner)
        if process.wait() != 0:
            raise DemoError(f"kubectl breaker {line}: {said.decode(errors='replace')}")
        return said.decode().replace("\r\n", "\n")


def drawing(said: list[tuple[str, str]]) -> str:
    """The lines with what they print, as SVG."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    for number, (line, output) in enumerate(said):
        console.print(Text.assemble("\n" if number else "", ("$ ", "dim"), (f"kubectl breaker {line}", "bold")))
        console.print(Text.from_ansi(output.rstrip("\n")), soft_wrap=True)
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace")
    drawn = console.export_svg(title="kubectl breaker", code_format=form, unique_id="kubectl-breaker")
    if "url(" in re.sub(r"url\(#[\w-]+\)", "", drawn):
        raise DemoError("the drawing asks for something from elsewhere")
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def until(condition: Callable[[], bool], what: str) -> None:
    """Raises DemoError."""
    deadline = time.monotonic() + STEP_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"waited in vain: {what}")
        time.sleep(0.1)  # between two looks


def main() -> int:
    interrupts.listen()
    IMAGES.mkdir(exist_ok=True)
    try:
        with Pictures(Screen(), Report()) as pictures:
            pictures.take()
    except (DemoError, LocalError) as error:
        print(f"\npictures: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\npictures: interrupted; everything that it started is gone", file=sys.stderr)
        return 130
    for each in sorted(IMAGES.iterdir()):
        size = each.stat().st_size
        print(f"{each}: {size / 1000:.0f} kB{', which is too much' if size > LARGEST_BYTES else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
