"""Which transitions the Events of one breaker tell of, in one incarnation."""

from collections.abc import Mapping


def generations(messages: Mapping[str, str]) -> list[int]:
    """From message by name of Event: each generation once for each Event that tells or counts it, in order."""
    found = []
    for name, message in messages.items():
        *_, before, last = name.split(".")
        if last.isdecimal():
            found.append(int(last))
        elif last == "skipped":  # a count, named after the last that it counts
            number = int(message.split()[0])
            found += range(int(before) - number + 1, int(before) + 1)
    return sorted(found)
