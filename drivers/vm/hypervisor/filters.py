"""Filters: what libvirt is to do to the traffic of nics that ask for it by name.

It promises that the filter that engines ask for is there where libvirt can filter at all, so that nics with it can be plugged
in; and that one of that name that is there already, whoever has defined it, stays as it is.
"""

from __future__ import annotations

import logging
from typing import Any

import libvirt

from drivers.vm.conf.devices import NO_SPOOFING

log = logging.getLogger("libvirt")

XML = f"""
<filter name='{NO_SPOOFING}' chain='root'>
  <rule action='drop' direction='out' priority='-900'><mac match='no' srcmacaddr='$MAC'/></rule>
  <rule action='drop' direction='out' priority='-899'><arp match='no' arpsrcmacaddr='$MAC'/></rule>
</filter>
"""
"""A guest sends frames, and ARP messages, that bear its own address; others are dropped."""
UNKNOWN = (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_OPERATION_UNSUPPORTED)


def define(connection: Any) -> None:
    """Have libvirt know the filter. Where it cannot filter, machines whose nics ask for it are refused by libvirt itself."""
    try:
        if NO_SPOOFING not in connection.listNWFilters():
            connection.nwfilterDefineXML(XML)
            log.info("Defined a network filter name=%s", NO_SPOOFING)
    except libvirt.libvirtError as error:
        level = logging.INFO if error.get_error_code() in UNKNOWN else logging.WARNING
        log.log(level, "There is no network filter name=%s reason=%s", NO_SPOOFING, error)
