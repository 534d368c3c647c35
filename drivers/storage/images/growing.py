"""Growing: what is to be done in a volume when the disk that it is has become larger, and no machine has it.

It promises that only the number which a cow volume says of itself is changed: raw ones grow on the SPM, by a task. For worker
threads.
"""

from __future__ import annotations

from drivers import programs
from drivers.errors import Busy
from drivers.storage.images.chains import Domains
from drivers.storage.images.changing import change_meta
from drivers.storage.images.errors import NotLeaf, SharedNotWritable, SizeImpossible, VolumeExtensionFailed
from drivers.storage.images.qcow2 import checked_chain
from drivers.storage.images.volume_metadata import SECTOR, Format
from drivers.storage.images.volume_plans import check_writable
from drivers.storage.images.volumes import find_volume

QEMU_IMG = "/usr/bin/qemu-img"
TIMEOUT = 60.0


class NotWritable(Busy):
    message = "{reason}"
    wire = "VolumeNonWritable"


def grow(domains: Domains, sd: str, image: str, volume: str, size: int) -> int:
    """Have a cow volume show its guest `size` bytes. Return how many a volume shows, whatever its format. Raises NotWritable,
    SizeImpossible, and VolumeExtensionFailed, also when a machine has it after all."""
    there, found = find_volume(domains, sd, image, volume)
    try:
        check_writable(there, volume)
    except (NotLeaf, SharedNotWritable) as error:
        raise NotWritable(reason=error) from error
    if found.format is Format.RAW:
        return found.capacity
    size = -(-size // SECTOR) * SECTOR
    if size < found.capacity:
        reason = "it cannot be made smaller"
        raise SizeImpossible(what="newSize", volume=volume, size=found.capacity, wanted=size, reason=reason)
    checked_chain(domains, there, volume)
    ran = programs.run([QEMU_IMG, "resize", "-q", "-f", "qcow2", there.path(volume), str(size)], timeout=TIMEOUT)
    if ran.code:
        raise VolumeExtensionFailed(action=f"extending volume {volume}", reason=ran.reason())
    change_meta(domains, sd, image, volume, capacity=size)
    return size
