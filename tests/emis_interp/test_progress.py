"""What is said of the time left follows from what a command has finished itself: planted durations give known answers."""

import pytest

from emis_interp.progress import OpenBars, clock, duration, time_left


class Played:
    """Bars on a clock that is set by hand."""

    def __init__(self) -> None:
        self.now, self.bars = 0.0, OpenBars()

    def work(self, bar, seconds: float, n: int = 1) -> None:
        self.now += seconds
        bar.advance(n, self.now)

    def open(self, name: str, total: int, work=None):
        return self.bars.open(name, total, self.now, work=work)

    @property
    def left(self) -> float | None:
        return self.bars.seconds_left(self.now)


def test_nothing_is_said_before_something_is_finished() -> None:
    play = Played()
    bar = play.open("score", 10)
    play.now = 50.0
    assert play.left is None and time_left(play.left) == "time left: not known yet"
    assert "time left: not known yet" in play.bars.line(play.now)
    play.work(bar, 10.0)
    assert play.left == pytest.approx(9 * 60)


def test_items_of_equal_length_are_counted_down() -> None:
    play = Played()
    bar = play.open("score", 10)
    for done in range(1, 11):
        play.work(bar, 3.0)
        assert play.left == pytest.approx(3.0 * (10 - done))
    bar = play.open("batches", 100)
    play.work(bar, 8.0, n=16)
    assert bar.seconds_left(play.now + 0.25) == pytest.approx(84 * 0.5 - 0.25)
    assert bar.seconds_left(play.now + 3.0) == pytest.approx(83 * 0.5), (
        "the item under way has no less than no time left"
    )


def test_what_was_found_done_says_nothing_of_the_rest() -> None:
    play = Played()
    bar = play.open("sample", 100)
    play.work(bar, 0.01, n=60)
    assert play.left is None
    play.work(bar, 5.0, n=10)
    assert play.left == pytest.approx(15.0)

    play = Played()
    models = play.open("model", 4)
    play.work(models, 0.5)  # its file was there
    play.work(models, 0.5)
    inner = play.open("capture", 10)
    play.work(inner, 2.0)
    assert play.left == pytest.approx(18.0 + 20.0)
    play.work(inner, 18.0, n=9)
    play.bars.close(inner)
    play.work(models, 0.0)
    assert play.left == pytest.approx(20.0)


def test_a_model_found_done_between_others_is_left_out_of_their_mean() -> None:
    play = Played()
    models = play.open("model", 4)
    for found in (False, True):
        inner = play.open("sample", 2)
        play.work(inner, 0.0 if found else 30.0, n=2)
        play.bars.close(inner)
        play.work(models, 0.0)
    assert play.left == pytest.approx(2 * 30.0)


def test_the_second_bar_of_an_item_is_known_from_earlier_items() -> None:
    play = Played()
    models = play.open("model", 3)

    def bar(seconds: float, n: int) -> None:
        inner = play.open("read", 10)
        play.work(inner, seconds * n, n=n)
        if n == 10:
            play.bars.close(inner)

    for _ in range(2):
        bar(1.0, 10)
        bar(3.0, 10)
        play.work(models, 0.0)
    bar(1.0, 5)  # 5 s of 40
    assert play.left == pytest.approx(35.0)


def test_stages_are_weighed_by_their_work() -> None:
    """Work 10 took 100 s: the other 90 take 900 s, and half of a stage is half of its work."""
    play = Played()
    stages = play.open("stage", 3, [10.0, 30.0, 60.0])
    inner = play.open("train", 4)
    play.work(inner, 50.0, n=2)
    assert play.left == pytest.approx(950.0)
    play.work(inner, 50.0, n=2)
    play.bars.close(inner)
    play.work(stages, 0.0)
    assert play.left == pytest.approx(900.0)
    inner = play.open("check", 3)
    play.work(inner, 200.0)  # twice as slow as its work says: 400 s of it are left, and all work is dearer
    assert play.left == pytest.approx(400.0 + 60.0 * 700.0 / 40.0)


def test_stages_without_work_or_items_divide_by_nothing() -> None:
    play = Played()
    stages = play.open("stage", 2, [0.0, 0.0])
    inner = play.open("none", 0)
    assert play.left == 0.0
    play.bars.close(inner)
    play.work(stages, 1.0)
    assert play.left is None


def test_a_line_says_where_a_command_is() -> None:
    play = Played()
    stages = play.open("stage", 11)
    stages.note, models = "check", play.open("model", 5)
    models.note, inner = "secure", play.open("score secure", 40)
    play.work(inner, 60.0, n=4)
    inner.note = "12 tokens/s"
    assert play.bars.line(play.now) == (
        "stage 1 of 11: check, model 1 of 5: secure, score secure 4 of 40, 12 tokens/s, 1 min so far, about 9 h 9 min left"
    )
    play.bars.close(inner)
    assert play.bars.line(play.now).startswith("stage 1 of 11: check, model 1 of 5: secure, 1 min so far")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (90, "2 min"),
        (3599, "1 h"),
        (3600 * 23.5, "23 h 30 min"),
        (86400 * 2 + 3600 * 4, "2 d 4 h"),
        (86400, "1 d"),
    ],
)
def test_durations_have_two_figures_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_clock_has_hours_when_there_are_some() -> None:
    assert [clock(seconds) for seconds in (0, 59.9, 60, 3599, 3600, 90061)] == [
        "0:00",
        "0:59",
        "1:00",
        "59:59",
        "1:00:00",
        "25:01:01",
    ]
