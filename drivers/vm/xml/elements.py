"""What elements of a domain are made with.

It promises that what XML cannot carry is refused with its place. Imported after the start: lxml is slow to load.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from lxml import etree

from drivers.errors import Invalid

Element = etree._Element


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What the host brings to a domain. See `drivers.vm.xml.domain.domain_xml` for the fields."""

    vm_id: str
    virt_type: str
    channels_dir: str
    drive_cache: str
    display_address: str
    spice_tls: bool
    net_filters: bool
    console: str | None
    taps: bool = False
    net_limits: bool = True
    secrets: bool = True
    address_on: Callable[[str], str] | None = None


def add(parent: Element, tag: str, text: object = None, **attributes: object) -> Element:
    """Append an element to `parent`. Attributes that are None or empty text are left out."""
    element = etree.SubElement(parent, tag)
    set_all(element, {key: str(value) for key, value in attributes.items() if value is not None and value != ""}, text)
    return element


def set_all(element: Element, attributes: dict[str, str], text: object = None) -> None:
    """Set attributes and text. Raises Invalid for characters that XML cannot carry: they came past `normalise`."""
    try:
        for name, value in attributes.items():
            element.set(name, value)
        element.text = None if text is None else str(text)
    except ValueError as error:
        raise Invalid(what=element.tag, reason=str(error)) from None
