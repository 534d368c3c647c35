"""What clients may ask to be connected, and where it shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import DriverError
from drivers.storage.connections.mounts import place, wanted
from drivers.storage.contract import Settings, Type
from drivers.storage.errors import IllegalRemotePath, InvalidParameter, MountUnknown, StorageTypeUnsupported

SETTINGS = Settings(repository="/repo")


@pytest.mark.parametrize(
    ("type_", "remote", "name"),
    [
        (Type.NFS, "server:/export/data_one", "server:_export_data__one"),
        (Type.NFS, "server:/export/", "server:_export"),
        (Type.LOCALFS, "/a/b_c//", "_a_b__c"),
        (Type.POSIXFS, "/dev/sdb1", "_dev_sdb1"),
        (Type.CIFS, "//host/share", "__host_share"),
        (Type.GLUSTERFS, "host:volume", "glusterSD/host:volume"),
        (Type.GLUSTERFS, "host:/volume", "glusterSD/host:volume"),
    ],
)
def test_places(type_: Type, remote: str, name: str) -> None:
    assert place(type_, remote) == name


@given(st.text("ab_/:", min_size=1), st.text("ab_/:", min_size=1))
def test_different_storage_has_different_places(one: str, other: str) -> None:
    """But for what a trailing slash, or a place that begins like a share, cannot tell apart in the format itself."""
    if one.rstrip("/") == other.rstrip("/") or "/_" in one + other or "_/" in one + other or "//" in one + other:
        return
    assert place(Type.NFS, one) != place(Type.NFS, other)


@pytest.mark.parametrize(
    ("type_", "given_", "vfs", "options"),
    [
        (Type.NFS, {"connection": "h:/e"}, "nfs", "soft,nosharecache,vers=3"),
        (Type.NFS, {"connection": "h:/e", "protocol_version": "auto"}, "nfs", "soft,nosharecache"),
        (Type.NFS, {"connection": "h:/e", "protocol_version": 4}, "nfs", "soft,nosharecache,vers=4"),
        (Type.NFS, {"connection": "h:/e", "retrans": 6, "timeout": "60"}, "nfs", "soft,nosharecache,vers=3,retrans=6,timeo=60"),
        (Type.NFS, {"export": "[fe80::1]:/e", "version": "v4.1"}, "nfs", "soft,nosharecache,vers=4.1"),
        (Type.NFS, {"connection": "h:/e", "mnt_options": "ro,nolock"}, "nfs", "soft,nosharecache,vers=3,ro,nolock"),
        (Type.POSIXFS, {"connection": "/dev/sdb", "vfs_type": "ext4", "mnt_options": ""}, "ext4", ""),
        (Type.POSIXFS, {"spec": "/dev/sdb", "vfstype": "xfs", "options": "noatime"}, "xfs", "noatime"),
        (Type.GLUSTERFS, {"connection": "h:v"}, "glusterfs", ""),
        (Type.CIFS, {"connection": "//h/s", "mnt_options": "vers=3.0"}, "cifs", "vers=3.0"),
        (Type.LOCALFS, {"path": "/data"}, "", ""),
    ],
)  # fmt: skip
def test_parameters(type_: Type, given_: dict[str, Any], vfs: str, options: str) -> None:
    connection = wanted(type_, given_, SETTINGS)
    assert (connection.vfs, connection.options) == (vfs, options)


@pytest.mark.parametrize(
    ("type_", "given_", "error"),
    [
        (Type.LOCALFS, {}, InvalidParameter),
        (Type.LOCALFS, {"connection": 5}, InvalidParameter),
        (Type.LOCALFS, {"connection": "relative"}, IllegalRemotePath),
        (Type.LOCALFS, {"connection": "/"}, IllegalRemotePath),
        (Type.LOCALFS, {"connection": "/a/../etc"}, IllegalRemotePath),
        (Type.LOCALFS, {"connection": "/a\nb"}, IllegalRemotePath),
        (Type.LOCALFS, {"connection": "/" + "x" * 300}, IllegalRemotePath),
        (Type.LOCALFS, {"connection": "/\ud800"}, IllegalRemotePath),
        (Type.NFS, {"connection": "server"}, IllegalRemotePath),
        (Type.NFS, {"connection": "-oops:/x"}, IllegalRemotePath),
        (Type.NFS, {"connection": "h:/e", "protocol_version": "9"}, InvalidParameter),
        (Type.NFS, {"connection": "h:/e", "retrans": "many"}, InvalidParameter),
        (Type.NFS, {"connection": "h:/e", "mnt_options": "a b;c"}, MountUnknown),
        (Type.POSIXFS, {"connection": "/dev/x"}, MountUnknown),
        (Type.POSIXFS, {"connection": "-x", "vfs_type": "ext4"}, IllegalRemotePath),
        (Type.POSIXFS, {"connection": "/dev/x", "vfs_type": "../x"}, MountUnknown),
        (Type.CIFS, {"connection": "host/share"}, IllegalRemotePath),
        (Type.GLUSTERFS, {"connection": "volume"}, IllegalRemotePath),
        (Type.ISCSI, {"connection": "h"}, StorageTypeUnsupported),
        (Type.FCP, {}, StorageTypeUnsupported),
    ],
)
def test_bad_parameters(type_: Type, given_: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        wanted(type_, given_, SETTINGS)


@given(
    st.sampled_from([type_ for type_ in Type if type_.is_file]),
    st.dictionaries(
        st.sampled_from(["connection", "vfs_type", "mnt_options", "retrans", "timeout", "protocol_version"]),
        st.text(max_size=20) | st.integers() | st.booleans() | st.none(),
    ),
)
def test_no_parameters_surprise(type_: Type, given_: dict[str, Any]) -> None:
    """A connection with a place of one step below the mounts, or an error of ours."""
    try:
        connection = wanted(type_, given_, SETTINGS)
    except DriverError:
        return
    steps = connection.name.removeprefix("glusterSD/").split("/")
    assert len(steps) == 1
    assert steps[0] not in ("", ".", "..")
