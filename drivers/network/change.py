"""Change: carries out a plan, verifies it, and keeps it or takes it back. Imported after the first answer.

It promises that however a change ends (done, refused by the kernel, cut off from the engine, or struck down at any step), what
is left is the old configuration or the new one, whole: what undoes the steps is written down before the first is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from drivers.base import Root
from drivers.errors import DriverError
from drivers.network.errors import BringUpFailed, ChangeUnfinished, TakeDownFailed
from drivers.network.kernel import Kernel
from drivers.network.model import Act, Configuration, Step
from drivers.network.plan import plan
from drivers.network.store import RUNNING, Change, Store
from supervdsm.client import ActionError, HelperGone, NoHelper, NotAllowed, NotFound, TimedOut

log = logging.getLogger("network")

UNKNOWN = (HelperGone, NoHelper, TimedOut)
"""The helper did not say what became of an action."""
REMOVING = (
    "link.delete", "link.detach", "link.down", "address.delete", "route.delete", "rule.delete", "dhcp.stop", "dhcp6.stop",
    "qos.clear", "rate.clear",
)  # fmt: skip


class Changer:
    """Makes changes, one at a time: its caller sees to that. All calls block, and are for worker threads."""

    def __init__(self, root: Root, store: Store, see: Callable[[Configuration], Kernel]) -> None:
        self._root = root
        self._store = store
        self._see = see

    def change(
        self,
        before: Configuration,
        after: Configuration,
        steps: list[Step],
        commit: Callable[[], None],
        *,
        left: Collection[str] = (),
    ) -> None:
        """Carry the steps out, and have `commit()` write down that `after` is the running configuration, where that is new, or
        raise when the change must not stay. `left`: steps that may be missing, in words. Raises what went wrong, when all
        is as before; or ChangeUnfinished."""
        self._store.begin(before, after, steps)
        try:
            self._carry_out(steps)
            self._verify(after, left)
            commit()
        except (DriverError, OSError):
            self.take_back()
            raise
        self._store.end()

    def take_back(self) -> None:
        """Undo what the journal says was under way, or conclude it if it had been committed. Raises ChangeUnfinished when
        the helper cannot be reached; then it is to be called again."""
        found = self._store.unfinished()
        if found is None:
            return
        change, last = found
        if not self._is_committed(change):
            self._undo(change.steps, last)
        self._store.end()

    def _is_committed(self, change: Change) -> bool:
        running = self._store.load(RUNNING)
        if running is None or running.boot != change.boot:
            return False  # what ran before a reboot is the very thing that is to be restored
        return running.configuration == change.after and change.after != change.before

    def _carry_out(self, steps: list[Step]) -> None:
        for number, step in enumerate(steps):
            self._store.reach(number)
            try:
                self._do(step.do)
            except ActionError as error:
                kind = TakeDownFailed if step.do.action in REMOVING else BringUpFailed
                raise kind(action=step.do, reason=str(error)) from error

    def _verify(self, after: Configuration, left: Collection[str]) -> None:
        missing = [str(step.do) for step in plan(self._see(after), after, after)]
        if more := [step for step in missing if step not in left]:
            raise BringUpFailed(action="verification", reason=f"the kernel did not keep to it: {more[0]}")

    def _undo(self, steps: list[Step], last: int) -> None:
        for number in range(last, -1, -1):
            self._store.reach(number)
            for act in steps[number].undo:
                self._undo_one(act)

    def _undo_one(self, act: Act) -> None:
        try:
            self._do(act)
        except UNKNOWN as error:
            raise ChangeUnfinished(reason=f"{act}: {error}") from error
        except (NotFound, NotAllowed) as error:
            log.info("There is nothing to undo act=%s reason=%s", act, error)  # it was not done, or its device has gone
        except ActionError as error:
            log.error("A step could not be undone act=%s error=%s", act, error)

    def _do(self, act: Act) -> None:
        log.debug("do act=%s", act)
        self._root.call(act.action, **act.arguments)
