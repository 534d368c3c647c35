"""What can go wrong with a call to the helper, as meanings. They cross the socket by the name of their class.

It promises that a caller gets the same type that the action raised.
"""

from __future__ import annotations


class ActionError(Exception):
    """A call to the helper failed. The text says what and why, in one line; `remote_traceback` is for the debug log."""

    remote_traceback = ""


class NotAllowed(ActionError):
    """The caller may not call this action, or an argument lies outside what is allowed. Nothing was done."""


class Invalid(ActionError):
    """The message, the action's name or an argument makes no sense. Nothing was done."""


class NotFound(ActionError):
    """What the action is about does not exist."""


class AlreadyExists(ActionError):
    """What the action was to make exists, and is not the same."""


class Busy(ActionError):
    """What the action is about is in use."""


class Unsupported(ActionError):
    """This host cannot do that: a program, a kernel feature or a device is missing."""


class Failed(ActionError):
    """The action was tried, and failed."""


class TimedOut(ActionError):
    """There was no answer in time. It is not known whether the action was done."""


class HelperGone(ActionError):
    """The helper ended during the call. It is not known whether the action was done."""


class NoHelper(ActionError):
    """There is no helper: what needs root does not work. Nothing was done."""


_KINDS: list[type[ActionError]] = [ActionError, *ActionError.__subclasses__()]
MEANINGS = {kind.__name__: kind for kind in _KINDS}
