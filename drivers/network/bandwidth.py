"""Bandwidth of networks: shares (hostQos) and rates (qosInbound, qosOutbound), from the words of engines. Raises BadParams."""

from __future__ import annotations

from typing import Any

from drivers.network.errors import BadParams
from drivers.network.model import Curve, Qos, Rate
from drivers.network.words import attributes, number

FASTEST = 8 * (2**32 - 1)
"""Bits a second that the kernel's scheduler can count."""
LONGEST_CURVE = 60_000_000
"""Microseconds."""
MOST = 2**22
"""KiB a second, and KiB: 4 GiB."""


def shares(what: str, given: Any, *, has_base: bool) -> Qos | None:
    out = attributes(what, given or {}).get("out")
    if not out:
        return None
    curves = {name: _curve(f"{what}: {name}", curve) for name, curve in attributes(what, out).items()}
    _check_base(what, has_base)
    if unknown := curves.keys() - {"ls", "rt", "ul"}:
        raise BadParams(what=what, reason=f"expected ls, rt and ul, got {min(unknown)}")
    if (share := curves.get("ls")) is None:
        raise BadParams(what=what, reason="ls is missing")
    qos = Qos(ls=share, rt=curves.get("rt"), ul=curves.get("ul"))
    if qos.rt and qos.ul and qos.rt.m2 > qos.ul.m2:
        raise BadParams(what=what, reason="it cannot get more in any case (rt) than at most (ul)")
    return qos


def rate(what: str, given: Any, *, has_base: bool) -> Rate | None:
    """`average` and `peak` in KiB a second, `burst` in KiB; nothing, or an average of nothing, is no limit."""
    told = attributes(what, given or {})
    average, peak, burst = (_amount(what, number(told, key)) for key in ("average", "peak", "burst"))
    if not average and (peak or burst):
        raise BadParams(what=what, reason="average is missing")
    if not average:
        return None
    _check_base(what, has_base)
    if peak and peak < average:
        raise BadParams(what=what, reason="peak is less than average")
    return Rate(average=average, peak=peak, burst=burst)


def _amount(what: str, amount: int | None) -> int:
    if not 0 <= (amount or 0) <= MOST:
        raise BadParams(what=what, reason=f"expected 0 to {MOST} KiB")
    return amount or 0


def _check_base(what: str, has_base: bool) -> None:
    if not has_base:
        raise BadParams(what=what, reason="the network has no nic or bond")


def _curve(what: str, given: Any) -> Curve | None:
    if not given:
        return None
    told = attributes(what, given)
    m1, d, m2 = (number(told, key) for key in ("m1", "d", "m2"))
    if m2 is None or not 0 < m2 <= FASTEST:
        raise BadParams(what=f"{what}: m2", reason=f"expected 1 to {FASTEST} bits a second")
    if not 0 <= (m1 or 0) <= FASTEST or not 0 <= (d or 0) <= LONGEST_CURVE or bool(m1) != bool(d):
        raise BadParams(what=what, reason="expected m1 in bits a second together with d in microseconds, or neither")
    return Curve(m1=m1 or 0, d=d or 0, m2=m2)
