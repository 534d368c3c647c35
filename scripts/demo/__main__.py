"""The command behind scripts/run. Its exit status: 0 all held, 1 it did not, 2 it could not be tried."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.demo.outside import Mishap, power_of, say
from scripts.demo.place import Place
from scripts.demo.show import UPGRADES, Seen, show, table, verdict

LONGEST_DIR = 28
"""Bytes: libvirt's sockets lie 79 bytes below it, and their paths may have 107."""


def report(seen: list[Seen]) -> int:
    say("")
    for line in table([look.row for look in seen]):
        say(f"   {line}")
    say("")
    wrong = verdict(seen)
    for reason in wrong:
        say(f"   NOT HELD: {reason}")
    if not wrong:
        say("   All held: the same vdsmd process, the same guest, no line lost, no call failed.")
    return 1 if wrong else 0


def hints(place: Place, options: argparse.Namespace) -> None:
    place_option = f" --dir {place.dir}" if options.dir else ""
    say(f"""
   vdsmd and the guest are left running. To look at them:
      .venv/bin/vdsmctl --config {place.config} status
      .venv/bin/vdsmctl --config {place.config} vm list
      .venv/bin/vdsmctl --config {place.config} reexec
      tail -f {place.console.path}
   To stop them and clean up:
      scripts/run --stop{place_option}""")


def default_directory() -> Path:
    """Return a place with a short path, on a disk where we may have one."""
    if os.getuid() == 0:
        return Path("/var/lib/vdsmd-demo")
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/vdsmd-demo-{os.getuid()}") / "vdsmd"


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Keep a second run of this command out of the directory. Raises Mishap."""
    if len(os.fsencode(directory)) > LONGEST_DIR:
        raise Mishap(
            f"{directory} is too long a path for the sockets below it. Use --dir with {LONGEST_DIR} bytes at most."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)  # QEMU may run as another user
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Mishap(f"{error.filename} cannot be used: {error.strerror}. Use --dir with another.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Mishap(f"another scripts/run is at work in {directory}") from error
    finally:
        os.close(lock)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/run", description="Upgrade vdsmd under a running guest.")
    parser.add_argument("--once", action="store_true", help="clean up and exit")
    parser.add_argument("--stop", action="store_true", help="stop what an earlier run left, and clean up")
    parser.add_argument("--dir", type=Path, help="where vdsmd and the guest live")
    parser.add_argument("--port", type=int, default=0, help="vdsmd's port on 127.0.0.1 (default: any that is free)")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    temporary = options.once and not options.dir
    directory = Path(tempfile.mkdtemp(prefix="vdsmd-", dir="/tmp")) if temporary else options.dir or default_directory()
    place = Place(directory.absolute(), options.port)
    if options.stop and not place.dir.exists():
        say(f"   nothing to stop: there is no {place.dir}")
        return 0
    try:
        with one_at_a_time(place.dir):
            return run(place, options)
    except Mishap as mishap:
        print(f"scripts/run: {mishap}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("scripts/run: interrupted", file=sys.stderr)
        return 130


def run(place: Place, options: argparse.Namespace) -> int:
    if options.stop:
        place.stop()
        say(f"   nothing runs in {place.dir} any more, and it is removed")
        return 0
    try:
        say(f"1. Start vdsmd in {place.dir}")
        place.start()
        say("2. Boot a guest through its API")
        place.boot()
        for name, pid in place.programs().items():
            say(f"      {name:9}  pid {pid:<7}  user {power_of(pid).user}")
        say(
            f"3. Upgrade vdsmd {UPGRADES} times under it; meanwhile a client opens a connection per call and repeats none"
        )
        status = report(show(place))
    finally:
        if options.once:
            say("4. Clean up")
            place.stop()
    if not options.once:
        hints(place, options)
    return status


if __name__ == "__main__":
    sys.exit(main())
