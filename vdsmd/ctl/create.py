"""Create: the parameters of a new virtual machine, from options that people can type."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from vdsmd.ctl.context import Context, Problem, from_json
from vdsmd.ctl.machines import await_start, show_created
from vdsmd.ctl.target import Unusable

DISK_KEYS = {"format": "format", "bus": "iface", "cache": "cache", "serial": "serial"}
UNITS = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}


def add_options(parser: Any) -> None:
    add = parser.add_argument
    add("--name", help="name of the machine (default: its id)")
    add("--id", help="its UUID (default: a new one)")
    add("--memory", metavar="SIZE", help="512 (MiB), 2G, ... (default: 1G)")
    add("--cpus", type=int, help="number of processors (default: 1)")
    add("--kernel", metavar="FILE", help="boot this kernel directly")
    add("--initrd", metavar="FILE", help="with this initial RAM disk")
    add("--append", metavar="TEXT", help="and this kernel command line")
    add(
        "--disk",
        action="append",
        default=[],
        metavar="PATH[,KEY=VALUE...]",
        help="a disk; keys: format (raw, qcow2), bus (virtio, scsi, ide), cache, serial, and the word readonly",
    )
    add("--cdrom", metavar="PATH", help="a CD image in the drive")
    add("--bridge", action="append", default=[], metavar="NAME", help="a network card on this bridge")
    add("--display", choices=["vnc", "spice", "none"], default="none", help="graphical console (default: none)")
    add("--paused", action="store_true", help="start it paused; `vdsmctl vm cont` sets it going")
    add("--wait", action="store_true", help="until it runs; fail with the reason if it does not start")
    add(
        "--params",
        metavar="FILE",
        help="a JSON object of vmParams to begin with ('-': standard input); options override it",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other key of vmParams; JSON where it parses",
    )


def create(context: Context) -> int:
    reply = context.client.call("create", parameters(context.options))
    vm_id = reply["vmList"]["vmId"]
    if context.options.wait:
        await_start(context, vm_id)
        reply["vmList"] = context.client.call("list", True, [vm_id])["vmList"][0]
    context.tell(reply, lambda value: show_created(context, value))
    return 0


def parameters(options: Any) -> dict[str, Any]:
    """Return the vmParams that the options stand for."""
    params = _from_file(options.params) if options.params else {}
    given = {
        "vmId": options.id,
        "vmName": options.name,
        "memSize": _mebibytes(options.memory) if options.memory else None,
        "smp": options.cpus,
        "kernel": _absolute(options.kernel),
        "initrd": _absolute(options.initrd),
        "kernelArgs": options.append,
        "launchPaused": True if options.paused else None,
    }
    params |= {key: value for key, value in given.items() if value is not None}
    params.setdefault("vmId", _new_id())
    params.setdefault("memSize", 1024)
    devices = params.get("devices", []) + _devices(options)
    if devices or not options.params:
        params["devices"] = devices
    for pair in options.set:
        key, found, text = pair.partition("=")
        if not found:
            raise Unusable(f"--set {pair}: expected KEY=VALUE")
        params[key] = literal(text)
    return params


def literal(text: str) -> Any:
    """Return what text says as JSON, or text itself where it is not JSON."""
    try:
        return from_json(text)
    except ValueError:
        return text


def _devices(options: Any) -> list[dict[str, Any]]:
    devices = [_disk(text) for text in options.disk]
    if options.cdrom:
        path = _absolute(options.cdrom)
        devices.append({"type": "disk", "device": "cdrom", "iface": "ide", "path": path, "readonly": "true"})
    devices += [{"type": "interface", "device": "bridge", "network": name, "nicModel": "pv"} for name in options.bridge]
    if options.display != "none":
        devices.append({"type": "graphics", "device": options.display})
        devices.append({"type": "video", "device": "qxl" if options.display == "spice" else "cirrus"})
    return devices


def _disk(text: str) -> dict[str, Any]:
    path, *words = text.split(",")
    disk: dict[str, Any] = {
        "type": "disk",
        "device": "disk",
        "iface": "virtio",
        "path": _absolute(path),
        "format": "raw",
    }
    for word in words:
        key, found, value = word.partition("=")
        if word == "readonly":
            disk["readonly"] = "true"
        elif found and key in DISK_KEYS:
            disk[DISK_KEYS[key]] = value
        else:
            raise Unusable(f"--disk {text}: {word!r} is none of {', '.join(DISK_KEYS)} or readonly")
    return disk


def _mebibytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([MGT]?)(i?B)?", text, re.IGNORECASE)
    if match is None or not int(match[1]):
        raise Unusable(f"--memory {text}: expected a size such as 512 (MiB) or 2G")
    return int(match[1]) * UNITS[match[2].upper()]


def _from_file(path: str) -> dict[str, Any]:
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        params = from_json(text)
    except (OSError, ValueError) as error:
        raise Problem(f"--params {path}: {error}") from error
    if not isinstance(params, dict):
        raise Problem(f"--params {path}: expected a JSON object")
    return params


def _absolute(path: str | None) -> str | None:
    """The daemon has another working directory than we."""
    return os.path.abspath(path) if path else None


def _new_id() -> str:
    """Return a random UUID, as `uuid.uuid4` does at twenty times the cost of start."""
    digits = bytearray(os.urandom(16))
    digits[6] = digits[6] & 0x0F | 0x40
    digits[8] = digits[8] & 0x3F | 0x80
    text = digits.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
