"""A real helper process for tests, and a way to call it.

It promises that nothing outlives the test: `close` ends the process, waits for it, and removes its directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from supervdsm import wire
from supervdsm.client import Client
from tests.until import until

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 120.0
"""Seconds until a helper that does not do its part has failed. Long, because machines that run tests are busy."""
Options = Mapping[str, Mapping[str, object]]


class Helper:
    """A helper, as root's process.

    Over a socket pair it takes this process for its daemon, as a vdsmd that is root has it. As a `service`, it works for user
    `nobody`, and for whoever `holds` the lock: this process, at first. `client` calls it. `module`: what is run instead of
    `supervdsm`: `tests.supervdsm.server` has actions for tests.
    """

    def __init__(
        self,
        *,
        service: bool = False,
        options: Options | None = None,
        module: str = "supervdsm",
        env: Mapping[str, str] | None = None,
    ) -> None:
        # Short, for a socket's path has 107 bytes; and open to other users, which pytest's own are not.
        self.base = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
        self.base.chmod(0o755)
        self.run_dir, self.lib_dir, self.log_dir, self.repository = (
            self.base / name for name in ("run", "lib", "log", "repo")
        )
        self.config = self.base / "vdsm.conf"
        self.output = self.base / "output"
        self.path = self.run_dir / "svdsm.sock"
        self._service = service
        self._module = module
        self._env = {**os.environ, **(env or {})}
        self._lock = -1
        self._pair: socket.socket | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._clients: list[Client] = []
        self.configure(options or {})
        if service:
            self.client = Client(path=str(self.path))
        else:
            for place in (self.run_dir, self.lib_dir, self.log_dir, self.repository):
                place.mkdir()
        self.start()

    def configure(self, options: Options) -> None:
        """Write the configuration anew."""
        places = {name: getattr(self, name) for name in ("run_dir", "lib_dir", "log_dir", "repository")}
        whole: dict[str, dict[str, object]] = {
            "paths": places,
            "supervdsm": {"user": "nobody", "private_dir": self.base / "private"},
        }
        for section, given in options.items():
            whole.setdefault(section, {}).update(given)
        lines = [
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) for name, keys in whole.items()
        ]
        self.config.write_text("\n".join(lines), encoding="utf-8")

    def start(self) -> None:
        """Start a process, and be ready to call it. Another time only when the last one has ended."""
        if self._service:
            self.process = self._popen([])
            until(self._serves, PATIENCE, "the helper to serve")
            self.hold()
            return
        ours, theirs = wire.pair()
        with theirs:
            self.process = self._popen(["--fd", str(theirs.fileno())], [theirs.fileno()])
        self._pair = ours
        self.client = Client(fd=ours.fileno())
        self._clients.append(self.client)

    def hold(self, name: str = "vdsmd") -> None:
        """Hold the lock that says that we are this daemon."""
        self.release()
        self._lock = os.open(self.run_dir / f"{name}.pid", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Be nobody in particular."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        """Return all that it has written."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def hang_up(self) -> None:
        """Close our end of the pair, as a daemon that ends does."""
        self.client.close()
        if self._pair is not None:
            self._pair.close()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal, and return its exit status, minus the signal's number when that was what it ended of."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End everything, and remove the directory."""
        self.release()
        for client in (*self._clients, self.client):
            client.close()
        if self._pair is not None:
            self._pair.close()
        try:
            for process in self._processes:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
                process.kill()
                process.wait()
        finally:
            shutil.rmtree(self.base, ignore_errors=True)

    def _popen(self, arguments: list[str], pass_fds: list[int] | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", self._module, "--config", str(self.config), *arguments]
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=self._env,
                start_new_session=True,
                pass_fds=pass_fds or (),
            )
        self._processes.append(process)
        return process

    def _serves(self) -> bool:
        assert self.process.poll() is None, self.log()
        return self.path.exists() and f"serving pid={self.pid}" in self.log().lower()
