"""What can go wrong with networks, by meaning. `wire` is the name of the code that engines know it by.

It promises that what is raised before anything was done is one of the meanings Bad... and Used...; whatever is raised later,
the configuration has been put back to what it was, or `ChangeUnfinished` says that it has not yet.
"""

from __future__ import annotations

from drivers.errors import Busy, Failed, Invalid, NotResponding


class BadParams(Invalid):
    wire = "ERR_BAD_PARAMS"


class BadAddress(Invalid):
    wire = "ERR_BAD_ADDR"


class BadNic(Invalid):
    wire = "ERR_BAD_NIC"


class BadBond(Invalid):
    wire = "ERR_BAD_BONDING"


class BadVlan(Invalid):
    wire = "ERR_BAD_VLAN"


class BadBridge(Invalid):
    wire = "ERR_BAD_BRIDGE"


class UsedNic(Busy):
    wire = "ERR_USED_NIC"


class UsedBond(Busy):
    wire = "ERR_USED_BOND"


class UsedBridge(Busy):
    wire = "ERR_USED_BRIDGE"


class BringUpFailed(Failed):
    """A part of the new configuration could not be made. All is as it was."""

    message = "Setting up networks failed at {action}: {reason}"
    wire = "ERR_FAILED_IFUP"


class TakeDownFailed(Failed):
    """A part of the old configuration could not be removed. All is as it was."""

    message = "Taking down networks failed at {action}: {reason}"
    wire = "ERR_FAILED_IFDOWN"


class ConnectionLost(NotResponding):
    """The engine did not call again after the change, which has been taken back."""

    message = "{what} did not call within {seconds:g} s after the change of networks, which has been taken back"
    wire = "noConPeer"


class ChangeUnfinished(Busy):
    message = "The last change of networks is still being taken back: {reason}"
