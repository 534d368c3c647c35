"""Damage, as hypothesis draws it: to the values of a JSON document, and to the bytes of a file.

It promises the same damage on every run: nothing in it depends on the time, the process or the machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from state.records import pack

STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, -21, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, -1.0, 1e300,
    "", "0", "x", "nonsense", "\0", "/", "../../x", "x" * 300, "\u2028", [], [[]], [None], {}, {"": None}, {"x": [0]},
]  # fmt: skip
"""What takes the place of a value: another type, nothing, nobody's number, and text that no file can be named."""


def damages(count: int) -> settings:
    """So many examples, always the same ones, however busy the machine is."""
    ignored = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, derandomize=True, deadline=None, database=None, suppress_health_check=ignored)


def places(plain: Any) -> list[tuple[Any, Any]]:
    """Return where each value is, as (the struct or list that it is in, its key there)."""
    steps = list(plain.items() if isinstance(plain, dict) else enumerate(plain))
    found = [(plain, key) for key, _ in steps]
    for _, value in steps:
        if isinstance(value, dict | list):
            found += places(value)
    return found


@st.composite
def broken_values(draw: st.DrawFn, whole: Any) -> Any:
    """Return a copy of a struct with one to three of its values replaced, left out, doubled, put elsewhere or made up."""
    plain = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        found = places(plain)
        if not found:
            break
        into, key = draw(st.sampled_from(found))
        draw(st.sampled_from(_DEEDS))(into, key, copy.deepcopy(draw(st.sampled_from(STRANGE))))
    return plain


@st.composite
def broken_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return the bytes with one to three bits turned, pieces cut out, copied to elsewhere, or made up."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(("turn", "end", "cut", "copy", "made up")))
        if kind == "turn":
            turned = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in data[begin : begin + 1])
            data = data[:begin] + turned + data[begin + 1 :]
        elif kind == "end":
            data = data[:begin]
        elif kind == "made up":
            data = data[:begin] + draw(st.binary(min_size=1, max_size=8)) + data[begin:]
        else:
            piece = data[begin : begin + draw(st.integers(1, 64))]
            rest = data[:begin] + data[begin + len(piece) :] if kind == "cut" else data
            place = draw(st.integers(0, len(rest)))
            data = rest if kind == "cut" else rest[:place] + piece + rest[place:]
    return data


def broken_files(plain: Any) -> st.SearchStrategy[bytes]:
    """Files in which `plain` was packed. In two of three the checksum is right, and so the JSON is what is judged."""
    body = msgspec.json.encode(plain)
    return st.one_of(
        broken_values(plain).map(pack),
        broken_bytes(body).map(lambda data: pack(msgspec.Raw(data))),
        broken_bytes(pack(plain)),
    )


def _replace(into: Any, key: Any, strange: Any) -> None:
    into[key] = strange


def _leave_out(into: Any, key: Any, _: Any) -> None:
    del into[key]


def _double(into: Any, key: Any, _: Any) -> None:
    if isinstance(into, list):
        into.insert(key, copy.deepcopy(into[key]))
    else:
        into[f"{key}2"] = copy.deepcopy(into[key])


def _make_up(into: Any, key: Any, strange: Any) -> None:
    if isinstance(into, list):
        into.insert(key, strange)
    else:
        into["unknown"] = strange


def _reverse(into: Any, key: Any, _: Any) -> None:
    if isinstance(into, list):
        into.reverse()
    else:
        into[key] = next(iter(into.values()))


def _cut(into: Any, key: Any, _: Any) -> None:
    if isinstance(into, list):
        del into[key:]
    elif isinstance(into[key], str | list):
        into[key] = into[key][: len(into[key]) // 2]


_DEEDS: list[Callable[[Any, Any, Any], None]] = [_replace, _replace, _leave_out, _double, _make_up, _reverse, _cut]
