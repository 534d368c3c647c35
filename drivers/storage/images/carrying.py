"""Erasing a volume's data, and carrying them from and to a URL, or from a file: commands for children, and their plans.

It promises that what came in is put in place whole or not at all, is no more than the volume may hold, and stems from what it
should; and that no file of this host is ever read but a volume's, or one that everybody here may read.
"""

from __future__ import annotations

import sys
from typing import Any

from drivers.storage.errors import InvalidParameter
from drivers.storage.images.chains import PART, Domains, Image, check_ids, load, payload
from drivers.storage.images.errors import VolumeDamaged
from drivers.storage.images.qcow2 import HEADER, checked_chain, stems_from
from drivers.storage.images.qemuimg import path
from drivers.storage.images.volume_metadata import Format, Volume
from drivers.storage.images.volume_plans import at, check_writable, step, undo
from drivers.storage.tasks.record import Command, Step
from drivers.storage.tasks.registry import deed, plan, work
from state.release import ROOT

SCHEMES = ("http://", "https://")
COW_EXTRA = 64 << 20
"""Bytes, beside a sixteenth, that a cow volume's data may take beyond what they hold."""


def program(name: str, *words: str) -> list[str]:
    """Return a command: a program of this driver, from our own release, whatever has become of the working directory."""
    return [
        "/usr/bin/env",
        f"PYTHONPATH={ROOT}",
        "PYTHONSAFEPATH=1",
        sys.executable,
        "-m",
        f"drivers.storage.{name}",
        *words,
    ]


@work("volume.zero", patient=True)
def zero(domains: Domains, sd: str, image: str, volume: str) -> Command | None:
    """Overwrite a volume's data that are about to be deleted. They may be gone already."""
    domain = domains.get(sd)
    if not domains.files(domain).exists(f"images/{image}/{volume}"):
        return None
    argv = program("toil", "erase", f"{domain.path}/images/{image}/{volume}")
    return Command(argv=argv, error="VolumesZeroingError", action=f"erasing volume {volume}")


@work("volume.fetch")
def fetch(
    domains: Domains, sd: str, image: str, volume: str, url: str, headers: list[str], most: int = 1 << 62
) -> Command:
    target = path(domains, sd, image, volume) + PART
    argv = program("toil", "fetch", str(most), url, target, *headers)
    return Command(argv=argv, error="ImagesActionError", action=f"fetching volume {volume}")


@work("volume.copy_in")
def copy_in(domains: Domains, sd: str, image: str, volume: str, source: str, most: int) -> Command:
    target = path(domains, sd, image, volume) + PART
    argv = program("toil", "copy", str(most), source, target)
    return Command(argv=argv, error="ImagesActionError", action=f"copying into volume {volume}")


@work("volume.send")
def send(domains: Domains, sd: str, image: str, volume: str, url: str, headers: list[str]) -> Command:
    source = path(domains, sd, image, volume)
    return Command(
        argv=program("toil", "send", url, source, *headers),
        error="ImagesActionError",
        action=f"sending volume {volume}",
    )


@deed("volume.inspect")
def inspect(domains: Domains, sd: str, image: str, volume: str) -> None:
    """Raise VolumeDamaged when data that came in would lead elsewhere than to the volume's parent."""
    there = load(domains, sd, image)
    data = domains.files(there.domain).read(payload(image, volume) + PART, 0, HEADER)
    if not stems_from(data, volume, there.get(volume).parent, there):
        raise VolumeDamaged(volume=volume, reason="what came in does not stem from its parent")


def _method(method: dict[str, object]) -> tuple[str, list[str]]:
    """Return the URL of a request, and its headers as lines."""
    url, headers = method.get("url"), method.get("headers") or {}
    if method.get("method", "http") != "http":
        raise InvalidParameter(what="methodArgs", reason=f"{method.get('method')!r} is no method; there is http")
    if not isinstance(url, str) or not url.startswith(SCHEMES) or not url.isprintable():
        raise InvalidParameter(what="methodArgs", reason="url is no address that begins with http:// or https://")
    if not isinstance(headers, dict) or not all(_is_header(name, value) for name, value in headers.items()):
        raise InvalidParameter(what="methodArgs", reason="headers is no map of names to values of one line")
    return url, [f"{name}: {value}" for name, value in headers.items()]


def _is_header(name: object, value: object) -> bool:
    texts = isinstance(name, str) and isinstance(value, str)
    return texts and f"{name}{value}".isprintable() and ":" not in str(name)


@plan("downloadImage", error="ImagesActionError")
def download_image(domains: Domains, sd: str, image: str, volume: str, method: dict[str, object]) -> list[Step]:
    """Fetch a volume's data from a URL."""
    url, headers = _method(method)
    there, volume = found(domains, sd, image, volume)
    check_writable(there, volume)
    return taking_in(there, volume, "volume.fetch", url=url, headers=headers, most=most_for(there.get(volume)))


@plan("uploadVolume", error="ImagesActionError", attended=True)
def upload_volume(domains: Domains, sd: str, image: str, volume: str, source: str, method: str) -> list[Step]:
    """Fetch a volume's data from a URL ("wget"), or copy them from a file of this host ("rsync")."""
    check_ids(imgUUID=image, volUUID=volume)
    if method == "wget":
        return download_image(domains, sd, image, volume, {"url": source})
    if method != "rsync":
        raise InvalidParameter(what="method", reason=f"{method!r} is neither rsync nor wget")
    if not source.startswith("/") or not source.isprintable():
        raise InvalidParameter(what="srcPath", reason="it is not the whole path of a file on this host")
    there, volume = found(domains, sd, image, volume)
    check_writable(there, volume)
    return taking_in(there, volume, "volume.copy_in", source=source, most=most_for(there.get(volume)))


def found(domains: Domains, sd: str, image: str, volume: str) -> tuple[Image, str]:
    """Return the image, and its volume ('': the last of its chain)."""
    check_ids(imgUUID=image)
    there = load(domains, sd, image)
    volume = volume or there.leaf()
    check_ids(volUUID=volume)
    there.get(volume)
    return there, volume


def most_for(volume: Volume) -> int:
    """Return how many bytes a volume's data may have."""
    return volume.capacity if volume.format is Format.RAW else volume.capacity + volume.capacity // 16 + COW_EXTRA


def taking_in(there: Image, volume: str, how: str, **args: Any) -> list[Step]:
    """Return the steps that put data in a volume's place which the step `how` brings, when they are whole and may be there."""
    sd, image, target = there.domain.uuid, there.uuid, there.get(volume)
    where, back = at(sd, image, volume), undo("volume.drop_part", sd, image, volume)
    if target.format is Format.COW:
        checks = [step("volume.inspect", where), step("volume.measure", where), step("volume.check", where, form="COW")]
    else:
        checks = [step("volume.grow_part", where, size=target.capacity)]
    data = step(how, where, undo=back, weight=1.0, **args)
    return [data, *checks, step("volume.adopt_data", where, pivot=True)]


@plan("uploadImage", error="ImagesActionError")
def upload_image(domains: Domains, sd: str, image: str, volume: str, method: dict[str, object]) -> list[Step]:
    """Send a volume's data to a URL, as they are."""
    url, headers = _method(method)
    there, volume = found(domains, sd, image, volume)
    checked_chain(domains, there, volume)
    return [step("volume.send", at(sd, image, volume), url=url, headers=headers, weight=1.0)]
