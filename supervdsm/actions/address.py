"""Actions on the addresses of network devices."""

from __future__ import annotations

from supervdsm.errors import AlreadyExists, NotFound
from supervdsm.links import interface, session
from supervdsm.registry import Context, action

FOR_EVER = 2**32 - 1


@action("address.add")
def add(
    _context: Context, link: str, address: str, broadcast: str = "", preferred: int = FOR_EVER, valid: int = FOR_EVER
) -> None:
    """Give the link an address, such as '192.0.2.1/24', for so many seconds. Nothing happens when it has it."""
    wanted = interface(address)
    given: dict[str, object] = {"address": str(wanted.ip), "prefixlen": wanted.network.prefixlen}
    if broadcast:
        given["broadcast"] = str(interface(f"{broadcast}/32").ip)
    if valid != FOR_EVER:
        given |= {"preferred_lft": preferred, "valid_lft": valid}
    with session(f"address {address} of {link}") as kernel:
        index = kernel.must(link).number
    try:
        with session(f"address {address} of {link}") as kernel:
            kernel.route.addr("add", index=index, **given)
    except AlreadyExists:
        pass


@action("address.delete")
def delete(_context: Context, link: str, address: str) -> None:
    """Take an address from the link. Nothing happens when it does not have it."""
    wanted = interface(address)
    try:
        with session(f"address {address} of {link}") as kernel:
            index = kernel.must(link).number
            kernel.route.addr("del", index=index, address=str(wanted.ip), prefixlen=wanted.network.prefixlen)
    except NotFound:
        pass
