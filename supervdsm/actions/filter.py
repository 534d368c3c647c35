"""Actions on what a guest may send: frames with its own address only, and no more than so much of them.

They promise that a guest's frames are looked at where its bridge receives them, so before anyone else sees them; and that the
rules, in a table of ours, know nothing of anybody else's traffic.
"""

from __future__ import annotations

import re

from supervdsm.errors import Invalid
from supervdsm.links import checked, session
from supervdsm.registry import Context, action
from supervdsm.traffic import Notes, nft, tap

TABLE = "vdsmd"
MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
GREATEST = 2**22
"""KiB a second, and KiB: 4 GiB."""
LEAST_BURST, MOST_BURST = 16, GREATEST - 1
"""KiB: less is no room for what a network card sends at once; for more, the kernel has no bits."""
FRAME = f"""
add table bridge {TABLE}
add map bridge {TABLE} ports {{ type ifname : verdict; }}
add chain bridge {TABLE} received {{ type filter hook prerouting priority -300; policy accept; }}
flush chain bridge {TABLE} received
add rule bridge {TABLE} received iifname vmap @ports
"""
"""One look-up for a frame, however many guests there are."""


@action("filter.set", slow=True)
def set_filter(context: Context, link: str, mac: str = "", rate: int = 0, burst: int = 0) -> None:
    """Let a guest's tap bring in only frames, and ARP messages, that bear this address, and no more than `rate` KiB a second
    with `burst` KiB at once. '' and 0 are for no such limit. What was set before is replaced."""
    if mac and not MAC.fullmatch(mac := mac.lower()):
        raise Invalid(f"{mac!r} is no address of a network card")
    if not (0 <= rate <= GREATEST and 0 <= burst <= GREATEST):
        raise Invalid(f"rate {rate}, burst {burst}: expected 0 to {GREATEST}")
    with session(f"filter of {link}") as kernel:
        tap(kernel, link)
    Notes(context, "filters").write(link)
    name = f"bridge {TABLE} {_chain(link)}"
    rules = [f"add chain {name}", f"flush chain {name}"]
    if mac:
        rules.append(f"add rule {name} ether saddr != {mac} drop")
        rules.append(f"add rule {name} ether type arp arp saddr ether != {mac} drop")
    if rate:
        room = min(max(burst, LEAST_BURST, rate // 50), MOST_BURST)
        rules.append(f"add rule {name} limit rate over {rate} kbytes/second burst {room} kbytes drop")
    rules.append(f'add element bridge {TABLE} ports {{ "{link}" : jump {_chain(link)} }}')
    nft("\n".join([FRAME, *rules, ""]))


@action("filter.clear", slow=True)
def clear(context: Context, link: str) -> None:
    """Let a tap bring in whatever it has. Nothing happens when there is no filter."""
    forget(context, checked(link))


def forget(context: Context, link: str) -> None:
    """Remove the filter that a tap has been given, if it has."""
    notes = Notes(context, "filters")
    if notes.read(link) is None:
        return
    name = _chain(link)
    # What is removed is made first: it may be half there, and nft has no word for 'if there'.
    element = f'element bridge {TABLE} ports {{ "{link}" : jump {name} }}'
    rules = [FRAME, f"add chain bridge {TABLE} {name}", f"add {element}", f"delete {element}"]
    nft("\n".join([*rules, f"flush chain bridge {TABLE} {name}", f"delete chain bridge {TABLE} {name}", ""]))
    notes.remove(link)


def _chain(link: str) -> str:
    """The tap's name, in letters that nft takes: those of taps are letters and digits, but for what somebody else calls so."""
    if not re.fullmatch(r"\w+", link, re.ASCII):
        raise Invalid(f"{link!r} cannot be filtered by its name")
    return f"from_{link}"
