"""Where the hooks of operators come into the life of a machine.

It promises that each point is run with the machine's and the device's properties, in the worker that does the deed; that a host
without scripts pays one look at a folder; and that a failure before something keeps it from happening, one after it does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from drivers.errors import DriverError
from drivers.hooks import Hooks

log = logging.getLogger("hooks")

Conf = dict[str, Any]
Struct = dict[str, Any]
Xml = Callable[[], str]

NOWHERE = "/nonexistent"


class Hooked:
    """`hooks` says which scripts there are at the moment. For worker threads."""

    def __init__(self, hooks: Callable[[], Hooks] = lambda: Hooks(NOWHERE)) -> None:
        self._hooks = hooks

    def run(
        self, point: str, conf: Conf, xml: Xml, device: object = None, *, extra: dict[str, str] | None = None
    ) -> str | None:
        """Run the scripts of one point over what `xml` returns (which is not called when there are none), and return what
        they made of it; None where there are none. device: the properties of the device that it is about. extra: more
        variables. Raises HookFailed."""
        hooks = self._hooks()
        if not hooks.has(point):
            return None
        own, custom = _properties(device), _properties(conf.get("custom"))
        return hooks.run(point, _told(xml, point), vm_id=str(conf["vmId"]), custom=custom, device=own, extra=extra)

    def over(self, point: str, conf: Conf, xml: str, extra: dict[str, str] | None = None) -> str:
        """Run the scripts of one point over `xml`, with more variables, and return what they made of it. Raises HookFailed."""
        made = self.run(point, conf, lambda: xml, extra=extra)
        return xml if made is None else made

    def over_devices(self, point: str, conf: Conf, xml: str) -> None:
        """Run the scripts of one point over each device of a definition ('' for none), with its properties."""
        if xml and self.any(point):
            from drivers.vm.xml.transfer import devices  # deferred, as below

            special = [device for device in conf.get("devices", ()) if device.get("custom")]
            custom = {element_text(xml, device): device["custom"] for device in special}
            for element in map(str.strip, devices(xml)):
                self.run(point, conf, lambda text=element: text, custom.get(element))  # type: ignore[misc]

    @contextmanager
    def around(
        self,
        name: str,
        conf: Conf,
        xml: Xml = str,
        device: object = None,
        *,
        keep: bool = False,
    ) -> Iterator[None]:
        """Run the scripts before and after what is called `name` in its points, which is done within; each get what `xml`
        returns then, or with `keep` what it returned before. When it fails, those of after_<name>_fail are run instead, where
        that is a point. Raises HookFailed."""
        if keep and self.any(f"before_{name}", f"after_{name}", f"after_{name}_fail"):
            kept = _told(xml, name)
            xml = lambda: kept  # noqa: E731 (what it returns is what differs)
        self.run(f"before_{name}", conf, xml, device)
        try:
            yield
        except DriverError:
            self.run(f"after_{name}_fail", conf, xml, device)
            raise
        self.run(f"after_{name}", conf, xml, device)

    @contextmanager
    def around_piece(self, name: str, conf: Conf, device: object = None) -> Iterator[Callable[[str], str]]:
        """Do as `around` for an element that is only made within: gives what is to be asked about it once, which returns the
        element that takes its place."""
        seen: list[str] = []

        def amend(element: str) -> str:
            made = self.run(f"before_{name}", conf, lambda: element, device)
            seen.append(element if made is None else made)
            return seen[-1]

        def last() -> str:
            return seen[-1] if seen else ""

        try:
            yield amend
        except DriverError:
            self.run(f"after_{name}_fail", conf, last, device)
            raise
        self.run(f"after_{name}", conf, last, device)

    def amend(self, conf: Conf) -> Callable[[Struct, str], str]:
        """Return what is to be asked about the element of each device that is made for a start: it returns the element that
        takes its place. Raises HookFailed."""

        def one(device: Struct, element: str) -> str:
            if not device.get("custom"):
                return element
            made = self.run("before_device_create", conf, lambda: element, device["custom"])
            return element if made is None else made

        return one

    @contextmanager
    def start(self, conf: Conf, xml: str, running: Xml) -> Iterator[str]:
        """The start of a machine is done within. Gives the domain's XML as the scripts want it; those after it get what
        `running` returns. Raises HookFailed."""
        yield self.over("before_vm_start", conf, xml)
        after = _told(running, "vm_start") if self.any("after_vm_start", "after_device_create") else ""
        self.run("after_vm_start", conf, lambda: after)
        self._devices("after_device_create", conf, after)

    @contextmanager
    def destroy(self, conf: Conf, xml: Xml) -> Iterator[None]:
        """The end of a machine is done within. `xml` returns that of its domain, '' when it has none any more."""
        points = ("after_vm_destroy", "before_device_destroy", "after_device_destroy")
        before = _told(xml, "vm_destroy") if self.any(*points) else ""
        self.run("before_vm_destroy", conf, str)
        self._devices("before_device_destroy", conf, before)
        yield
        self._devices("after_device_destroy", conf, before)
        self.run("after_vm_destroy", conf, lambda: before)

    def _devices(self, point: str, conf: Conf, xml: str) -> None:
        """Run the scripts of a point for each device with properties of its own."""
        for device in conf["devices"]:
            if device.get("custom") and self.any(point):
                element = element_text(xml, device)
                self.run(point, conf, lambda text=element: text, device["custom"])  # type: ignore[misc]

    def any(self, *points: str) -> bool:
        """Say whether there is any script at one of the points."""
        return any(map(self._hooks().has, points))


def element_text(xml: str, device: Struct) -> str:
    """Return the element of a device in a domain's XML, '' when it is not there."""
    from drivers.vm.xml import pieces  # deferred, as it needs lxml; `vdsmd.deferred` has it imported

    element = pieces.element_of(xml, device) if xml else None
    return "" if element is None else pieces.text(element)


def _told(xml: Xml, point: str) -> str:
    """What the scripts of a point get. That it cannot be had is no reason to leave them out."""
    try:
        return xml()
    except DriverError as error:
        log.warning("Hooks do not get to see what they are about point=%s error=%s", point, error)
        return ""


def _properties(said: object) -> dict[str, str]:
    return {str(name): str(value) for name, value in said.items()} if isinstance(said, dict) else {}
