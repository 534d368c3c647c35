"""How machines on their way are doing, as callers are told. Light: it answers from memory, in the loop's thread."""

from __future__ import annotations

from typing import Any

from drivers.vm.contract import Status
from drivers.vm.machine import Journey, Machine, Stage, Way

_DONE = {Way.OUT: "Migration done", Way.IN: "Migration done", Way.SAVE: "SaveState done"}
_UNDERWAY = {Way.OUT: "Migration in progress", Way.IN: "Migration in progress", Way.SAVE: "SaveState in progress"}


def status_of(machine: Machine) -> dict[str, Any]:
    """Return how the last way of the machine goes, or ended, as migrateStatus tells it."""
    journey = machine.journey or Journey(way=Way.OUT)
    failed = journey.stage is Stage.FAILED
    text = journey.told if failed else _DONE[journey.way] if journey.stage is Stage.DONE else _UNDERWAY[journey.way]
    arriving = machine.status is Status.MIGRATION_DESTINATION
    return {"code": journey.code if failed else "", "message": text, "progress": 0 if arriving else journey.progress}
