"""When Events are not waited for: only they fail, for a while, and something else was written in between."""

from circuitbreaker_operator.telling import PATIENCE_SECONDS, PAUSE_SECONDS, Telling


class Story:
    """What happens at which second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.telling = Telling(lambda: self.now)

    def fails(self, at: float, *, sent_at: float | None = None) -> bool:
        self.now = at
        return self.telling.failed(at if sent_at is None else sent_at, "503")

    def accepted(self, at: float) -> None:
        self.now = at
        self.telling.accepted()

    def is_hopeless(self, at: float) -> bool:
        self.now = at
        return self.telling.is_hopeless

    def is_tried(self, at: float) -> bool:
        self.now = at
        return self.telling.is_worth_a_try()


def test_events_alone() -> None:
    """After a while, and from then on one is tried now and then; the first that is taken ends it."""
    story = Story()
    assert not story.fails(100.0)
    story.accepted(101.0)
    assert story.fails(102.0)
    assert not story.is_hopeless(100.0 + PATIENCE_SECONDS - 0.1)
    assert story.is_hopeless(100.0 + PATIENCE_SECONDS)
    tries = [story.is_tried(at) for at in (111.0, 111.1, 111.0 + PAUSE_SECONDS, 111.1 + PAUSE_SECONDS)]
    assert tries == [True, False, True, False]
    assert story.fails(117.0), "whatever else was written: that is known by now"
    story.telling.posted()
    assert not story.is_hopeless(118.0)
    assert story.is_tried(118.0)
    assert not story.fails(119.0), "another outage begins from the start"


def test_an_outage_of_everything() -> None:
    """However long: nothing else is written, so each Event is waited for."""
    story = Story()
    story.accepted(99.0)
    assert not any(story.fails(at) for at in (100.0, 130.0, 160.0))
    assert not story.is_hopeless(161.0)
    assert all(story.is_tried(at) for at in (161.0, 161.1))


def test_an_event_that_was_under_way_when_the_outage_ended() -> None:
    """It says nothing of what holds now."""
    story = Story()
    assert not story.fails(100.0)
    story.accepted(130.0)
    assert not story.fails(131.0, sent_at=129.0)
    assert not story.is_hopeless(131.0)
    assert story.fails(132.0)
