"""The command line of scripts/lab."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from types import FrameType

from scripts.virtualhost.image import ImageError, obtain, say
from scripts.virtualhost.lab import CACHE, RESULTS, Lab
from scripts.virtualhost.machine import HostError

MOST = 8


def main() -> int:
    """Return the exit status: that of the tests or of the shell, or 1 when there is no lab."""
    options, arguments = parse(sys.argv[1:])
    # A host must not outlive us: whoever ends us ends it in good order.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        return int(options.run(options, arguments))
    except (ImageError, HostError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and what is for pytest."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(prog="scripts/lab", description="Virtual hosts to test in.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("build", help="make the root image, if it is not there yet").set_defaults(run=build)
    for name, call, text in (
        ("run", run, "run tests in hosts; what follows -- goes to pytest (default: -m lab)"),
        ("shell", shell, "give a shell on the first host"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--hosts", type=int, default=1, choices=range(1, MOST + 1), metavar="N", help="default: 1")
        command.set_defaults(run=call)
    options = parser.parse_args(argv[:cut])
    if cut < len(argv) and options.command != "run":
        parser.error("only `run` takes arguments for pytest")
    return options, argv[cut + 1 :]


def build(_options: argparse.Namespace, _arguments: list[str]) -> int:
    print(obtain(CACHE).root)
    return os.EX_OK


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    shutil.rmtree(RESULTS, ignore_errors=True)
    with Lab(options.hosts) as lab:
        status = lab.test(arguments or ["-m", "lab"])
        say(f"status {status}; logs are in {lab.collect()}")
    return status


def shell(options: argparse.Namespace, _arguments: list[str]) -> int:
    with Lab(options.hosts) as lab:
        return lab.shell()


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
