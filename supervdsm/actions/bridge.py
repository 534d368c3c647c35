"""Actions on bridges of ours. One that somebody else has made is never changed."""

from __future__ import annotations

from supervdsm.errors import AlreadyExists, NotAllowed
from supervdsm.links import OURS, session
from supervdsm.registry import Context, action


@action("bridge.create")
def create(_context: Context, name: str, stp: bool = False, mac: str = "") -> None:
    """Make a bridge. One of ours that exists gets this spanning tree setting. `mac`: where no port will give it one."""
    with session(f"bridge {name}") as kernel:
        found = kernel.find(name)
        if found is None:
            address = {"address": mac} if mac else {}
            # No forward delay: whoever wants a spanning tree waits for it, nobody else.
            kernel.make(name, "bridge", br_stp_state=int(stp), br_forward_delay=1500 if stp else 0, **address)
        elif found.kind != "bridge" or found.group != OURS:
            raise AlreadyExists(f"{name} exists, and was not made by us")
        else:
            kernel.route.link("set", index=found.number, kind="bridge", br_stp_state=int(stp))


@action("bridge.edit")
def edit(_context: Context, name: str, stp: bool) -> None:
    """Turn its spanning tree on or off."""
    with session(f"bridge {name}") as kernel:
        found = kernel.must(name, "bridge")
        if found.group != OURS:
            raise NotAllowed(f"{name} was not made by us")
        kernel.route.link("set", index=found.number, kind="bridge", br_stp_state=int(stp))
