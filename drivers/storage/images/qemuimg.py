"""What `qemu-img` is asked to do, as commands for children. No image is ever opened in the daemon.

It promises that a volume's data are written under another name (`.part`) whenever they take longer than a moment, so that what
bears the volume's name is whole, and on the medium; and that every command may be run again from the start.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

from drivers.storage.contract import BLANK
from drivers.storage.images.chains import PART, Domains, opened, payload
from drivers.storage.images.errors import VolumeDamaged
from drivers.storage.images.volume_metadata import Format
from drivers.storage.tasks.record import Command
from drivers.storage.tasks.registry import work

QEMU_IMG = "/usr/bin/qemu-img"
NAMES = {"RAW": "raw", "COW": "qcow2"}
"""The formats of volumes, as QEMU calls them."""
MODERN_FROM = 4
"""The version of domains from which on cow volumes need not be readable by the oldest QEMUs."""


def path(domains: Domains, sd: str, image: str, volume: str) -> str:
    domain, _files = opened(domains, sd)
    return f"{domain.path}/{payload(image, volume)}"


class Makers(Domains, Protocol):
    """Who knows the storage domains, and what volumes are to be like."""

    @property
    def qcow2_compat(self) -> str:
        """The oldest QEMU that must be able to read what is made on older domains: 0.10 or 1.1."""


def _options(domains: Makers, sd: str, form: str, preallocate: bool) -> list[str]:
    domain, _files = opened(domains, sd)
    version = "1.1" if domain.version >= MODERN_FROM else domains.qcow2_compat
    compat = [f"compat={version}"] if form == Format.COW.name else []
    options = compat + ["preallocation=falloc"] * preallocate
    return ["-o", ",".join(options)] if options else []


def _check_place(domains: Domains, sd: str, place: str, volume: str) -> None:
    """Raise VolumeDamaged when data are about to be written through a link. An earlier try may have left a file."""
    _domain, files = opened(domains, sd)
    with contextlib.suppress(FileNotFoundError):
        if not files.stat(place).is_file:
            raise VolumeDamaged(volume=volume, reason="something else is in their place")


@work("volume.create")
def create(
    domains: Makers,
    sd: str,
    image: str,
    volume: str,
    size: int,
    form: str,
    preallocate: bool = False,
    parent: str = BLANK,
    parent_form: str = "",
) -> Command:
    """Make the data of a volume: empty, or those of its parent."""
    backing = ["-b", parent, "-F", NAMES[parent_form]] if parent != BLANK else []
    options = _options(domains, sd, form, preallocate)
    target = path(domains, sd, image, volume)
    _check_place(domains, sd, payload(image, volume), volume)
    argv = [QEMU_IMG, "create", "-q", "-f", NAMES[form], *options, *backing, target, str(size)]
    return Command(argv=argv, error="VolumeCreationError", action=f"making the data of volume {volume}")


@work("volume.convert")
def convert(
    domains: Makers,
    source_sd: str,
    source_image: str,
    source_volume: str,
    source_form: str,
    sd: str,
    image: str,
    volume: str,
    form: str,
    preallocate: bool = False,
    parent: str = BLANK,
    parent_form: str = "",
    error: str = "CopyImageError",
) -> Command:
    """Copy a volume's data to `<volume>.part`: all that its chain says, or with `parent` only what it says beyond that one."""
    options = _options(domains, sd, form, preallocate)
    backing = ["-B", parent, "-F", NAMES[parent_form]] if parent != BLANK else []
    source = path(domains, source_sd, source_image, source_volume)
    target = path(domains, sd, image, volume) + PART
    _check_place(domains, sd, payload(image, volume) + PART, volume)
    form_options = ["-f", NAMES[source_form], "-O", NAMES[form], *options, *backing]
    # By itself it leaves the data in memory; when a move deletes the source, they must be on the medium.
    argv = [QEMU_IMG, "convert", "-p", "-t", "writeback", *form_options, source, target]
    return Command(argv=argv, error=error, action=f"copying volume {source_volume}")


@work("volume.rebase_part")
def rebase_part(domains: Domains, sd: str, image: str, volume: str, parent: str, parent_form: str) -> Command:
    """Let the data in `<volume>.part` stem from another volume, with the same contents as before."""
    target = path(domains, sd, image, volume) + PART
    argv = [QEMU_IMG, "rebase", "-p", "-f", "qcow2", "-b", parent, "-F", NAMES[parent_form], target]
    return Command(argv=argv, error="MergeSnapshotsError", action=f"merging into volume {volume}")


@work("volume.point_to", patient=True)
def point_to(domains: Domains, sd: str, image: str, volume: str, parent: str, parent_form: str) -> Command:
    """Write into a volume's data what its parent is, and nothing else."""
    target = path(domains, sd, image, volume)
    argv = [QEMU_IMG, "rebase", "-u", "-f", "qcow2", "-b", parent, "-F", NAMES[parent_form], target]
    return Command(argv=argv, error="MergeSnapshotsError", action=f"telling volume {volume} of its parent")


@work("volume.resize", whole=True)
def resize(domains: Domains, sd: str, image: str, volume: str, size: int, form: str, preallocate: bool) -> Command:
    options = ["--preallocation=falloc"] if preallocate else []
    argv = [QEMU_IMG, "resize", "-q", "-f", NAMES[form], *options, path(domains, sd, image, volume), str(size)]
    return Command(argv=argv, error="VolumeExtendingError", action=f"extending volume {volume}")


@work("volume.check")
def check(domains: Domains, sd: str, image: str, volume: str, form: str) -> Command | None:
    """Have the structures in `<volume>.part` checked. Leaks waste room and harm nothing."""
    if form != Format.COW.name:
        return None
    argv = [QEMU_IMG, "check", "-q", "-f", "qcow2", path(domains, sd, image, volume) + PART]
    return Command(argv=argv, error="VolumeCopyError", action=f"checking volume {volume}", done_when=(0, 3))
