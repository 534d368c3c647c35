"""The action that does nothing: for whoever wants to know whether the helper is there, and what a call costs."""

from __future__ import annotations

from supervdsm.registry import HSMD, VDSMD, Context, action


@action("ping", callers=(VDSMD, HSMD))
def ping(context: Context) -> str:
    """Return "pong"."""
    return "pong"
