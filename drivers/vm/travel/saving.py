"""Saving: a machine's memory goes into a file, and the machine is Down, to be restored some day.

It promises that the guest runs on when that fails, and that a file which is not whole is not taken for one.
"""

from __future__ import annotations

from drivers.errors import Failed
from drivers.vm.contract import MISSING, SAVED, Ending
from drivers.vm.desk import Desk
from drivers.vm.errors import NothingToCancel
from drivers.vm.hypervisor.link import Link
from drivers.vm.machine import Journey, Machine, Way
from drivers.vm.travel.carrier import Order
from drivers.vm.travel.departures import Departures
from drivers.vm.travel.memory import is_whole, places_of, write_params


class Saving:
    """A kind of departure (`drivers.vm.travel.departures.Kind`), and how it begins. All of it in workers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def begin(self, departures: Departures, vm_id: str, handle: str) -> None:
        """Save the machine where the handle says. Raises NoSuchVm, OnItsWay, Invalid, ImageUnavailable, HypervisorDown."""
        machine = self._desk.running(vm_id)
        self._desk.connection.require()
        places = places_of(self._desk.images(), handle)
        departures.begin(machine, Journey(way=Way.SAVE, memory=places.memory, params=places.params))

    def prepare(self, machine: Machine, link: Link) -> Order:
        journey = _journey(machine)
        xml = link.jobs.migratable(machine.vm_id)
        self._desk.hooked.over("before_vm_hibernate", machine.conf, xml)
        if journey.params:
            write_params(journey.params, machine.conf)
        return Order(uri=link.uri, vm_id=machine.vm_id, deed="save", target=journey.memory, xml=xml)

    def ending(self, machine: Machine) -> Ending:
        try:
            return SAVED if is_whole(_journey(machine).memory) else MISSING
        except Failed:
            return MISSING  # where it cannot be read, it cannot be said to be whole

    def failed(self, machine: Machine, journey: Journey) -> None:
        """The file is left as it is: it begins in a way that nobody takes for a whole one."""

    def left(self, machine: Machine, journey: Journey, xml: str) -> None:
        self._desk.hooked.over("after_vm_hibernate", machine.conf, xml)


def _journey(machine: Machine) -> Journey:
    if machine.journey is None:
        raise NothingToCancel(vm=machine.vm_id)
    return machine.journey
