"""What can go wrong with images and volumes, by meaning. `wire` is the name of the code that clients know it by."""

from __future__ import annotations

from drivers.errors import AlreadyExists, Busy, Failed, Invalid, NotFound, Unsupported


class NoSuchVolume(NotFound):
    message = "Volume does not exist: {volume}"
    wire = "VolumeDoesNotExist"


class NoSuchImage(NotFound):
    message = "Image {image} does not exist on storage domain {domain}"
    wire = "ImageDoesNotExistInSD"


class VolumeExists(AlreadyExists):
    message = "Volume already exists: {volume}"
    wire = "VolumeAlreadyExists"


class ImageExists(AlreadyExists):
    message = "Image {image} already exists on storage domain {domain}, and is not to be overwritten"
    wire = "OverwriteImageError"


class NotAnImageDomain(Unsupported):
    message = "Storage domain {domain} holds no images of virtual machines"
    wire = "ImagesNotSupportedError"


class VolumeMetadataBroken(Failed):
    message = "The metadata of volume {volume} makes no sense: {reason}"
    wire = "VolumeMetadataReadError"


class IncorrectFormat(Invalid):
    message = "A volume of format {format} is impossible: {reason}"
    wire = "IncorrectFormat"


class IncorrectType(Invalid):
    message = "A volume of allocation {allocation} is impossible: {reason}"
    wire = "IncorrectType"


class VolumeTooSmall(Invalid):
    message = "A volume of {size} bytes cannot hold its parent of {parent} bytes"
    wire = "createVolumeSizeError"


class SizeImpossible(Invalid):
    message = "Volume {volume} of {size} bytes cannot be made {wanted} bytes long: {reason}"
    wire = "VolumeResizeValueError"


class ParentIllegal(Busy):
    message = "Volume {volume} is not legal: nothing can be made on top of it"
    wire = "createIllegalVolumeSnapshotError"


class VolumeIllegal(Busy):
    message = "Volume {volume} is not legal: it cannot be prepared"
    wire = "prepareIllegalVolumeError"


class NotPrepared(NotFound):
    message = "Volume {volume} is not prepared on this host"
    wire = "VolumeWasNotPreparedBeforeTeardown"


class NotShareable(Busy):
    message = "Volume {volume} of image {image} is no template: another image cannot have it as its parent"
    wire = "VolumeNonShareable"


class HasChildren(Busy):
    message = "Volume {volume} has children: {children}"
    wire = "VolumeImageHasChildren"


class SharedVolumeKept(Busy):
    message = "Volume {volume} is shared, and used by others: {users}"
    wire = "CannotDeleteSharedVolume"


class NotLeaf(Busy):
    message = "Volume {volume} is not the last of its chain: it cannot be written"
    wire = "NonLeafVolumeNotWritable"


class SharedNotWritable(Busy):
    message = "Volume {volume} is shared: it cannot be written"
    wire = "SharedVolumeNonWritable"


class ChainBroken(Failed):
    message = "The volumes of image {image} are no chain: {reason}"
    wire = "ImageIsNotLegalChain"


class NotInChain(NotFound):
    message = "Volume {volume} is not in the chain of image {image}"
    wire = "MergeSnapshotsError"


class TemplateMissing(NotFound):
    message = "Image {image} stems from template {volume}, which storage domain {domain} does not have"
    wire = "CouldNotValideTemplateOnTargetDomain"


class VolumeDamaged(Failed):
    message = "The data of volume {volume} are not as they should be: {reason}"
    wire = "VolumeAccessError"


class NotSparse(Invalid):
    message = "Volume {volume} is preallocated: there is nothing to be gained"
    wire = "VolumeNotSparse"


class VolumeCreationFailed(Failed):
    wire = "VolumeCreationError"


class VolumeDeletionFailed(Failed):
    wire = "CannotDeleteVolume"


class VolumeExtensionFailed(Failed):
    wire = "VolumeExtendingError"


class VolumeReadFailed(Failed):
    wire = "VolumeMetadataReadError"


class VolumeWriteFailed(Failed):
    wire = "VolumeMetadataWriteError"


class VolumeAccessFailed(Failed):
    wire = "VolumeAccessError"


class ImageActionFailed(Failed):
    wire = "ImagesActionError"


class ImageDeletionFailed(Failed):
    wire = "ImageDeleteError"


class CopyFailed(Failed):
    wire = "TemplateCreationError"


class MoveFailed(Failed):
    wire = "MoveImageError"


class MovesFailed(Failed):
    wire = "MultipleMoveImageError"


class MergeFailed(Failed):
    wire = "MergeSnapshotsError"
