"""Actions on how networks share the nic or bond that they are on, for what they send.

They promise that a scheduler that somebody else has set stays, and that networks which nobody has spoken of get something, too.
Source of what the curves mean: tc-hfsc(7). A kernel without hfsc gets htb, which does the same for curves that are lines: `rt`
is its rate, `ul` its ceiling, and `ls` decides how what is left is shared.
"""

from __future__ import annotations

from supervdsm.errors import Busy, Failed, Invalid, NotFound, Unsupported
from supervdsm.links import checked, session
from supervdsm.programs import find, run
from supervdsm.registry import Context, action
from supervdsm.traffic import tc, tc_undo

OURS = range(0x4000, 0x8000)
"""Numbers of root queueing disciplines that we set."""
UNTAGGED, REST, ALL = 1, 0x2000, 0x3000
"""Classes, beside those of VLANs, which are called by their tag and 2."""
GREATEST_TAG = 4094
LEAST_RATE = "8kbit"
"""htb gives each class something in any case."""
NO_LIMIT = "100gbit"
FRAME, MOST_AT_ONCE = 1514, 60_000
"""Bytes that a class of htb sends before it is the next one's turn."""

Shares = dict[str, dict[str, dict[str, int]]]


@action("qos.set", slow=True)
def set_shares(_context: Context, link: str, handle: int, shares: dict[str, dict[str, dict[str, int]]]) -> None:
    """Have networks share a link: by tag ('' for the one without), each with ls and perhaps rt and ul, of m1 and m2 in bits a
    second and d in microseconds. `handle`: the number of the scheduler, by which it is known again."""
    _check(handle, shares)
    if _root(link) == handle:
        return
    clear(_context, link)
    try:
        _set(link, handle, shares)
    except (Failed, NotFound, Unsupported):
        tc_undo("qdisc", "del", "dev", link, "root")
        raise


@action("qos.clear", slow=True)
def clear(_context: Context, link: str) -> None:
    """Have the link be shared as the kernel likes it. Nothing happens where no scheduler of ours is."""
    with session(f"shares of {link}") as kernel:
        if kernel.find(link) is None:
            return
    if _root(link):
        tc_undo("qdisc", "del", "dev", link, "root")


def _check(handle: int, shares: Shares) -> None:
    if handle not in OURS:
        raise Invalid(f"{handle} is no number of a scheduler of ours")
    if not shares:
        raise Invalid("there is nothing to share")
    for tag, curves in shares.items():
        if tag and not (tag.isascii() and tag.isdigit() and int(tag) <= GREATEST_TAG):
            raise Invalid(f"{tag!r} is no VLAN tag")
        if "ls" not in curves or curves.keys() - {"ls", "rt", "ul"}:
            raise Invalid("expected ls, and perhaps rt and ul")
        for curve in curves.values():
            if curve.keys() - {"m1", "d", "m2"} or curve.get("m2", 0) < 1 or min(curve.values()) < 0:
                raise Invalid(f"{curve} is no curve")


def _root(link: str) -> int:
    """Return the number of our scheduler, 0 for none. Raises Busy when it is somebody else's."""
    with session(f"shares of {link}") as kernel:
        kernel.must(checked(link))
    # 'qdisc htb 4abc: root ...'. Not as JSON, which tc does not know of all kinds.
    for _, kind, handle, where, *_rest in map(str.split, tc("qdisc", "show", "dev", link).splitlines()):
        number = int(handle.partition(":")[0] or "0", 16)
        if where == "root" and number:  # those of the kernel itself have none
            if number not in OURS or kind not in ("hfsc", "htb"):
                raise Busy(f"{link} has a queueing discipline ({kind} {handle}) that others have set")
            return number
    return 0


def _set(link: str, handle: int, shares: Shares) -> None:
    ours = f"{handle:x}:"
    default = f"{UNTAGGED if '' in shares else REST:x}"
    try:
        tc("qdisc", "add", "dev", link, "root", "handle", ours, "hfsc", "default", default)
        lines = _hfsc(link, ours, shares)
    except Unsupported:
        lines = _htb(link, ours, shares)
        tc("qdisc", "add", "dev", link, "root", "handle", ours, "htb", "default", f"0x{default}")
    lines += [
        f"filter add dev {link} parent {ours} protocol 802.1Q prio 1 flower vlan_id {tag} classid {ours}{_class(tag)}"
        for tag in shares
        if tag
    ]
    ended = run(find("tc"), "-batch", "-", stdin="\n".join([*lines, ""]))
    if ended.code:
        said = ended.output.splitlines()[0] if ended.output else str(ended.code)
        raise (Unsupported if "not found" in ended.output else Failed)(f"shares of {link}: {said}")


def _hfsc(link: str, ours: str, shares: Shares) -> list[str]:
    classes = {_class(tag): curves for tag, curves in shares.items()}
    if "" not in shares:
        classes[f"{REST:x}"] = {"ls": {"m2": min(curves["ls"]["m2"] for curves in shares.values())}}
    return [
        f"class add dev {link} parent {ours} classid {ours}{name} hfsc {' '.join(map(_curve, curves, curves.values()))}"
        for name, curves in classes.items()
    ]


def _curve(name: str, curve: dict[str, int]) -> str:
    begin = f"m1 {curve['m1']}bit d {curve['d']}us " if curve.get("m1") else ""
    return f"{name} {begin}m2 {curve['m2']}bit"


def _htb(link: str, ours: str, shares: Shares) -> list[str]:
    if any(curve.get("m1") for curves in shares.values() for curve in curves.values()):
        raise Unsupported("m1 and d need the scheduler hfsc, which this kernel does not have")
    parts = {_class(tag): curves for tag, curves in shares.items()}
    least, most = (f(curves["ls"]["m2"] for curves in shares.values()) for f in (min, max))
    if "" not in shares:
        parts[f"{REST:x}"] = {"ls": {"m2": least}}
    lines = [f"class add dev {link} parent {ours} classid {ours}{ALL:x} htb rate {NO_LIMIT} quantum {MOST_AT_ONCE}"]
    for name, curves in parts.items():
        at_once = max(FRAME, MOST_AT_ONCE * curves["ls"]["m2"] // most)
        rate = f"{curves['rt']['m2']}bit" if "rt" in curves else LEAST_RATE
        ceiling = f"{curves['ul']['m2']}bit" if "ul" in curves else NO_LIMIT
        where = f"dev {link} parent {ours}{ALL:x} classid {ours}{name}"
        lines.append(f"class add {where} htb rate {rate} ceil {ceiling} quantum {at_once}")
    return lines


def _class(tag: str) -> str:
    return f"{int(tag) + 2 if tag else UNTAGGED:x}"
