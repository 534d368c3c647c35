"""What can go wrong, by meaning. The API maps these to the numbers of the wire, and nothing else is raised on purpose.

An error is a meaning with fields: `raise NoSuchVm(vm=vm_id)`. Its text is formed here, once.
"""

from __future__ import annotations


class DriverError(Exception):
    """Base of every error that is raised on purpose. `message` is a template over the fields."""

    message = "failed: {reason}"
    wire = ""
    """The name that the wire has for exactly this meaning, if it has one; its subclasses share it."""

    def __init__(self, **fields: object) -> None:
        super().__init__(fields)
        self.fields = fields

    def __str__(self) -> str:
        return self.message.format(**self.fields)


class NotFound(DriverError):
    message = "no such {kind}: {name}"


class AlreadyExists(DriverError):
    message = "{kind} already exists: {name}"


class Invalid(DriverError):
    """The caller's input cannot be meant. Nothing was changed."""

    message = "{what}: {reason}"


class Busy(DriverError):
    message = "{what} is busy: {reason}"


class Unsupported(DriverError):
    message = "{what} is not supported: {reason}"


class Failed(DriverError):
    message = "{action} failed: {reason}"


class NotResponding(DriverError):
    """The thing asked did not answer in time. Nothing is known about the outcome."""

    message = "{what} does not respond: {reason}"


class NoSuchVm(NotFound):
    message = "Virtual machine does not exist"


class VmExists(AlreadyExists):
    message = "Virtual machine already exists: {vm}"


class MissingParameter(Invalid):
    message = "Missing required parameter: {name}"


class DestroyFailed(Failed):
    message = "Virtual machine {vm} could not be destroyed: {reason}"


class TicketFailed(Failed):
    message = "Ticket of virtual machine {vm} could not be set: {reason}"


class NoWayToShutDown(Failed):
    message = "Virtual machine {vm} has no way to be shut down: no guest agent, no ACPI, and force was not asked for"


class HardwareUnknown(Failed):
    message = "Hardware information could not be read: {reason}"


class IllegalMove(Failed):
    """The life cycle has no such move. Nothing was changed."""

    message = "Virtual machine {vm} is {status}: it cannot {move}"


class HypervisorDown(NotResponding):
    message = "libvirt cannot be reached: {reason}"


class Recovering(Busy):
    message = "Virtual machines are still being recovered: {reason}"


class NotBuilt(Unsupported):
    message = "{verb} is not built yet"
