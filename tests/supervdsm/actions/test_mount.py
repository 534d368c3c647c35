"""Mounts: real disks with real file systems, and everything a caller may try to get one elsewhere."""

from __future__ import annotations

import os
import shutil
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from supervdsm.errors import AlreadyExists, Busy, Failed, NotAllowed, NotFound, Unsupported
from supervdsm.mounts import DETACH, at, mounts
from supervdsm.registry import Context
from tests.supervdsm.actions.place import call, disk, inside, libc, mount_tmpfs

pytestmark = pytest.mark.slow

SHARED = (1 << 20) | 0x4000  # MS_SHARED | MS_REC
EXT4 = ("mkfs.ext4", "-q", "-F", "-E", "nodiscard")


def _target(where: Context, name: str = "server:_export") -> str:
    return f"{where.repository}/mnt/{name}"


def _below(where: Context) -> list[str]:
    return [mount.target for mount in mounts() if mount.target.startswith(os.path.dirname(where.lib_dir))]


def test_a_disk_is_mounted_listed_and_unmounted(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source, target = disk(tmp_path / "disk", *EXT4), _target(where)
        assert call(where, "mount.mount", kind="ext4", source=source, target=target, options="noatime") is True
        (told,) = call(where, "mount.list")
        assert (told["target"], told["source"], told["kind"]) == (target, source, "ext4")
        assert {"nosuid", "nodev", "noatime", "rw"} <= set(told["options"].split(","))
        assert Path(target, "lost+found").is_dir()
        assert os.listdir(where.private_dir) == ["locks"]
        # Again: nothing to do. Something else: no.
        assert call(where, "mount.mount", kind="ext4", source=source, target=target) is False
        with pytest.raises(AlreadyExists, match=source):
            call(where, "mount.mount", kind="nfs", source="server:/other", target=target)
        assert _below(where) == [target]
        assert call(where, "mount.unmount", target=target) is True
        assert call(where, "mount.unmount", target=target) is False
        assert _below(where) == []
        assert Path(target).is_dir()

    inside(deed)


def test_it_works_where_mounts_are_shared_as_under_a_service_manager(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        assert libc.mount(b"none", b"/", None, SHARED, None) == 0
        source, target = disk(tmp_path / "disk", *EXT4), _target(where)
        for _ in range(2):
            assert call(where, "mount.mount", kind="ext4", source=source, target=target)
            assert _below(where) == [target]
            assert call(where, "mount.unmount", target=target)
            assert _below(where) == []

    inside(deed)


def test_a_directory_that_is_there_is_used_deeper_ones_too(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source, target = disk(tmp_path / "disk", *EXT4), _target(where, "blockSD/master")
        with pytest.raises(NotFound):
            call(where, "mount.mount", kind="ext4", source=source, target=target)
        os.makedirs(target)
        assert call(where, "mount.mount", kind="ext4", source=source, target=target, options="ro")
        assert "ro" in at(target).options.split(",")  # type: ignore[union-attr]
        with pytest.raises(NotAllowed, match="mount point"):
            call(where, "mount.mount", kind="ext4", source=source, target=f"{os.path.dirname(target)}/master/x")

    inside(deed)


def test_one_in_use_is_busy_until_it_is_unmounted_lazily(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source, target = disk(tmp_path / "disk", *EXT4), _target(where)
        call(where, "mount.mount", kind="ext4", source=source, target=target)
        with open(f"{target}/file", "w", encoding="ascii"):
            with pytest.raises(Busy, match="export"):
                call(where, "mount.unmount", target=target)
            assert _below(where) == [target]
            assert call(where, "mount.unmount", target=target, lazy=True, force=True)
            assert _below(where) == []

    inside(deed)


@pytest.mark.parametrize(
    "target",
    [
        "/mnt",
        "/etc",
        "{repository}",
        "{repository}/mnt",
        "{repository}/elsewhere",
        "{repository}/mnt/../../lib/x",
        "{repository}/mnt/a/b/c/d",
        "{lib}/x",
        "mnt/x",
        "{repository}/mnt/a\nb",
    ],
)
def test_other_places_are_refused(where: Context, tmp_path: Path, target: str) -> None:
    place = target.replace("{repository}", where.repository).replace("{lib}", where.lib_dir)
    Path(where.repository, "elsewhere").mkdir()
    Path(where.repository, "mnt/a/b/c").mkdir(parents=True)
    before = mounts()
    for name, more in (("mount.mount", {"kind": "nfs", "source": "server:/x"}), ("mount.unmount", {"lazy": True})):
        with pytest.raises(NotAllowed):
            call(where, name, target=place, **more)
    assert mounts() == before


def test_no_link_leads_a_mount_or_an_unmount_elsewhere(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source = disk(tmp_path / "disk", *EXT4)
        victim = tmp_path / "victim"
        victim.mkdir()
        (victim / "in").mkdir()
        mount_tmpfs(victim / "in")
        os.symlink(victim, _target(where, "link"))
        before = mounts()
        for name in ("link", "link/in"):
            with pytest.raises(NotAllowed):
                call(where, "mount.mount", kind="ext4", source=source, target=_target(where, name))
        with pytest.raises(NotAllowed):
            call(where, "mount.unmount", target=_target(where, "link/in"), lazy=True)
        os.symlink(victim / "in", _target(where, "direct"))
        assert call(where, "mount.unmount", target=_target(where, "direct"), lazy=True) is False
        Path(_target(where, "file")).touch()
        with pytest.raises(NotAllowed, match="not a directory"):
            call(where, "mount.mount", kind="ext4", source=source, target=_target(where, "file"))
        assert mounts() == before

    inside(deed)


def test_the_directory_above_the_mounts_may_be_no_link(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source = disk(tmp_path / "disk", *EXT4)
        victim = tmp_path / "victim"
        victim.mkdir()
        os.rmdir(f"{where.repository}/mnt")
        os.symlink(victim, f"{where.repository}/mnt")
        with pytest.raises(NotAllowed, match="mnt is a link"):
            call(where, "mount.mount", kind="ext4", source=source, target=_target(where))
        assert os.listdir(victim) == []

    inside(deed)


def test_a_target_that_is_swapped_all_the_time_never_leads_out(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source, target, victim = disk(tmp_path / "disk", *EXT4), _target(where), tmp_path / "victim"
        victim.mkdir()
        stop = threading.Event()
        swapper = threading.Thread(target=_swap, args=(Path(target), victim, stop))
        swapper.start()
        try:
            for _ in range(40):
                try:
                    call(where, "mount.mount", kind="ext4", source=source, target=target)
                except (NotAllowed, NotFound, AlreadyExists, Failed, Busy):
                    pass
                below = [mount.target for mount in mounts() if mount.source == source]
                assert all(place.startswith(f"{where.repository}/mnt/") for place in below), below
                for place in below:  # for what is mounted on cannot be swapped any more
                    libc.umount2(place.encode(), DETACH)
        finally:
            stop.set()
            swapper.join()

    inside(deed)


def _swap(target: Path, victim: Path, stop: threading.Event) -> None:
    """Have the target be a directory, then a link, then a directory ... whatever the kernel lets us."""
    aside, link = target.with_name("aside"), target.with_name("link")
    while not stop.is_set():
        for step in (
            lambda: target.mkdir(),
            lambda: os.symlink(victim, link),
            lambda: target.rename(aside),
            lambda: link.rename(target),
            lambda: target.unlink(),
            lambda: aside.rename(target),
        ):
            try:
                step()
            except OSError:
                pass


SOURCES = [
    ("nfs", "-o,exec:/x"),
    ("nfs", "server"),
    ("nfs", "server:relative"),
    ("nfs", "server:/a,b"),
    ("nfs", "server:/a b"),
    ("nfs", "server:/a\nb"),
    ("nfs", "server:/a/../b"),
    ("nfs", "ser ver:/a"),
    ("nfs", "[::1:/a"),
    ("glusterfs", "server:/-x y"),
    ("cifs", "/server/share"),
    ("cifs", "//server"),
    ("ext4", "/etc/passwd"),
    ("ext4", "/dev/null"),
    ("ext4", "/dev/../etc/passwd"),
    ("ext4", "dev/loop0"),
    ("ext4", "-bind"),
]


@pytest.mark.parametrize(("kind", "source"), SOURCES)
def test_other_sources_are_refused(where: Context, kind: str, source: str) -> None:
    with pytest.raises(NotAllowed):
        call(where, "mount.mount", kind=kind, source=source, target=_target(where))
    assert not os.path.exists(_target(where))


@pytest.mark.parametrize("kind", ["fuse", "fuse.sshfs", "overlay", "proc", "tmpfs", "bind", "", "nfs,exec", "-o"])
def test_other_file_systems_are_refused(where: Context, kind: str) -> None:
    with pytest.raises(Unsupported):
        call(where, "mount.mount", kind=kind, source="server:/x", target=_target(where))


OPTIONS = [
    ("nfs", "suid"),
    ("nfs", "dev"),
    ("nfs", "soft,dev"),
    ("nfs", "bind"),
    ("nfs", "remount"),
    ("nfs", "user"),
    ("nfs", "bg"),
    ("nfs", "loop"),
    ("nfs", "x-mount.mkdir"),
    ("nfs", "-o"),
    ("nfs", "soft timeo=3"),
    ("nfs", "timeo=3 suid"),
    ("nfs", 'context="a,suid"'),
    ("nfs", "timeo=3\nsuid"),
    ("nfs", "timeo=\\054suid"),
    ("nfs", "helper=x"),
    ("ext4", "journal_path=/etc/shadow"),
    ("ext4", "nosharecache"),
    ("cifs", "credentials=/etc/shadow"),
    ("cifs", "password=x"),
    ("cifs", "user=me%secret"),
    ("glusterfs", "log-file=/etc/passwd"),
    ("ceph", "secretfile=/etc/shadow"),
]


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_other_options_are_refused(where: Context, kind: str, options: str) -> None:
    sources = {"cifs": "//server/share", "ext4": "/dev/loop-none", "glusterfs": "server:volume"}
    with pytest.raises(NotAllowed, match="mount option"):
        call(
            where,
            "mount.mount",
            kind=kind,
            source=sources.get(kind, "server:/x"),
            target=_target(where),
            options=options,
        )


def test_a_device_is_mounted_by_the_kernels_name_for_it(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source, target = disk(tmp_path / "disk", *EXT4), _target(where)
        mount_tmpfs("/dev/shm")  # where anybody may make a link, and have it lead elsewhere later
        os.symlink(source, "/dev/shm/link")
        call(where, "mount.mount", kind="ext4", source="/dev/shm/link", target=target)
        assert at(target).source == source  # type: ignore[union-attr]
        for wrong in ("/dev/null", "/dev/shm", str(tmp_path / "disk")):
            with pytest.raises(NotAllowed, match="not a block device"):
                call(where, "mount.mount", kind="ext4", source=wrong, target=_target(where, "other"))

    inside(deed)


def test_what_the_host_has_mounted_is_its_own(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source, host = disk(tmp_path / "disk", *EXT4), tmp_path / "host"
        host.mkdir()
        assert libc.mount(source.encode(), os.fsencode(host), b"ext4", 0, None) == 0
        with pytest.raises(NotAllowed, match="this host's own"):
            call(where, "mount.mount", kind="ext4", source=source, target=_target(where))

    inside(deed)


def test_failures_are_told_and_leave_nothing(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        with pytest.raises(NotFound):
            call(where, "mount.mount", kind="ext4", source="/dev/not-there", target=_target(where))
        blank = disk(tmp_path / "blank")
        for kind in ("ext4", "xfs"):
            with pytest.raises((Failed, Unsupported), match=blank):
                call(where, "mount.mount", kind=kind, source=blank, target=_target(where))
        if not shutil.which("mount.nfs"):
            with pytest.raises((Failed, Unsupported), match="server"):
                call(where, "mount.mount", kind="nfs", source="server:/x", target=_target(where))
        assert not os.path.exists(_target(where))
        assert _below(where) == []
        assert os.listdir(where.private_dir) == ["locks"]

    inside(deed)


def test_what_a_killed_helper_left_is_cleared(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source, target = disk(tmp_path / "disk", *EXT4), _target(where)
        call(where, "mount.mount", kind="ext4", source=source, target=target)
        call(where, "mount.unmount", target=target)
        left = f"{where.private_dir}/mount-{sha256(target.encode()).hexdigest()[:16]}"
        os.mkdir(left)
        assert libc.mount(source.encode(), os.fsencode(left), b"ext4", 0, None) == 0
        assert call(where, "mount.mount", kind="ext4", source=source, target=target)
        assert _below(where) == [target]

    inside(deed)


def test_the_password_is_in_no_argument_list(where: Context, tmp_path: Path) -> None:
    """A stand-in for mount(8), where only root can put one, writes down what it was given."""

    def deed() -> None:
        told = tmp_path / "told"
        fake = tmp_path / "fake"
        fake.write_text(
            f'#!/bin/sh\necho "$@" > {told}\necho "password is $PASSWD" > {told}.env\necho gone wrong >&2\nexit 32\n'
        )
        fake.chmod(0o755)
        for path in {os.path.realpath("/usr/bin/mount"), os.path.realpath("/bin/mount")}:
            assert libc.mount(os.fsencode(fake), os.fsencode(path), None, 0x1000, None) == 0
        with pytest.raises(Failed, match="gone wrong") as raised:
            call(
                where,
                "mount.mount",
                kind="cifs",
                source="//server/share",
                target=_target(where),
                options="username=me",
                password="sesame",
            )
        assert "sesame" not in str(raised.value) + told.read_text()
        assert told.read_text().startswith("-t cifs -o username=me,nosuid,nodev -- //server/share ")
        assert "sesame" in Path(f"{told}.env").read_text()

    inside(deed)
