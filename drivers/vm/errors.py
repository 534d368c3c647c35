"""What can go wrong with changes to a running virtual machine, each with its name on the wire.

Imported with the changes themselves, after the first answer.
"""

from __future__ import annotations

from drivers.errors import AlreadyExists, Busy, Failed, NotFound, NotResponding


class ChangeFailed(Failed):
    """A change was refused, or did not work. The machine is as before."""

    message = "{reason} (virtual machine {vm})"
    knows_images = False
    """Whether callers of what failed know ImageUnavailable, too."""


class ChangeDiskFailed(ChangeFailed):
    wire = "changeDisk"
    knows_images = True


class HotplugDiskFailed(ChangeFailed):
    wire = "hotplugDisk"


class HotunplugDiskFailed(ChangeFailed):
    wire = "hotunplugDisk"


class HotplugNicFailed(ChangeFailed):
    wire = "hotplugNic"


class HotunplugNicFailed(ChangeFailed):
    wire = "hotunplugNic"


class HotplugMemoryFailed(ChangeFailed):
    wire = "hotplugMem"


class CpusFailed(ChangeFailed):
    wire = "setNumberOfCpusErr"


class UpdateDeviceFailed(ChangeFailed):
    wire = "updateDevice"


class BalloonFailed(ChangeFailed):
    wire = "balloonErr"


class CpuTuneFailed(ChangeFailed):
    wire = "cpuTuneErr"


class PolicyFailed(ChangeFailed):
    wire = "updateVmPolicyErr"


class IoTuneFailed(ChangeFailed):
    wire = "updateIoTuneErr"


class ResizeFailed(ChangeFailed):
    wire = "resizeErr"
    knows_images = True


class SnapshotFailed(ChangeFailed):
    wire = "snapshotErr"


class MergeFailed(ChangeFailed):
    wire = "mergeErr"
    knows_images = True


class ReplicaFailed(ChangeFailed):
    wire = "replicaErr"
    knows_images = True


class TransientDisk(ChangeFailed):
    wire = "transientErr"


class FreezeFailed(ChangeFailed):
    wire = "freezeErr"


class ThawFailed(ChangeFailed):
    wire = "thawErr"


class NotReady(Busy):
    """It will be possible later."""

    wire = "unavail"


class MigrationInProgress(Busy):
    message = "Virtual machine {vm} is on its way: {status}"
    wire = "migInProgress"


class ImageUnavailable(NotFound):
    message = "An image cannot be used: {reason}"
    wire = "imageErr"


class NoSuchDevice(NotFound):
    message = "The virtual machine has no such {kind}: {name}"


class CreateFailed(Failed):
    message = "Virtual machine {vm} cannot come here: {reason}"
    wire = "createErr"


class MigrationFailed(Failed):
    message = "Virtual machine {vm} cannot be migrated: {reason}"
    wire = "migrateErr"


class NothingToCancel(Failed):
    message = "Virtual machine {vm} is on no way that could be cancelled"
    wire = "migCancelErr"


class OnItsWay(AlreadyExists):
    message = "Virtual machine {vm} is on its way already: {status}"


class PeerRefused(Failed):
    """The other daemon answered, and did not do it."""

    message = "{peer} refused: {reason} (code {code})"


class PeerUnreachable(Failed):
    """Nothing was sent."""


class PeerSilent(NotResponding):
    """Nobody knows whether the other daemon did it."""
