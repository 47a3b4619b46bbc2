"""Lines of a watch that tell the operator of its own writes do not reach Kopf; all others do, whole and in order."""

import json
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuitbreaker_operator.echoes import Echoes, Lines


def line(version: str, kind: str = "MODIFIED", **annotations: str) -> bytes:
    """As the API server writes it: no blanks, keys of an object sorted."""
    metadata: dict[str, Any] = {"annotations": annotations, "name": "payments", "resourceVersion": version}
    event = {"type": kind, "object": {"metadata": metadata, "spec": {}}}
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


class Heard:
    """What gets through of a watch."""

    def __init__(self, *versions: str) -> None:
        self.dropped = 0
        self.echoes = Echoes(dropped=self._count)
        for each in versions:
            self.echoes.expect(each)
        self.lines = Lines(self.echoes)

    def _count(self) -> None:
        self.dropped += 1

    def of(self, *pieces: bytes) -> bytes:
        return b"".join(map(self.lines.of, pieces))


def test_an_echo_is_dropped_once() -> None:
    heard = Heard("7")
    assert heard.of(line("6"), line("7"), line("8")) == line("6") + line("8")
    assert heard.of(line("7")) == line("7"), "versions may come again, after a restore of etcd"
    assert heard.dropped == 1


PASSED = {
    "made": line("7", "ADDED"),
    "deleted": line("7", "DELETED"),
    "a bookmark": line("7", "BOOKMARK"),
    "an annotation of that name": line("6", resourceVersion="7"),
    "an annotation of that name beside the version": line("7", resourceVersion="6"),
    "a version within a version": line("77"),
    "no version": b'{"type":"MODIFIED","object":{}}\n',
    "no JSON": b'{"type":"MODIFIED"\n',
    "nothing": b"\n",
}


@pytest.mark.parametrize("said", PASSED.values(), ids=PASSED)
def test_what_is_no_echo_for_sure_is_passed_on(said: bytes) -> None:
    heard = Heard("7")
    assert heard.of(said) == said
    assert heard.dropped == 0


def test_a_text_that_looks_like_a_version_is_a_text() -> None:
    """Quotes are escaped within a string, so the version is found, and it is the object's own."""
    heard = Heard("7")
    assert heard.of(line("6", note='"resourceVersion":"7"')) == line("6", note='"resourceVersion":"7"')
    assert heard.of(line("7", note='"resourceVersion":"6"')) == b""


def test_another_watch_takes_nothing_for_known() -> None:
    heard = Heard("7")
    heard.echoes.forget()
    assert heard.of(line("7")) == line("7")


def test_two_threads_at_once() -> None:
    """The operator's says what it wrote, also more than is kept, while Kopf's reads."""
    heard, versions, wrong = Heard(), range(60_000), []

    def write() -> None:
        try:
            for each in versions:
                heard.echoes.expect(str(each))
        except RuntimeError as error:
            wrong.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        writer = threading.Thread(target=write)
        writer.start()
        passed = sum(heard.of(line(str(each))) != b"" for each in versions)
        writer.join()
    finally:
        sys.setswitchinterval(before)
    assert wrong == []
    assert passed + heard.dropped == len(versions)


def test_only_so_many_versions_are_kept() -> None:
    heard = Heard(*map(str, range(2_000)))
    assert heard.of(line("999"), line("1000")) == line("999")


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=12), st.data())
def test_pieces_make_no_difference(changes: list[tuple[int, bool]], data: st.DataObject) -> None:
    """However the stream is cut: what arrives is every line that is no echo, in order; an unfinished one waits."""
    own = {str(version) for version, ours in changes if ours}
    stream = b"".join(line(str(version)) for version, _ in changes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    heard, expected, left = Heard(*own), b"", set(own)
    for version, _ in changes:
        if str(version) in left:
            left.discard(str(version))
        else:
            expected += line(str(version))
    assert heard.of(*pieces, b'{"type":') == expected
