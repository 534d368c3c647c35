"""Reexec: asks for the running code to be replaced, and waits over the gap to tell what became of it."""

from __future__ import annotations

import time
from typing import Any

from vdsmd.ctl.context import DONE, FAILED, PENDING, REFUSED, Context, Problem
from vdsmd.ctl.wire import Lost, Unreachable

LOOK_EVERY = 0.002
RETURN_WITHIN = 60.0
"""Seconds a daemon may be away before we give up on it."""


class Watch:
    """Asks for the daemon's status again and again, and remembers the longest time without an answer."""

    def __init__(self, context: Context) -> None:
        self._client = context.client
        self.longest = 0.0

    def look(self) -> dict[str, Any]:
        """Return the status, asked for over and over (it changes nothing) while the connection is being cut."""
        begun = time.monotonic()
        while True:
            try:
                info: dict[str, Any] = self._client.call("vdsmd.status")["info"]
            except (Lost, Unreachable) as error:
                if time.monotonic() - begun > RETURN_WITHIN:
                    raise Problem(f"the daemon has not come back within {RETURN_WITHIN:g} s: {error}") from error
                time.sleep(LOOK_EVERY)
                continue
            self.longest = max(self.longest, time.monotonic() - begun)
            return info


def cancel(context: Context) -> int:
    context.client.call("vdsmd.cancel")
    context.tell({"cancelled": True}, lambda _: context.screen.line("cancelled: the code that runs stays"))
    return DONE


def reexec(context: Context) -> int:
    """Return the exit status: done, refused (also when cancelled) or still pending."""
    if context.options.cancel:
        return cancel(context)
    before = context.client.call("vdsmd.status")["info"]
    watch = Watch(context)
    number = context.client.call("vdsmd.reexec", context.options.now)["number"]
    info = _outcome(context, watch, before, number)
    state = _state(info, before, number)
    told = _told(info, state, watch)
    context.tell(told, lambda _: _show(context, told))
    return {"done": DONE, "refused": REFUSED, "cancelled": REFUSED, "restarted": FAILED}.get(state, PENDING)


def _outcome(context: Context, watch: Watch, before: dict[str, Any], number: int) -> dict[str, Any]:
    """Return the status once the request has come to an end, or has waited as long as we are to wait."""
    patience = time.monotonic() + context.options.wait
    said: list[str] = []
    while True:
        info = watch.look()
        if _state(info, before, number) not in ("rehearsing", "pending", "quiescing"):
            return info
        waits_for = info["reexec"]["waits_for"]
        if waits_for and waits_for != said and context.screen.is_terminal and not context.options.json:
            context.screen.line(context.screen.paint(f"waiting: {'; '.join(waits_for)}", "dim"))
        said = waits_for
        if time.monotonic() > patience and info["reexec"]["state"] == "pending":
            return info
        time.sleep(LOOK_EVERY)


def _state(info: dict[str, Any], before: dict[str, Any], number: int) -> str:
    """Return what became of our request. A daemon that does not know of it has been started anew."""
    known = info["reexec"]
    if known["number"] == number:
        return str(known["state"])
    if known["number"] > number:
        return "done" if info["generation"] > before["generation"] else "refused"
    return "restarted"


def _told(info: dict[str, Any], state: str, watch: Watch) -> dict[str, Any]:
    known = info["reexec"]
    return {
        "state": state,
        "number": known["number"],
        "generation": info["generation"],
        "reason": known["reason"],
        "waits_for": known["waits_for"],
        "pause_ms": round(watch.longest * 1000, 1) if state == "done" else 0.0,
        "daemon_pause_ms": round(known["pause_ms"], 1) if state == "done" else 0.0,
        "steps": known["steps"],
    }


def _show(context: Context, told: dict[str, Any]) -> None:
    screen = context.screen
    state = screen.tone(told["state"])
    if told["state"] == "done":
        screen.line(
            f"{state}: generation {told['generation']}, pause {told['pause_ms']:.0f} ms as seen from here, "
            f"{told['daemon_pause_ms']:.0f} ms by the daemon's own measure"
        )
        if context.options.verbose:
            screen.table(["STEP", "MS"], [[step["name"], f"{step['ms']:.1f}"] for step in told["steps"]], indent="  ")
    elif told["state"] == "restarted":
        screen.line(f"{state}: the daemon does not know of the request; it has been stopped or has crashed meanwhile")
    elif told["state"] in ("refused", "cancelled"):
        screen.line(f"{state}: {told['reason']}. The code that ran before runs on, nothing was lost.")
    else:
        screen.line(f"{state}: {'; '.join(told['waits_for']) or told['state']}")
        screen.line("It will be carried out at the next safe point; `vdsmctl reexec --cancel` takes it back.")
