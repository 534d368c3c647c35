"""The action that makes VLAN devices. `link.delete` removes them."""

from __future__ import annotations

from supervdsm.errors import AlreadyExists, Invalid
from supervdsm.links import OURS, session
from supervdsm.registry import Context, action

HIGHEST = 4094


@action("vlan.create")
def create(_context: Context, name: str, link: str, tag: int) -> None:
    """Make a device for the frames on `link` that have this tag."""
    if not 0 <= tag <= HIGHEST:
        raise Invalid(f"{tag} is no VLAN tag: expected 0 to {HIGHEST}")
    with session(f"VLAN {tag} on {link}") as kernel:
        below = kernel.must(link)
        found = kernel.find(name)
        if found is None:
            kernel.make(name, "vlan", link=below.number, vlan_id=tag)
        elif found.kind != "vlan" or found.group != OURS:
            raise AlreadyExists(f"{name} exists, and was not made by us")
