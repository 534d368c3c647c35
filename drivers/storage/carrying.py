"""Erasing a volume's data, and carrying them from and to a URL: commands for children, and the plans that need them.

It promises that what came in is put in place whole or not at all, that it stems from what it should, and that no URL ever
reads or writes a file of this host that is not the volume's.
"""

from __future__ import annotations

import os
import sys

from drivers.storage.chains import PART, Domains, check_ids, load, payload
from drivers.storage.errors import InvalidParameter
from drivers.storage.image_errors import VolumeDamaged
from drivers.storage.plans import at, check_writable, step, undo
from drivers.storage.qcow2 import HEADER, backing, checked_chain, leads_to
from drivers.storage.qemuimg import path
from drivers.storage.tasks.record import Command, Step
from drivers.storage.tasks.registry import deed, plan, work
from drivers.storage.volume_metadata import Format

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCHEMES = ("http://", "https://")


def program(name: str, *words: str) -> list[str]:
    """Return a command: a program of this folder, from our own release, whatever has become of the working directory."""
    return [
        "/usr/bin/env",
        f"PYTHONPATH={ROOT}",
        "PYTHONSAFEPATH=1",
        sys.executable,
        "-m",
        f"drivers.storage.{name}",
        *words,
    ]


@work("volume.zero")
def zero(domains: Domains, sd: str, image: str, volume: str) -> Command | None:
    """Overwrite a volume's data that are about to be deleted. They may be gone already."""
    domain = domains.get(sd)
    if not domains.files(domain).exists(f"images/{image}/{volume}"):
        return None
    argv = program("toil", "erase", f"{domain.path}/images/{image}/{volume}")
    return Command(argv=argv, error="VolumesZeroingError", action=f"erasing volume {volume}")


@work("volume.fetch")
def fetch(domains: Domains, sd: str, image: str, volume: str, url: str, headers: list[str]) -> Command:
    target = path(domains, sd, image, volume) + PART
    return Command(
        argv=program("toil", "fetch", url, target, *headers),
        error="ImagesActionError",
        action=f"fetching volume {volume}",
    )


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
    if not leads_to(backing(data, volume), there.get(volume).parent, there):
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
    check_ids(imgUUID=image)
    there = load(domains, sd, image)
    volume = volume or there.leaf()
    check_ids(volUUID=volume)
    check_writable(there, volume)
    where = at(sd, image, volume)
    back = undo("volume.drop_part", sd, image, volume)
    steps = [step("volume.fetch", where, url=url, headers=headers, undo=back, weight=1.0)]
    if there.get(volume).format is Format.COW:
        steps += [step("volume.inspect", where), step("volume.check", where, form="COW")]
    else:
        steps.append(step("volume.grow_part", where, size=there.get(volume).capacity))
    return [*steps, step("volume.adopt_data", where, pivot=True)]


@plan("uploadImage", error="ImagesActionError")
def upload_image(domains: Domains, sd: str, image: str, volume: str, method: dict[str, object]) -> list[Step]:
    """Send a volume's data to a URL, as they are."""
    url, headers = _method(method)
    check_ids(imgUUID=image)
    there = load(domains, sd, image)
    volume = volume or there.leaf()
    check_ids(volUUID=volume)
    checked_chain(domains, there, volume)
    return [step("volume.send", at(sd, image, volume), url=url, headers=headers, weight=1.0)]
