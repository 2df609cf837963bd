"""Turns the bars that are open, one within the other, into where a command is and how long it still takes, in words.

An estimate is made of what this command itself has finished: the mean time of the items of a bar, and for the item under way what the bar
within it says. Items that were found done say nothing of those to come. Where nothing is finished yet, nothing is estimated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

FOUND_S = 0.1
"""Items that a new bar reports within this time were found done, not made: they say nothing of the time that others take."""


@dataclass
class OpenBar:
    """What is counted, and what its items took. Times are seconds of one clock.

    Attributes:
        work: what each item costs, relative to the others; None where all are alike.
        note: a figure, or the name of the item under way (`names_items`).
        holds_bars: another bar was open within this one, so that an item is a piece of work of its own; one during which no bar within it
            moved was found done.
    """

    name: str
    total: int
    begun: float
    work: Sequence[float] | None = None
    done: int = 0
    note: str = ""
    names_items: bool = False
    holds_bars: bool = False
    item_begun: float = field(init=False)
    _moved: bool = False
    """Whether a bar within the item under way moved."""
    _made: tuple[float, float] = (0.0, 0.0)
    """Work and seconds of what was made."""

    def __post_init__(self) -> None:
        self.item_begun = self.begun

    @property
    def is_loop(self) -> bool:
        """Whether its items are things of their own, said as `model 3 of 5: secure`."""
        return self.names_items or self.holds_bars

    def advance(self, n: int, now: float) -> None:
        work, seconds = self._work(self.done, self.done + n), now - self.item_begun
        self.done, self.item_begun = self.done + n, now
        if self._moved if self.holds_bars else now - self.begun > FOUND_S:
            self._made = (self._made[0] + work, self._made[1] + seconds)
        self._moved = False

    @property
    def moves(self) -> bool:
        """Whether something was made, not found."""
        return self._made[1] > 0

    def begin_within(self) -> None:
        """Another bar begins within the item under way."""
        if not self.holds_bars:  # until now no item had one
            self.holds_bars, self._made = True, (0.0, 0.0)

    def end_within(self, inner: "OpenBar") -> None:
        """It ended."""
        self._moved |= inner.moves

    def seconds_left(self, now: float, inner: float | None = None) -> float | None:
        """Until the last item is finished; None where nothing says.

        Args:
            inner: seconds left of the bar within the item under way.
        """
        if self.done >= self.total:
            return 0.0
        item, later = self._work(self.done, self.done + 1), self._work(self.done + 1, self.total)
        spent = now - self.item_begun
        work, seconds = self._made
        before = seconds / work if work and seconds else None
        if inner is None:
            return None if before is None else max(before * item - spent, 0.0) + before * later
        # Behind the inner bar there may be another one: earlier items know of it, this bar does not.
        here = inner if before is None else max(inner, before * item - spent)
        return here + (seconds + spent + here) / (work + item) * later if work + item else here

    def _work(self, first: int, end: int) -> float:
        end = min(end, self.total)
        return float(sum(self.work[first:end])) if self.work is not None else float(max(end - first, 0))


class OpenBars:
    """The bars that are open now, the outermost first."""

    def __init__(self) -> None:
        self.bars: tuple[OpenBar, ...] = ()

    def open(self, name: str, total: int, now: float, *, work: Sequence[float] | None = None) -> OpenBar:
        if self.bars:
            self.bars[-1].begin_within()
        bar = OpenBar(name, total, now, work)
        self.bars = (*self.bars, bar)
        return bar

    def close(self, bar: OpenBar) -> None:
        self.bars = tuple(one for one in self.bars if one is not bar)
        if self.bars:
            self.bars[-1].end_within(bar)

    def seconds_left(self, now: float) -> float | None:
        """Of the outermost bar."""
        left = None
        for bar in reversed(self.bars):
            left = bar.seconds_left(now, left)
        return left

    def places(self) -> list[str]:
        """`stage 2 of 11: check`, `model 3 of 5: secure`; the innermost bar is left out, unless its items are things of their own."""
        return [_place(bar) for bar in self.bars if bar is not self.bars[-1] or bar.is_loop]

    def line(self, now: float) -> str:
        """All of it in one line, for a log."""
        if not self.bars:
            return ""
        last = self.bars[-1]
        inner = (
            [] if last.is_loop else [f"{last.name} {last.done} of {last.total}", *([last.note] if last.note else [])]
        )
        times = [f"{duration(now - self.bars[0].begun)} so far", time_left(self.seconds_left(now))]
        return ", ".join([*self.places(), *inner, *times])


def time_left(seconds: float | None) -> str:
    return "time left: not known yet" if seconds is None else f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """`5 s`, `12 min`, `3 h 20 min`, `2 d 4 h`: two figures at most, as little of it is sure."""
    if seconds < 59.5:
        return f"{max(seconds, 0):.0f} s"
    minutes = max(round(seconds / 60), 1)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(hours + minutes / 60), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def clock(seconds: float) -> str:
    """`0:05`, `12:40`, `3:20:05`."""
    minutes, rest = divmod(math.floor(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _place(bar: OpenBar) -> str:
    note = f": {bar.note}" if bar.note else ""
    return f"{bar.name} {min(bar.done + 1, bar.total)} of {bar.total}{note}"
