"""Events: shows the event journal, and follows it over re-execs, crashes and restarts of the daemon.

It promises to show every event once and in order, and to say where some are missing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from vdsmd.ctl.context import DONE, Context, as_json
from vdsmd.ctl.show import clean
from vdsmd.ctl.wire import Lost, Unreachable

LOOK_EVERY = 0.2
SAY_AFTER = 2.0
"""Seconds without an answer after which a follower is told that the daemon is away."""
LINE = "{:>7}  {:19}  {:<16}  {}"


def events(context: Context) -> int:
    """Show the journal from --since on. With --follow, go on until interrupted."""
    follower = Follower(context)
    if not context.options.json:
        context.screen.line(context.screen.paint(LINE.format("NUMBER", "TIME", "EVENT", "WHAT"), "bold"))
    follower.read()
    try:
        while context.options.follow:
            time.sleep(LOOK_EVERY)
            follower.look()
    except KeyboardInterrupt:
        pass  # how following ends
    return DONE


class Follower:
    """Knows how far it has read, and of which journal."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._client = context.client
        self._journal = ""
        self._since: int = context.options.since
        self._away_since = 0.0
        self._said = False

    def read(self) -> None:
        """Show all there is to show now. Raises Unreachable or Lost; nothing is lost by asking again after it."""
        more = True
        while more:
            page = self._client.call("vdsmd.events", str(self._since))
            more = self._show(page)
            sys.stdout.flush()  # a follower's reader waits for lines, not for blocks

    def look(self) -> None:
        """Read on if there is something new. While the daemon is away, wait for it."""
        try:
            told = self._client.call("vdsmd.status")["info"].get("events")
            if told and (told["journal"] != self._journal or int(told["last"]) != self._since):
                self.read()
        except (Unreachable, Lost) as error:
            self._be_patient(error)
            return
        if self._said:
            self._say("The daemon answers again")
        self._away_since, self._said = 0.0, False

    def _show(self, page: dict[str, Any]) -> bool:
        """Show a page; return whether there may be more."""
        if self._begins_anew(page):
            self._journal, self._since = page["journal"], 0
            self._write({"journal": page["journal"]}, "-- numbers have begun anew: what came before is lost")
            return True
        self._journal = page["journal"]
        for event in _in_order(page):
            if "missed" in event:
                low, high = event["missed"]
                told = f"event {low} is" if low == high else f"events {low} to {high} are"
                self._write(event, f"-- {told} missing: lost, or too old to be kept")
            else:
                self._write(event, _line(event))
        self._since = int(page["read_to"])
        return self._since < int(page["last"])

    def _begins_anew(self, page: dict[str, Any]) -> bool:
        return int(page["last"]) < self._since or self._journal not in ("", page["journal"])

    def _write(self, value: dict[str, Any], line: str) -> None:
        self._context.screen.line(as_json(value, indent=None) if self._context.options.json else line)

    def _be_patient(self, error: Exception) -> None:
        now = time.monotonic()
        self._away_since = self._away_since or now
        if now - self._away_since > SAY_AFTER and not self._said:
            self._said = True
            self._say(f"Waiting for the daemon: {error}")

    def _say(self, text: str) -> None:
        """Tell the user, apart from events."""
        print(f"vdsmctl: {text}", file=sys.stderr, flush=True)


def _in_order(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield events, and `{"missed": [from, to]}` where some are missing, with numbers as numbers."""
    missed = [{"missed": [int(low), int(high)]} for low, high in page["missed"]]
    found = [{**event, "number": int(event["number"])} for event in page["events"]]
    yield from sorted([*found, *missed], key=lambda each: each["missed"][0] if "missed" in each else each["number"])


def _line(event: dict[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"]))
    what = " ".join(f"{field}={clean(value)}" for field, value in event["fields"].items())
    return LINE.format(event["number"], at, clean(event["name"]), what).rstrip()
