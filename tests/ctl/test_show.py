"""How values look to people."""

from __future__ import annotations

import io
from typing import Any

import pytest

from vdsmd.ctl.machines import span
from vdsmd.ctl.show import Screen, clean


def shown(value: Any) -> list[str]:
    out = io.StringIO()
    Screen(out).value(value)
    return out.getvalue().splitlines()


def test_numbers_stand_to_the_right() -> None:
    out = io.StringIO()
    Screen(out).table(["NAME", "MS", "STATE"], [["a", "1.5", "Up"], ["long name", "100.25", "Down"]])
    assert out.getvalue().splitlines() == [
        "NAME           MS  STATE",
        "a             1.5  Up",
        "long name  100.25  Down",
    ]


def test_an_empty_table_has_its_heads() -> None:
    out = io.StringIO()
    Screen(out).table(["NAME", "MS"], [])
    assert out.getvalue() == "NAME  MS\n"


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("text", ["text"]),
        (True, ["yes"]),
        ([], []),
        ({}, []),
        (["a", "b"], ["a", "b"]),
        ({"key": "a", "longer": ["b", "c"]}, ["key     a", "longer  b, c"]),
        ({"outer": {"inner": 1}, "flat": 2}, ["flat  2", "outer", "  inner  1"]),
        ([{"a": 1, "b": "x"}, {"a": 22, "b": "y"}], [" a  b", " 1  x", "22  y"]),
        ([{"a": 1}, {"b": 2}], ["a  1", "", "b  2"]),
        ({"eth0": {"mtu": 1500}, "lo": {"mtu": 9}}, ["       mtu", "eth0  1500", "lo       9"]),
        ({"a": {"x": {}}}, ["   x", "a"]),
    ],
)
def test_values(value: Any, lines: list[str]) -> None:
    assert shown(value) == lines


def test_long_values_are_folded() -> None:
    lines = shown({"flags": ",".join(f"flag{number}" for number in range(40))})
    assert len(lines) > 2
    assert all(len(line) <= 100 for line in lines)
    assert all(line.startswith("       flag") for line in lines[1:])
    assert "".join(line.strip().removeprefix("flags").strip() for line in lines).count("flag") == 40


def test_a_wide_table_becomes_blocks() -> None:
    assert shown([{"a": "x" * 60, "b": "y" * 60}]) == [f"a  {'x' * 60}", f"b  {'y' * 60}"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\x1b[2Jb\x07", "a\ufffd[2Jb\ufffd"),
        ("two\nlines\tand", "two lines and"),
        (b"\xff\x9b", "\ufffd\ufffd"),
        ({"a": False}, "a=no"),
    ],
)
def test_nothing_reaches_the_terminal_that_it_would_obey(value: Any, text: str) -> None:
    assert clean(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (90061, "1 d 1 h"), (86401, "1 d 1 s")],
)
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert span(seconds) == text
