"""Shares: what networks get of the nic that they have in common, as the kernel's scheduler is told.

It promises that the number of a scheduler of ours follows from what it has been told, so that the kernel itself says which
shares are in force. Pure.
"""

from __future__ import annotations

import zlib

import msgspec

from drivers.network.model import Curve, Qos

OURS = range(0x4000, 0x8000)
"""Numbers (majors of handles) of root queueing disciplines that we set: people use low ones, and the kernel high ones."""

Told = dict[str, dict[str, dict[str, int]]]


def told(shares: dict[str, Qos]) -> Told:
    """Return the shares as the helper is told of them."""
    return {tag: as_struct(qos) for tag, qos in sorted(shares.items())}


def as_struct(qos: Qos) -> dict[str, dict[str, int]]:
    """Return them in the words of the wire; what does not say anything is left out."""
    curves = {"ls": qos.ls, "rt": qos.rt, "ul": qos.ul}
    return {name: _curve(curve) for name, curve in curves.items() if curve is not None}


def number(shares: dict[str, Qos]) -> int:
    """Return the number of the scheduler that has been told of these shares, 0 for none."""
    return OURS[zlib.crc32(msgspec.json.encode(told(shares))) % len(OURS)] if shares else 0


def _curve(curve: Curve) -> dict[str, int]:
    return {
        name: value for name, value in (("m1", curve.m1), ("d", curve.d), ("m2", curve.m2)) if value or name == "m2"
    }
