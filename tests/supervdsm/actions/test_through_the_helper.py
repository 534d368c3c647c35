"""Slow actions done by a real helper, in a process of their own each: what a direct call cannot show."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from supervdsm import wire
from supervdsm.client import Client
from supervdsm.errors import NotAllowed, TimedOut
from supervdsm.mounts import at
from supervdsm.registry import Context
from tests.supervdsm.actions.place import disk, inside

ROOT = Path(__file__).parents[3]


@contextmanager
def helper(where: Context) -> Iterator[Client]:
    """Run a helper for this process, in its mount namespace."""
    config = Path(where.lib_dir).parent / "vdsm.conf"
    paths = "".join(f"{name} = {getattr(where, name)}\n" for name in ("run_dir", "lib_dir", "log_dir", "repository"))
    own = f"private_dir = {where.private_dir}\nfence_agents_dir = {where.fence_agents}\n"
    config.write_text(f"[paths]\n{paths}[supervdsm]\n{own}")
    ours, theirs = wire.pair()
    with ours, theirs:
        number = theirs.fileno()
        command = [sys.executable, "-m", "supervdsm", "--config", str(config), "--fd", str(number)]
        with subprocess.Popen(command, pass_fds=[number], cwd=ROOT) as process:
            theirs.close()
            client = Client(fd=ours.fileno())
            try:
                yield client
            finally:
                client.close()
                process.terminate()
                process.wait(60)


def test_storage_is_mounted_given_away_and_unmounted(where: Context, tmp_path: Path) -> None:
    def deed() -> None:
        source, target = disk(tmp_path / "disk", "mkfs.ext4", "-q", "-F"), f"{where.repository}/mnt/disk"
        with helper(where) as root:
            assert root.call("mount.mount", kind="ext4", source=source, target=target) is True
            assert at(target) is not None  # the helper's mounts are ours
            assert [told["target"] for told in root.call("mount.list")] == [target]
            os.chown(target, 1, 1)
            assert root.call("ownership.chown", path=target) is True
            assert os.stat(target).st_uid == 0  # whoever runs this helper is its user
            with pytest.raises(NotAllowed):
                root.call("mount.unmount", target="/proc", lazy=True)
            assert root.call("mount.unmount", target=target) is True
            assert at(target) is None

    inside(deed)


def test_secrets_are_not_in_the_helpers_log(where: Context) -> None:
    def deed() -> None:
        agents = Path(where.fence_agents)
        agents.mkdir()
        for name, text in (("says", "cat; exit 2"), ("hangs", "cat; sleep 600")):
            (agents / f"fence_{name}").write_text(f"#!/bin/sh\n{text}\n")
            (agents / f"fence_{name}").chmod(0o755)
        who: dict[str, Any] = {"address": "10.0.0.1", "username": "admin", "password": "sesame", "deed": "status"}
        with helper(where) as root:
            told = root.call("fence.run", agent="says", options="snmp_auth_key=hidden", **who)
            assert told["code"] == 2
            with pytest.raises(TimedOut):
                root.call("fence.run", agent="hangs", patience=1, **who)
            with pytest.raises(NotAllowed) as raised:
                root.call("fence.run", agent="says", options="inet4_only=hidden\nscript=hidden", **who)
        logs = "".join(path.read_text() for path in Path(where.log_dir).iterdir())
        assert logs.count("action=fence.run") == 3
        for secret in ("sesame", "hidden"):
            assert secret not in logs + str(told) + str(raised.value) + raised.value.remote_traceback

    inside(deed)
