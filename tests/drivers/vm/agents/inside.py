"""The other ends, for tests: a guest's channel as QEMU offers it, QEMU's guest agent, and a driver that meets them.

It promises real sockets and a real loop; only libvirt is in memory.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from drivers.base import Host
from drivers.errors import DriverError, NotResponding
from drivers.vm.hypervisor.kinds import Hypervisor
from state.fds import FdTable, Held
from tests.drivers.vm.fake import FakeLibvirt
from tests.drivers.vm.stand import Stand
from tests.until import until

ROW = Hypervisor(prefix="fake:///", children_are_ours=True, consoles=False)
NAME = "com.redhat.rhevm.vdsm"


def line(kind: str, **fields: Any) -> bytes:
    return json.dumps({"__name__": kind, **fields}).encode() + b"\n"


class Inside:
    """A guest's end of its channel. One connection at a time, as QEMU has it."""

    def __init__(self, run_dir: str, vm_id: str) -> None:
        folder = Path(run_dir) / "channels"
        folder.mkdir(exist_ok=True)
        self._path = folder / f"{vm_id}.{NAME}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(1)
        self._listener.settimeout(60)
        self._connection: socket.socket | None = None
        self._read = b""

    def accept(self) -> None:
        """Wait until the daemon connects."""
        self._connection, _ = self._listener.accept()
        self._connection.setblocking(False)
        self._read = b""

    def say(self, data: bytes) -> None:
        assert self._connection is not None
        self._connection.setblocking(True)
        self._connection.sendall(data)
        self._connection.setblocking(False)

    def heard(self) -> list[dict[str, Any]]:
        """Return the messages that have come until now."""
        assert self._connection is not None
        with contextlib.suppress(BlockingIOError):
            while data := self._connection.recv(1 << 16):
                self._read += data
        return [json.loads(text) for text in self._read.splitlines(keepends=True) if text.endswith(b"\n")]

    def hears(self, kind: str) -> dict[str, Any]:
        """Wait for a message of this name, and return it."""
        return until(lambda: [m for m in self.heard() if m["__name__"] == kind], 60, f"{kind} to be sent")[0]

    @property
    def silent(self) -> bool:
        """Whether nobody is connected any more."""
        assert self._connection is not None
        try:
            return not self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self.hang_up()
        self._listener.close()
        self._path.unlink(missing_ok=True)


class QemuAgent:
    """QEMU's guest agent behind libvirt: `answers` by command; without any there is none."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.error: DriverError = NotResponding(what="the virtual machine", reason="QEMU guest agent is not connected")

    def ask(self, vm_id: str, command: str, patience: int) -> str:
        asked = json.loads(command)
        self.asked.append(asked["execute"] + "".join(f" {value}" for value in asked.get("arguments", {}).values()))
        answer = self.answers.get(asked["execute"], self.error)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps({"return": answer})


class Libvirt(FakeLibvirt):
    """A hypervisor whose guests have channels."""

    def __init__(self) -> None:
        super().__init__(ROW)
        self.agent = QemuAgent()


class Place(Stand):
    """A driver that begins with the descriptors that a previous one held."""

    def __init__(
        self, base: Path, libvirt: Libvirt, *, inherited: Iterable[Held] = (), root: Any = None, **how: Any
    ) -> None:
        self._lent: dict[str, Any] = {"fds": FdTable(inherited), **({"root": root} if root else {})}
        self.qemu = libvirt.agent
        super().__init__(base, libvirt, **how)

    def _host(self, base: Path) -> Host:
        return msgspec.structs.replace(super()._host(base), **self._lent)

    def hand_over(self) -> dict[str, Any]:
        """End as before an exec; return what the next one begins with."""
        record = self._end()
        return {"left": record, "inherited": self.host.fds.snapshot()}

    def says(self, vm_id: str, **facts: Any) -> dict[str, Any]:
        """Wait until the statistics say so, and return them."""

        def said() -> dict[str, Any]:
            seen = self.stats(vm_id)
            assert {key: seen.get(key) for key in facts} == facts
            return seen

        return until(said, 60)
