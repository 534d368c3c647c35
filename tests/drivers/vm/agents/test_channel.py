"""The connection itself: lines however they are cut, and guests that send too much, too little, or take nothing."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.errors import NotResponding
from drivers.vm.agents.channel import (
    AT_FULL_RATE,
    BURST,
    CHUNK,
    LONGEST,
    MOST_UNSENT,
    PER_LINE,
    RATE,
    Channel,
    Floods,
    Lines,
)
from tests.drivers.vm.stand import Stand
from tests.until import until

LINES = 3 * BURST // (2 * PER_LINE)
"""More than may be read at once."""


@settings(deadline=None, derandomize=True, database=None)
@given(st.binary(), st.lists(st.integers(0, 200)))
def test_lines_come_out_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    whole = [line for line in data.split(b"\n")[:-1] if line.strip()]
    places = sorted(min(cut, len(data)) for cut in cuts)
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    lines = Lines()
    assert [line for piece in pieces for line in lines.feed(piece)] == whole
    assert bytes(lines.begun) == data.split(b"\n")[-1]


def test_the_longest_line_is_taken_and_a_longer_one_thrown_away() -> None:
    lines = Lines()
    assert lines.feed(b"x" * LONGEST + b"\n") == [b"x" * LONGEST]
    assert lines.feed(b"x" * LONGEST) == []
    assert lines.feed(b"x") == [] and lines.skipping and not lines.begun
    assert Lines(bytes(lines.begun), skipping=lines.skipping).feed(b"yz\nnext\n") == [b"next"]
    assert lines.feed(b"x" * 3 * LONGEST) == [] and not lines.begun
    assert lines.feed(b"\nnext\n") == [b"next"]
    assert lines.lost == 1


class End:
    """A channel on one end of a pair of sockets; `guest` is the other."""

    def __init__(self, stand: Stand, begun: bytes = b"", unsent: bytes = b"", floods: Floods | None = None) -> None:
        self.guest, self.ours = socket.socketpair()
        self.ours.setblocking(False)
        self.heard: list[bytes] = []
        self.ended = False
        self._stand = stand
        self.channel = Channel(
            stand.host,
            self.ours.fileno(),
            Lines(begun),
            unsent,
            self.heard.extend,
            lambda: setattr(self, "ended", True),
            floods,
        )
        stand.inside(self.channel.start)

    def close(self) -> None:
        self._stand.inside(self.channel.stop)
        self.ours.close()
        self.guest.close()


@pytest.fixture
def open_end(stand: Stand) -> Iterator[Callable[..., End]]:
    ends: list[End] = []

    def make(**how: Any) -> End:
        ends.append(End(stand, **how))
        return ends[-1]

    yield make
    for end in ends:
        end.close()


def test_what_was_begun_and_what_was_not_sent_goes_on(open_end: Callable[..., End]) -> None:
    end = open_end(begun=b"one ", unsent=b"rest\n")
    end.guest.sendall(b"line\n")
    until(lambda: end.heard == [b"one line"])
    assert end.guest.recv(100) == b"rest\n"


def test_the_end_is_told_once_and_what_came_before_it_is_heard(open_end: Callable[..., End]) -> None:
    end = open_end()
    end.guest.sendall(b"last words\n")
    end.guest.shutdown(socket.SHUT_RDWR)
    until(lambda: end.ended)
    assert end.heard == [b"last words"]


def test_a_guest_that_takes_nothing_is_not_sent_more(stand: Stand, open_end: Callable[..., End]) -> None:
    end = open_end()
    line = b"x" * 1023 + b"\n"
    sent: list[bytes] = []

    def send_for_ever() -> None:
        while True:
            end.channel.send(line)
            sent.append(line)

    with pytest.raises(NotResponding):
        stand.inside(send_for_ever)
    assert len(end.channel.unsent) <= MOST_UNSENT
    taken = 0
    while taken < len(sent) * len(line):
        taken += len(end.guest.recv(1 << 16))
    until(lambda: not end.channel.unsent)


@pytest.mark.parametrize("flood", [b"\n", b"{}\n", b"x"])
def test_a_flood_is_read_slowly_and_delays_nobody(open_end: Callable[..., End], flood: bytes) -> None:
    hostile, honest = open_end(), open_end()
    hostile.guest.setblocking(False)
    written = answers = 0
    while answers < 20:
        try:
            written += os.write(hostile.guest.fileno(), flood * (CHUNK // len(flood)))
        except BlockingIOError:
            # It is full: the flood is held up where it comes from.
            honest.guest.sendall(b"fine\n")
            answers += 1
            until(lambda n=answers: len(honest.heard) == n)  # type: ignore[misc]
        assert len(hostile.channel.lines.begun) <= LONGEST
    # What the kernel keeps for us is in there, too.
    assert written < 8 * BURST


def test_a_flood_goes_on_after_a_rest(open_end: Callable[..., End]) -> None:
    end = open_end()
    end.guest.sendall(b"{}\n" * LINES)
    end.guest.sendall(b"after\n")
    until(lambda: end.heard[-1:] == [b"after"], 120)
    assert len(end.heard) == LINES + 1


def test_stopping_and_starting_again_loses_nothing(stand: Stand, open_end: Callable[..., End]) -> None:
    end = open_end()
    stand.inside(end.channel.stop)
    end.guest.sendall(b"while nobody listens\n")
    stand.inside(end.channel.start)
    stand.inside(end.channel.start)
    until(lambda: end.heard == [b"while nobody listens"])


def test_the_more_send_floods_the_slower_each_is_read(open_end: Callable[..., End]) -> None:
    floods = Floods()
    assert floods.rest(RATE) == 1.0
    floods.waiting = 3 * AT_FULL_RATE
    assert floods.rest(RATE) == 3.0
    floods.waiting = 0
    hostile = [open_end(floods=floods) for _ in range(3)]
    for end in hostile:
        end.guest.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                end.guest.send(b"\n" * CHUNK)
    until(lambda: floods.waiting == 3, 60, "all of them to be held up")
    honest = open_end(floods=floods)
    honest.guest.sendall(b"fine\n")
    until(lambda: honest.heard == [b"fine"])
    for end in (*hostile, honest):
        end.close()
    assert floods.waiting == 0


def test_a_rest_pays_for_what_was_read_and_for_no_more(stand: Stand, open_end: Callable[..., End]) -> None:
    floods = Floods()
    end = open_end(floods=floods)

    def rest() -> float:
        end.channel._spend(2 * BURST)
        assert floods.waiting == 1 and end.channel._allowance < 0
        end.channel._reckoned -= 3600  # it has lasted that long
        end.channel._rested()
        return end.channel._allowance

    assert stand.inside(rest) == 0.0 and floods.waiting == 0
