"""Actions that give a guest a copy of a network's traffic, where it is to watch over it.

They promise that the traffic itself is as before, and that a bridge without mirrors is as it was found.
"""

from __future__ import annotations

from supervdsm.errors import Failed
from supervdsm.links import checked, session
from supervdsm.locks import alone
from supervdsm.registry import Context, action
from supervdsm.traffic import Notes, tap, tc, tc_undo

KIND = "mirrors"
WAYS = ("ingress", "egress")
FIRST, MOST = 10_000, 30_000
"""Preferences of our filters: one for each tap, by its number."""
PROMISCUOUS = 0x100
"""IFF_PROMISC of linux/if.h. Only then does a bridge show what it passes from one port to another."""


@action("mirror.set", slow=True)
def set_mirror(context: Context, bridge: str, link: str) -> None:
    """Have a guest's tap get every frame that the bridge receives, passes on or sends. Done twice is done once."""
    with alone(context, KIND):
        _set(context, bridge, link)


def _set(context: Context, bridge: str, link: str) -> None:
    with session(f"mirror of {bridge} to {link}") as kernel:
        above, port = kernel.must(bridge, "bridge"), tap(kernel, link)
        told = kernel.route.link("get", index=above.number)[0]
        notes = Notes(context, KIND, bridge)
        if not notes.names():
            _quiet(context).write(bridge, "" if told["flags"] & PROMISCUOUS else "quiet")
        preference = str(FIRST + port.number % MOST)
        notes.write(link, preference)
        kernel.route.link("set", index=above.number, flags=PROMISCUOUS, change=PROMISCUOUS)
    try:
        tc("qdisc", "add", "dev", bridge, "clsact")
    except Failed:
        pass  # it is there: what comes next tells
    for way in WAYS:
        rule = ("protocol", "all", "prio", preference, "u32", "match", "u32", "0", "0")
        # 'continue': the next mirror gets its copy, too.
        copy = ("action", "mirred", "egress", "mirror", "dev", link, "continue")
        tc_undo("filter", "del", "dev", bridge, way, "prio", preference)
        tc("filter", "add", "dev", bridge, way, *rule, *copy)


@action("mirror.unset", slow=True)
def unset(context: Context, bridge: str, link: str) -> None:
    """Undo `mirror.set`. Nothing happens when there is no such mirror, or its bridge has gone."""
    with alone(context, KIND):
        _remove(context, checked(bridge), checked(link))


def forget(context: Context, link: str) -> None:
    """Remove all mirrors to a tap."""
    bridges = [bridge for bridge in _quiet(context).names() if Notes(context, KIND, bridge).read(link) is not None]
    if bridges:
        with alone(context, KIND):
            for bridge in bridges:
                _remove(context, bridge, link)


def _remove(context: Context, bridge: str, link: str) -> None:
    notes = Notes(context, KIND, bridge)
    preference = notes.read(link)
    if preference is None:
        return
    for way in WAYS:
        tc_undo("filter", "del", "dev", bridge, way, "prio", preference)
    notes.remove(link)
    if not notes.names():
        _leave(context, bridge)


def _leave(context: Context, bridge: str) -> None:
    """The last mirror of a bridge has gone. Others may have filters there by now, which stay."""
    was_quiet = _quiet(context).read(bridge) == "quiet"
    with session(f"mirrors of {bridge}") as kernel:
        found = kernel.find(bridge)
        if found is not None:
            if was_quiet:
                kernel.route.link("set", index=found.number, flags=0, change=PROMISCUOUS)
            if not any(tc("filter", "show", "dev", bridge, way).strip() for way in WAYS):
                tc_undo("qdisc", "del", "dev", bridge, "clsact")
    _quiet(context).remove(bridge)


def _quiet(context: Context) -> Notes:
    """Of the bridges with mirrors, which did not listen to everything before."""
    return Notes(context, "mirrored")
