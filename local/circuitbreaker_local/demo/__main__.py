"""`python -m circuitbreaker_local.demo [--hold]`: exits 0 when all that it shows happened, else 1 naming the step."""

import argparse
import os
import sys
from contextlib import suppress

from circuitbreaker_local import interrupts
from circuitbreaker_local.demo.screen import Screen
from circuitbreaker_local.demo.story import DemoError, Story
from circuitbreaker_local.loopback import reach_directly
from circuitbreaker_local.progress import Report


def main() -> int:
    """The exit status: 1 with the step that did not happen, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m circuitbreaker_local.demo", description=__doc__)
    parser.add_argument("--hold", action="store_true", help="keep everything running at the end, and say where it is")
    hold = parser.parse_args().hold
    interrupts.listen()
    reach_directly(os.environ)
    screen = Screen()
    try:
        with Story(screen, Report()) as story:
            story.tell()
            screen.say("")
            screen.say(
                f"All of it happened, in {screen.seconds:.0f} s. {'' if hold else 'make demo HOLD=1 keeps it running.'}"
            )
            if hold:
                story.hold()
    except DemoError as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be what has ended
            print("\ndemo: interrupted; everything that it started is gone", file=sys.stderr, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
