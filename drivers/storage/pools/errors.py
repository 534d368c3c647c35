"""What can go wrong with storage pools and with being their SPM. `wire` is the name of the code that clients know it by."""

from __future__ import annotations

from drivers.errors import AlreadyExists, Busy, Failed, Invalid, NotFound, Unsupported


class PoolActionFailed(Failed):
    wire = "StoragePoolActionError"


class PoolCreationFailed(Failed):
    wire = "StoragePoolCreationError"


class PoolConnectionFailed(Failed):
    wire = "StoragePoolConnectionError"


class PoolDisconnectionFailed(Failed):
    wire = "StoragePoolDisconnectionError"


class PoolDestroyFailed(Failed):
    wire = "StoragePoolDestroyingError"


class ReconstructFailed(Failed):
    wire = "ReconstructMasterError"


class DomainListFailed(Failed):
    wire = "GetStorageDomainListError"


class MasterNotFound(NotFound):
    message = "The master domain {domain} of storage pool {pool} cannot be found"
    wire = "StoragePoolMasterNotFound"


class WrongMaster(Invalid):
    message = "Domain {domain} is not the master of storage pool {pool} in version {version}: {reason}"
    wire = "StoragePoolWrongMaster"


class HigherMaster(Invalid):
    message = "Domain {domain} is a newer master of storage pool {pool}: it has version {version}"
    wire = "StoragePoolHigherVersionMasterFound"


class TooManyMasters(Failed):
    message = "Domains {one} and {other} both are the master of storage pool {pool} in version {version}"
    wire = "StoragePoolTooManyMasters"


class PotentialMaster(Busy):
    message = "Domain {domain} is the master of storage pool {pool}, and another one could be: {others}"
    wire = "StoragePoolHasPotentialMaster"


class OnePoolOnly(Busy):
    message = "This host is connected to storage pool {pool}, and no more than one is allowed"
    wire = "CannotConnectMultiplePools"


class PoolConnected(Busy):
    message = "Storage pool {pool} is connected on this host"
    wire = "StoragePoolConnected"


class PoolNameTooLong(Invalid):
    message = "The name of the storage pool has {length} characters, and {limit} are allowed"
    wire = "StoragePoolDescriptionTooLongError"


class TooManyDomains(Invalid):
    message = "Storage pool {pool} cannot have more than {limit} domains"
    wire = "TooManyDomainsInStoragePoolError"


class IsoMaster(Invalid):
    message = "Domain {domain} is for ISO images: it cannot be a master"
    wire = "IsoCannotBeMasterDomain"


class BackupMaster(Invalid):
    message = "Domain {domain} is for backups: it cannot be a master"
    wire = "BackupCannotBeMasterDomain"


class NotInPool(NotFound):
    message = "Storage domain {domain} is not in storage pool {pool}"
    wire = "StorageDomainNotInPool"


class NotAttached(NotFound):
    message = "Storage domain {domain} is not attached to storage pool {pool}"
    wire = "StorageDomainNotMemberOfPool"


class AlreadyAttached(AlreadyExists):
    message = "Storage domain {domain} is attached to storage pool {pool}"
    wire = "StorageDomainAlreadyAttached"


class MasterStays(Busy):
    message = "Storage domain {domain} is the master of storage pool {pool}: it cannot be detached"
    wire = "CannotDetachMasterStorageDomain"


class MixedVersions(Unsupported):
    message = "Storage domain {domain} has version {version}, and its pool {wanted}"
    wire = "MixedSDVersionError"


class VersionTooAdvanced(Unsupported):
    message = "Storage domain {domain} has version {version} already, which is more than {wanted}"
    wire = "CurrentVersionTooAdvancedError"


class HostIdMismatch(Invalid):
    message = "This host is {host} in storage pool {pool}, not {given}"
    wire = "HostIdMismatch"


class IsSpm(Busy):
    message = "This host is the SPM of storage pool {pool}"
    wire = "IsSpm"


class SpmStartFailed(Failed):
    wire = "SpmStartError"


class SpmStopFailed(Failed):
    wire = "SpmStopError"


class SpmFenceFailed(Failed):
    wire = "SpmFenceError"


class MasterUnreadable(Failed):
    wire = "StorageDomainMasterError"


class MasterCopyFailed(Failed):
    wire = "StorageDomainMasterCopyError"


class LeaseRefused(Busy):
    """Another host has the lease, or this one may not have it."""

    message = "The lease of storage domain {domain} cannot be had: {reason}"
    wire = "AcquireLockFailure"


class LeaseUnreadable(Failed):
    message = "Who has the lease of storage domain {domain} cannot be seen: {reason}"
    wire = "SanlockInquireError"


class LeaseStuck(Failed):
    message = "The lease of storage domain {domain} cannot be given back: {reason}"
    wire = "ReleaseLockFailure"


class LeasesUnmade(Failed):
    message = "Leases cannot be made on storage domain {domain}: {reason}"
    wire = "ClusterLockInitError"


class HostIdRefused(Busy):
    message = "Host id {host} cannot be had on storage domain {domain}: {reason}"
    wire = "AcquireHostIdFailure"
