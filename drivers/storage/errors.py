"""What can go wrong with storage, by meaning. `wire` is the name of the code that clients know it by.

It promises that whatever a storage verb raises on purpose has a code of its own: the generic ones are the wire's "this verb
failed", and their `reason` says how.
"""

from __future__ import annotations

from drivers.errors import AlreadyExists, Busy, Failed, Invalid, NotFound, NotResponding, Unsupported


class InvalidParameter(Invalid):
    """An argument of a storage verb cannot be meant. Nothing was changed."""

    wire = "InvalidParameterException"


class StorageHangs(NotResponding):
    """The storage did not answer in time. Nothing is known about the outcome."""

    message = "The storage of {what} does not answer: {reason}"
    wire = "StorageDomainAccessError"


class HelperLost(StorageHangs):
    """The process that works on the storage for us ended in the middle. It is replaced."""

    message = "The helper for {what} ended before it answered: {reason}"


class NoSuchDomain(NotFound):
    message = "Storage domain does not exist: {domain}"
    wire = "StorageDomainDoesNotExist"


class DomainExists(AlreadyExists):
    message = "Storage domain already exists: {domain}"
    wire = "StorageDomainAlreadyExists"


class DomainNotEmpty(AlreadyExists):
    message = "{path} holds something else: {found}"
    wire = "StorageDomainNotEmpty"


class NotMounted(NotFound):
    message = "{path} is not connected on this host"
    wire = "StorageDomainFSNotMounted"


class LayoutBroken(Failed):
    message = "Storage domain {domain} is not laid out as one: {reason}"
    wire = "StorageDomainLayoutError"


class MetadataMissing(NotFound):
    message = "Storage domain {domain} has no metadata"
    wire = "StorageDomainMetadataNotFound"


class SealBroken(Failed):
    """The checksum is wrong: what the text says must not be believed."""

    message = "The metadata of {what} does not match its checksum: computed {computed}, found {found}"
    wire = "MetaDataSealIsBroken"


class MetadataInvalid(Failed):
    message = "The metadata of {what} makes no sense: {reason}"
    wire = "MetaDataValidationError"


class MetadataKeyMissing(NotFound):
    message = "The metadata of {what} lacks {key}"
    wire = "MetaDataKeyNotFoundError"


class UnsupportedVersion(Unsupported):
    message = "Storage domains of version {version} are not supported: {reason}"
    wire = "UnsupportedDomainVersion"


class WrongType(Invalid):
    message = "{type} is no type of storage that this verb takes: {reason}"
    wire = "StorageDomainTypeError"


class StorageTypeUnsupported(Unsupported):
    """Block storage, for one: the type is known, and this release does not do it."""

    message = "Storage of type {type} is not supported"
    wire = "StorageTypeError"


class WrongClass(Invalid):
    message = "{given} is not the class of storage domain that is needed: {reason}"
    wire = "StorageDomainClassError"


class IllegalRemotePath(Invalid):
    message = "{path!r} is not a path of storage: {reason}"
    wire = "StorageDomainIllegalRemotePath"


class DescriptionTooLong(Invalid):
    message = "The description has {length} characters, and {limit} are allowed"
    wire = "StorageDomainDescriptionTooLongError"


class CannotFormatAttached(Busy):
    message = "Storage domain {what} is attached to a pool: {reason}"
    wire = "CannotFormatAttachedStorageDomain"


class CannotFormatInConnectedPool(Busy):
    message = "Storage domain {what} belongs to a pool that is connected: {reason}"
    wire = "CannotFormatStorageDomainInConnectedPool"


class MemberOfPool(Busy):
    message = "Storage domain {what} is monitored for its pool: {reason}"
    wire = "StorageDomainIsMemberOfPool"


class DomainAccess(Failed):
    message = "Storage domain {domain} cannot be accessed: {reason}"
    wire = "StorageDomainAccessError"


class NoPermission(Failed):
    message = "{path} cannot be written and read by this daemon: {reason}"
    wire = "StorageServerAccessPermissionError"


class DomainFull(Failed):
    message = "No space is left on storage domain {domain}: {reason}"
    wire = "NoSpaceLeftOnDomain"


class DomainActionFailed(Failed):
    wire = "StorageDomainActionError"


class DomainCreationFailed(Failed):
    wire = "StorageDomainCreationError"


class DomainFormatFailed(Failed):
    wire = "StorageDomainFormatError"


class FileStatsFailed(Failed):
    wire = "GetFileStatsError"


class IsoListFailed(Failed):
    wire = "GetIsoListError"


class FloppyListFailed(Failed):
    wire = "GetFloppyListError"


class ConnectionFailed(Failed):
    wire = "StorageServerConnectionError"


class DisconnectionFailed(Failed):
    wire = "StorageServerDisconnectionError"


class ConnectionBusy(Busy):
    wire = "StorageServerDisconnectionError"


class MountFailed(Failed):
    message = "Mounting {what} failed: {reason}"
    wire = "MountError"


class MountUnknown(Invalid):
    message = "{what} cannot be mounted: {reason}"
    wire = "MountTypeError"


class ReferenceInUse(AlreadyExists):
    message = "The reference {name} stands for another connection"
    wire = "StorageServerConnectionRefIdAlreadyInUse"


class NoSuchReference(NotFound):
    message = "There is no connection reference {name}"
    wire = "StorageServerConnectionRefIdDoesNotExist"


class NoSuchPool(NotFound):
    message = "Storage pool is not known here: {pool}"
    wire = "StoragePoolUnknown"


class TargetUnsupported(Unsupported):
    message = "{what} cannot hold storage domains: {reason}"
    wire = "StorageDomainTargetUnsupported"


class StaleHandle(Failed):
    message = "{action} failed: the server has forgotten the file: {reason}"
    wire = "FileStorageDomainStaleNFSHandle"


class MetadataTooLong(Invalid):
    message = "The metadata of {what} would have {length} bytes, and {limit} are allowed"
    wire = "MetadataOverflowError"
