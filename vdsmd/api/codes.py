"""The numbers of the wire: which status code each meaning of an error has.

It promises that every error raised on purpose has a code: its own, or that of the nearest meaning it is a case of. All
numbers with their names are in the contract (`contract.load().codes`); here stand those that this code answers with.
"""

from __future__ import annotations

from drivers import errors
from supervdsm import client as root

OK = 0
NO_VM = 1
EXISTS = 4
MISSING_PARAMETER = 11
UNEXPECTED = 16
TICKET_FAILED = 18
NOT_RESPONDING = 19
UNAVAILABLE = 40
DESTROY_FAILED = 42
NOT_BUILT = 44
HARDWARE_UNKNOWN = 57
UNSUPPORTED = 75
INVALID_PARAMETER = 91
RECOVERING = 99

# Faults, for calls that are none: the numbers that XML-RPC servers agree on (xmlrpc-epi, "fault code interoperability").
FAULT_MALFORMED = -32700
FAULT_UNKNOWN_VERB = -32601
FAULT_ARITY = -32602
FAULT_UNSENDABLE = -32603

_CODES: dict[type[BaseException], int] = {
    errors.DriverError: UNEXPECTED,
    errors.NotFound: INVALID_PARAMETER,
    errors.NoSuchVm: NO_VM,
    errors.AlreadyExists: EXISTS,
    errors.Invalid: INVALID_PARAMETER,
    errors.MissingParameter: MISSING_PARAMETER,
    errors.Busy: UNAVAILABLE,
    errors.Recovering: RECOVERING,
    errors.Unsupported: UNSUPPORTED,
    errors.NotBuilt: NOT_BUILT,
    errors.Failed: UNEXPECTED,
    errors.NotResponding: NOT_RESPONDING,
    errors.DestroyFailed: DESTROY_FAILED,
    errors.TicketFailed: TICKET_FAILED,
    errors.NoWayToShutDown: EXISTS,
    errors.HardwareUnknown: HARDWARE_UNKNOWN,
    root.ActionError: UNEXPECTED,
    root.AlreadyExists: EXISTS,
    root.Busy: UNAVAILABLE,
    root.HelperGone: NOT_RESPONDING,
    root.Invalid: INVALID_PARAMETER,
    root.NoHelper: UNSUPPORTED,
    root.NotFound: INVALID_PARAMETER,
    root.TimedOut: NOT_RESPONDING,
    root.Unsupported: UNSUPPORTED,
}


def code_of(error: BaseException) -> int:
    """Return the status code for an error; UNEXPECTED for one that was not raised on purpose."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
        if name := kind.__dict__.get("wire"):
            return number(name)
    return UNEXPECTED


def number(name: str) -> int:
    """Return the number of a status by its name in the contract."""
    from vdsmd.api import contract  # imported by now (vdsmd.deferred); not for the first answer

    return contract.numbers()[name]
