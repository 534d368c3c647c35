"""Mounts: what a connection asks for, and where it shows in the repository.

It promises that parameters of clients are checked before anything is done with them, and that two connections never share a
place unless they are the same storage.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from drivers.storage.contract import GLUSTER_MOUNTS, Settings, Type
from drivers.storage.errors import IllegalRemotePath, InvalidParameter, MountUnknown, StorageTypeUnsupported
from drivers.storage.record import Connection

_LONGEST_NAME = 255
"""Bytes of a file name."""
_NFS_VERSION = re.compile(r"[234](\.[012])?", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,6}", re.ASCII)
_OPTIONS = re.compile(r"[A-Za-z0-9_.:/@+=,-]*", re.ASCII)
_VFS = re.compile(r"[a-z0-9._-]{1,32}", re.ASCII)


def place(type_: Type, remote: str) -> str:
    """Return where storage shows below <repository>/mnt: every `_` doubled, then `_` for every `/`."""
    plain = remote.rstrip("/") or "/"
    if type_ is Type.GLUSTERFS:
        return f"{GLUSTER_MOUNTS}/{_munged(plain.replace(':/', ':', 1))}"
    return _munged(plain)


def wanted(type_: Type, given: dict[str, Any], settings: Settings) -> Connection:
    """Return the connection that the parameters of a client ask for. Raises InvalidParameter and what it is a case of."""
    if not type_.is_file:
        raise StorageTypeUnsupported(type=type_.name, what=type_.name, reason="not built")
    remote = checked(type_, _text(given, "connection", "export", "spec", "path"))
    name = place(type_, remote)
    if len(name.rpartition("/")[2].encode()) > _LONGEST_NAME:
        raise IllegalRemotePath(what="path", path=remote, reason="it is too long")
    vfs, options = _HOW[type_](given, settings)
    return Connection(type=type_, remote=remote, name=name, vfs=vfs, options=options)


def checked(type_: Type, remote: str) -> str:
    """Return the remote path without what makes no difference. Raises IllegalRemotePath."""
    path = remote.rstrip("/") if len(remote) > 1 else remote
    if not path or not path.isprintable() or any(0xD800 <= ord(letter) < 0xE000 for letter in path):
        raise IllegalRemotePath(what="path", path=remote[:200], reason="it is empty, or has letters that no path has")
    if any(step in (".", "..") for step in path.split("/")):
        raise IllegalRemotePath(what="path", path=remote[:200], reason="it has steps to elsewhere")
    if len(path.encode()) > 1024:
        raise IllegalRemotePath(what="path", path=remote[:200], reason="it is too long")
    reason = _SHAPES[type_](path)
    if reason:
        raise IllegalRemotePath(what="path", path=remote[:200], reason=reason)
    return path


def _munged(path: str) -> str:
    return path.replace("_", "__").replace("/", "_")


def _text(given: dict[str, Any], *names: str) -> str:
    value = next((given[name] for name in names if given.get(name)), "")
    if not isinstance(value, str) or not value:
        raise InvalidParameter(what=names[0], reason="expected a string that is not empty")
    return value


def _local_shape(path: str) -> str:
    return "" if path.startswith("/") and path != "/" else "expected the absolute path of a directory, and not the root"


def _server_shape(path: str) -> str:
    host, colon, _ = path.partition("]:/" if path.startswith("[") else ":/")
    return "" if colon and host and "/" not in host and not host.startswith("-") else "expected HOST:/PATH"


def _cifs_shape(path: str) -> str:
    return "" if re.fullmatch(r"//[^/]+/.+", path) else "expected //HOST/SHARE"


def _gluster_shape(path: str) -> str:
    host, _, volume = path.partition(":")
    return "" if host and volume.strip("/") and "/" not in host else "expected HOST:VOLUME"


def _any_shape(path: str) -> str:
    return "it looks like an option" if path.startswith("-") else ""


_SHAPES = {
    Type.LOCALFS: _local_shape,
    Type.NFS: _server_shape,
    Type.CIFS: _cifs_shape,
    Type.GLUSTERFS: _gluster_shape,
    Type.POSIXFS: _any_shape,
}


def _options(given: dict[str, Any], *first: str) -> str:
    extra = given.get("mnt_options", given.get("options", "")) or ""
    if not isinstance(extra, str) or not _OPTIONS.fullmatch(extra):
        raise MountUnknown(what="mount options", reason=f"not a list of options: {str(extra)[:100]!a}")
    return ",".join(option for option in (*first, *extra.split(",")) if option)


def _number(given: dict[str, Any], name: str) -> str:
    """Return a number among the parameters as text; '' when there is none, also as 0 or -1."""
    value = str(given.get(name, "") or "").strip()
    if value in ("", "-1"):
        return ""
    if not _DIGITS.fullmatch(value):
        raise InvalidParameter(what=name, reason="expected a number")
    return value


def _nfs(given: dict[str, Any], settings: Settings) -> tuple[str, str]:
    version = str(given.get("protocol_version", given.get("version", "")) or "3").strip().lower().removeprefix("v")
    chosen = [] if version == "auto" else [f"vers={version}"]
    if chosen and not _NFS_VERSION.fullmatch(version):
        raise InvalidParameter(what="protocol_version", reason="expected 3, 4, 4.0, 4.1, 4.2 or auto")
    retrans, timeout = _number(given, "retrans"), _number(given, "timeout")
    chosen += [f"retrans={retrans}"] if retrans else []
    chosen += [f"timeo={timeout}"] if timeout else []
    return "nfs", _options(given, *settings.nfs_options.split(","), *chosen)


def _posix(given: dict[str, Any], settings: Settings) -> tuple[str, str]:
    vfs = given.get("vfs_type", given.get("vfstype", ""))
    if not isinstance(vfs, str) or not _VFS.fullmatch(vfs):
        raise MountUnknown(what="vfs_type", reason="expected the name of a type of file system")
    return vfs, _options(given)


_HOW: dict[Type, Callable[[dict[str, Any], Settings], tuple[str, str]]] = {
    Type.LOCALFS: lambda given, settings: ("", ""),
    Type.NFS: _nfs,
    Type.POSIXFS: _posix,
    Type.CIFS: lambda given, settings: ("cifs", _options(given)),
    Type.GLUSTERFS: lambda given, settings: ("glusterfs", _options(given)),
}


def mounted(below: str) -> dict[str, str]:
    """Return what is mounted below a directory: by target, its source. The kernel tells; no file system is asked."""
    found = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            fields, _, rest = line.rstrip("\n").partition(" - ")
            target = _plain(fields.split(" ")[4])
            if target.startswith(f"{below}/"):
                found[target] = _plain(rest.split(" ")[1])
    return found


def _plain(field: str) -> str:
    """Return a field without its escapes (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
