"""The world as policies see it: the host and its guests, in numbers, and what is asked of them.

It promises that a control asks for something only when it would change something, and never for more than a guest was given nor
for less than it was promised. Memory is in KiB. Everything is known from the public API, and asked for through it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

REMEMBERED = 10
"""Samples of which `StatAvg` gives the mean."""

Deed = tuple[str, tuple[Any, ...]]
"""A verb, and its arguments."""

HOST_MEMORY = {
    "mem_free": "memFree",
    "mem_committed": "memCommitted",
    "swap_total": "swapTotal",
    "swap_free": "swapFree",
}
"""Names of policies, and those of getVdsStats, which has MiB."""
KSM = ("ksm_run", "ksm_pages_to_scan", "ksm_sleep_millisecs")
MERGE = "ksm_merge_across_nodes"
GUEST_VERBS = {
    "balloon_target": "setBalloonTarget",
    "vcpu_quota": "vmSetCpuTuneQuota",
    "vcpu_period": "vmSetCpuTunePeriod",
}
GUEST_NAMES = {
    "vcpu_count": "vcpuCount",
    "vcpu_quota": "vcpuQuota",
    "vcpu_period": "vcpuPeriod",
    "vcpu_user_limit": "vcpuUserLimit",
}


class Entity:
    """The host, or a guest: what is known of it, and what has been asked of it in this round."""

    controls: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.variables: dict[str, Any] = {}
        self._past: dict[str, deque[float]] = {}
        self._now: dict[str, float | str] = {}
        self._asked: dict[str, int] = {}
        self._done: dict[str, int] = {}

    def see(self, values: Mapping[str, float | str]) -> None:
        """Take note of a new sample; what it lacks is not known any more. Nothing has been asked yet."""
        self._now = dict(values)
        self._past = {
            name: self._past.get(name) or deque(maxlen=REMEMBERED)
            for name, value in values.items()
            if isinstance(value, float)
        }
        for name, past in self._past.items():
            past.append(float(values[name]))
        self._asked = {}

    def stat(self, name: str) -> float | str | None:
        return self._now.get(name)

    def average(self, name: str) -> float | None:
        past = self._past.get(name)
        return sum(past) / len(past) if past else None

    def control(self, name: str, value: float) -> None:
        if name not in self.controls:
            raise KeyError(name)
        self._asked[name] = round(value)

    def deeds(self) -> list[tuple[Deed, list[str]]]:
        """Return what must be done for what has been asked, each with the controls that it is for."""
        return []

    def did(self, names: list[str]) -> None:
        """What was asked of these has been done."""
        self._done |= {name: self._asked[name] for name in names}

    def _new(self) -> dict[str, int]:
        """Return what is asked, and is not so yet as far as can be seen: else, as far as we have done it."""
        return {
            name: value
            for name, value in self._asked.items()
            if value != (self._now[name] if isinstance(self._now.get(name), float) else self._done.get(name))
        }


class Host(Entity):
    controls = (*KSM, MERGE)

    def look(self, statistics: Mapping[str, Any], memory: int, processors: int) -> None:
        """See getVdsStats, and what does not change: KiB of memory, and processors."""
        values = _numbers(statistics)
        values |= {name: values[key] * 1024 for name, key in HOST_MEMORY.items() if key in values}
        values |= {"mem_available": float(memory), "cpu_count": float(processors)}
        values |= {"ksm_run": float(bool(statistics.get("ksmState"))), "ksm_pages_to_scan": values.get("ksmPages", 0.0)}
        self.see(values)

    def deeds(self) -> list[tuple[Deed, list[str]]]:
        """See Entity. Sharing between nodes is apart: the kernel may refuse that alone."""
        new = self._new()
        groups = ([name for name in KSM if name in new], [name for name in (MERGE,) if name in new])
        return [
            (("setKsmTune", ({name.removeprefix("ksm_"): new[name] for name in names},)), names)
            for names in groups
            if names
        ]


class Guest(Entity):
    controls = tuple(GUEST_VERBS)

    def __init__(self, vm_id: str) -> None:
        super().__init__()
        self._id = vm_id

    def look(self, statistics: Mapping[str, Any]) -> None:
        """See one struct of getAllVmStats."""
        known = _numbers(statistics)
        values: dict[str, float | str] = {name: known[key] for name, key in GUEST_NAMES.items() if key in known}
        for part in ("memoryStats", "balloonInfo"):
            values |= _numbers(statistics.get(part) or {})
        name = str(statistics.get("vmName") or self._id)
        self.see({**known, **values, "name": name, "uuid": self._id})

    def deeds(self) -> list[tuple[Deed, list[str]]]:
        if "balloon_target" in self._asked:
            self._asked["balloon_target"] = self._within(self._asked["balloon_target"])
        return [((GUEST_VERBS[name], (self._id, value)), [name]) for name, value in self._new().items()]

    def _within(self, target: int) -> int:
        low, high = self.stat("balloon_min"), self.stat("balloon_max")
        # 0 is what is told of a guest whose hypervisor does not say.
        target = min(target, int(high)) if isinstance(high, float) and high else target
        return max(target, int(low)) if isinstance(low, float) else target


class World:
    """The host, and those of its guests that run."""

    def __init__(self) -> None:
        self.host = Host()
        self.guests: dict[str, Guest] = {}

    def look(self, host: Mapping[str, Any], guests: list[dict[str, Any]], *, memory: int, processors: int) -> None:
        self.host.look(host, memory, processors)
        up = {str(each["vmId"]): each for each in guests if each.get("status") == "Up"}
        self.guests = {vm_id: self.guests.get(vm_id) or Guest(vm_id) for vm_id in up}
        for vm_id, statistics in up.items():
            self.guests[vm_id].look(statistics)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return what is a number, or is one written down."""
    found = {}
    for name, value in values.items():
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            continue
    return found
