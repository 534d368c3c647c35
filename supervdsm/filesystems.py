"""The file systems that root mounts for storage, as data: what a source may look like, and which options may be given.

It promises that nothing but what stands here reaches mount(8). Kinds whose mount helper runs a program that the source names
(FUSE in general), those of more than one device (btrfs: who gives one device gets the host's other ones as well), and options
that name files or programs, are left out on purpose.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from supervdsm.errors import NotAllowed, Unsupported

HOST = r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\])"
PATH = r"/[^\s,\\]*"
NFS_SOURCE = re.compile(rf"{HOST}:{PATH}")
GLUSTER_SOURCE = re.compile(rf"{HOST}:/?[A-Za-z0-9_][A-Za-z0-9_./-]*")
CIFS_SOURCE = re.compile(rf"//{HOST}(?:/[^\s,\\/]+)+/?")
CEPH_SOURCE = re.compile(rf"{HOST}(?::[0-9]+)?(?:,{HOST}(?::[0-9]+)?)*:{PATH}")
DEVICE_SOURCE = re.compile(r"(?:/[A-Za-z0-9_.:+=@-]+)+")
VALUE = re.compile(r"[A-Za-z0-9_.:/@+-]*")
OPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALWAYS = ("nosuid", "nodev")
"""What lies on a storage domain is data: no program on it gains rights, and no node on it is a device."""

COMMON = _words(
    "ro rw sync async dirsync noatime relatime strictatime nodiratime lazytime noexec nosuid nodev defaults _netdev nofail "
    "context fscontext defcontext rootcontext"
)
NFS = _words(
    "soft hard softerr softreval nosoftreval timeo retrans retry vers nfsvers minorversion proto port tcp udp rdma mountport "
    "mountproto mountvers mounthost rsize wsize bsize acregmin acregmax acdirmin acdirmax actimeo ac noac cto nocto acl noacl "
    "lock nolock local_lock lookupcache sharecache nosharecache fg intr nointr sec rdirplus nordirplus nconnect max_connect "
    "fsc nofsc resvport noresvport clientaddr namlen migration nomigration trunkdiscovery notrunkdiscovery xprtsec "
    "v3 v4 v4.0 v4.1 v4.2"
)
GLUSTER = _words(
    "backup-volfile-servers backupvolfile-server volfile-max-fetch-attempts fetch-attempts log-level direct-io-mode "
    "attribute-timeout entry-timeout negative-timeout transport volfile-server-transport acl selinux background-qlen "
    "gid-timeout reader-thread-count use-readdirp no-root-squash congestion-threshold enable-ino32 mem-accounting"
)
CIFS = _words(
    "username user domain dom workgroup guest vers sec seal sign uid gid forceuid forcegid file_mode dir_mode cache rsize "
    "wsize actimeo nobrl brl serverino noserverino mfsymlinks hard soft iocharset noperm perm nounix port ip echo_interval "
    "persistenthandles nopersistenthandles resilienthandles multichannel max_channels noacl nosharesock"
)
CEPH = _words(
    "name fsid fs mds_namespace rsize wsize rasize readdir_max_entries share noshare mount_timeout recover_session ms_mode "
    "nowsync wsync nocrc crc noasyncreaddir asyncreaddir acl noacl norequire_active_mds"
)
EXT = _words(
    "acl noacl barrier nobarrier data discard nodiscard errors commit user_xattr nouser_xattr noload norecovery"
)
XFS = _words("discard nodiscard nouuid inode64 norecovery logbufs logbsize noquota allocsize largeio swalloc noalign")


class FileSystem(NamedTuple):
    """One kind: how its sources look, which options it takes besides the common ones, and the names it has once mounted."""

    source: re.Pattern[str]
    options: frozenset[str]
    mounted: frozenset[str]

    @property
    def local(self) -> bool:
        """Whether its source is a block device of this host."""
        return self.source is DEVICE_SOURCE


def _kind(source: re.Pattern[str], options: frozenset[str], *mounted: str) -> FileSystem:
    return FileSystem(source, options | COMMON, frozenset(mounted))


KINDS = {
    "nfs": _kind(NFS_SOURCE, NFS, "nfs", "nfs4"),
    "nfs4": _kind(NFS_SOURCE, NFS, "nfs", "nfs4"),
    "glusterfs": _kind(GLUSTER_SOURCE, GLUSTER, "fuse.glusterfs"),
    "cifs": _kind(CIFS_SOURCE, CIFS, "cifs", "smb3"),
    "ceph": _kind(CEPH_SOURCE, CEPH, "ceph"),
    "ext3": _kind(DEVICE_SOURCE, EXT, "ext3", "ext4"),
    "ext4": _kind(DEVICE_SOURCE, EXT, "ext4"),
    "xfs": _kind(DEVICE_SOURCE, XFS, "xfs"),
}


def checked(kind: str, source: str, options: str) -> tuple[FileSystem, list[str]]:
    """Return the kind's row and the options to mount it with. Raises Unsupported and NotAllowed, naming what is wrong."""
    row = KINDS.get(kind)
    if row is None:
        raise Unsupported(f"file systems of type {kind!r} are not mounted; these are: {', '.join(KINDS)}")
    steps = source.split("/")
    if not row.source.fullmatch(source) or not source.isprintable() or ".." in steps:
        raise NotAllowed(f"not a source for {kind}: {source!r}")
    given = [option for option in options.split(",") if option]
    for option in given:
        _check_option(row, kind, option)
    return row, [*given, *ALWAYS]


def _check_option(row: FileSystem, kind: str, option: str) -> None:
    name, _, value = option.partition("=")
    if not OPTION.fullmatch(name) or name not in row.options:
        raise NotAllowed(f"not a mount option for {kind}: {name!r}")
    if not VALUE.fullmatch(value):
        raise NotAllowed(f"not a value for the mount option {name}: {value!r}")
