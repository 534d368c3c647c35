"""Secrets of storage: what is one, and a real libvirt daemon that keeps them."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from drivers.errors import Failed
from drivers.vm.hypervisor.secrets import LinkSecrets
from tests.running import PATIENCE, Running
from tests.until import until
from vdsmd.api.codes import code_of
from vdsmd.host.secrets import BadSecret, NotRegistered, NotUnregistered, register, unregister

ID = "11111111-2222-4333-8444-555555555555"
OTHER = "11111111-2222-4333-8444-666666666666"
WORD = "open-sesame"


def secret(**given: Any) -> dict[str, Any]:
    whole = {
        "uuid": ID,
        "usageType": "ceph",
        "usageID": "pool/name",
        "password": base64.b64encode(WORD.encode()).decode(),
    }
    return {**whole, **given}


class Keeper:
    """Keeps secrets, and fails when told to."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.fails = False

    def define(self, uuid: str, kind: str, usage_id: str, description: str, value: bytes) -> None:
        if self.fails:
            raise Failed(action="keeping a secret", reason="a test")
        self.kept[uuid] = value

    def undefine(self, uuid: str) -> None:
        if self.fails:
            raise Failed(action="forgetting a secret", reason="a test")
        self.kept.pop(uuid, None)

    def ours(self) -> list[str]:
        return list(self.kept)


def test_secrets_come_and_go() -> None:
    keeper = Keeper()
    register(keeper, [secret(), secret(uuid=OTHER.upper(), password=WORD.encode())], clear=False)
    assert keeper.kept == {ID: WORD.encode(), OTHER: WORD.encode()}
    register(keeper, [secret()], clear=True)
    assert list(keeper.kept) == [ID]
    unregister(keeper, [ID, OTHER])
    assert keeper.kept == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"uuid": "x"},
        {"uuid": 7},
        {"usageType": "other"},
        {"usageType": ["ceph"]},
        {"usageID": ""},
        {"usageID": "a\nb"},
        {"password": "no base64!"},
        {"password": 7},
        {"description": 7},
    ],
)
def test_of_a_list_with_anything_wrong_in_it_nothing_is_kept(wrong: dict[str, Any]) -> None:
    keeper = Keeper()
    with pytest.raises(BadSecret) as raised:
        register(keeper, [secret(uuid=OTHER), secret(**wrong)], clear=True)
    assert code_of(raised.value) == 72
    assert keeper.kept == {}
    with pytest.raises(BadSecret):
        unregister(keeper, ["x"])


def test_failures_have_their_codes() -> None:
    keeper = Keeper()
    keeper.fails = True
    with pytest.raises(NotRegistered) as registering:
        register(keeper, [secret()], clear=False)
    with pytest.raises(NotUnregistered) as unregistering:
        unregister(keeper, [ID])
    assert (code_of(registering.value), code_of(unregistering.value)) == (73, 74)


def test_a_hypervisor_that_keeps_none_says_so_and_no_secret_is_told(daemon: Callable[..., Running]) -> None:
    running = daemon()
    status = running.call("registerSecrets", [secret()])["status"]
    assert status["code"] == 73, status
    assert running.call("unregisterSecrets", [ID])["status"]["code"] == 74
    assert running.call("registerSecrets", [secret(usageType="x")])["status"]["code"] == 72
    log = running.log()
    assert "verb=registerSecrets" in log
    assert WORD not in log and secret()["password"] not in log


@pytest.fixture
def libvirtd(tmp_path: Path) -> Iterator[str]:
    """Give the uri of a private libvirt daemon, whose directories are the test's."""
    program = shutil.which("libvirtd") or "/usr/sbin/libvirtd"
    if os.geteuid() != 0 or not os.path.exists(program):
        pytest.skip("needs root, and libvirtd")
    binds = []
    for path in ("/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt", "/etc/libvirt", "/run"):
        ours = tmp_path / path.strip("/").replace("/", "-")
        ours.mkdir()
        binds.append(f"mkdir -p {path}; mount --bind {ours} {path}")
    command = ["unshare", "-m", "sh", "-ec", "; ".join([*binds, 'exec "$@"']), "private", program]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            socket = tmp_path / "run" / "libvirt" / "libvirt-sock"
            until(socket.exists, PATIENCE, "libvirtd to listen")
            yield f"qemu+unix:///system?socket={socket}"
        finally:
            process.terminate()
            process.wait(PATIENCE)


@pytest.mark.slow
def test_libvirt_keeps_them(libvirtd: str) -> None:
    connection = until(lambda: _open(libvirtd), PATIENCE, "libvirtd to answer")
    try:
        foreign = "<secret ephemeral='yes'><description>not ours</description></secret>"
        theirs = connection.secretDefineXML(foreign)
        keeper = LinkSecrets(connection)
        register(
            keeper, [secret(), secret(uuid=OTHER, usageType="iscsi", usageID="iqn.x:y", description="d")], clear=False
        )
        assert sorted(keeper.ours()) == [ID, OTHER]
        register(keeper, [secret()], clear=True)
        assert keeper.ours() == [ID]
        with pytest.raises(NotRegistered):
            register(keeper, [secret(uuid=OTHER)], clear=False)  # another one has this use
        unregister(keeper, [ID, OTHER])
        assert [each.UUIDString() for each in connection.listAllSecrets()] == [theirs.UUIDString()]
    finally:
        connection.close()


def _open(uri: str) -> Any:
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError:
        return None
