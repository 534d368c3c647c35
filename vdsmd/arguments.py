"""The command line of the daemon. Read on a cold start only; a re-exec carries its arguments in the hand-off."""

from __future__ import annotations

import argparse
import os

from state.release import VERSION
from vdsmd.config import DEFAULT_PATH


def parse(argv: list[str]) -> argparse.Namespace:
    """Return `config`, `daemon` and `rehearse`. Ends the process with status 2 on a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="vdsmd",
        description="Node agent for KVM hosts. SIGHUP replaces the running code in place, SIGUSR1 reloads the configuration, "
        "SIGTERM stops; virtual machines keep running in every case.",
    )
    parser.add_argument(
        "--config", default=DEFAULT_PATH, metavar="FILE", help=f"configuration (default: {DEFAULT_PATH})"
    )
    parser.add_argument(
        "--daemon", action="store_true", help="detach from the terminal once everything is ready to serve"
    )
    parser.add_argument("--version", action="version", version=f"vdsmd {VERSION}")
    parser.add_argument("--rehearse", metavar="DOCUMENT", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def canonical(options: argparse.Namespace) -> list[str]:
    """Return the arguments for every later run: independent of the working directory."""
    return ["--config", os.path.abspath(options.config), *(["--daemon"] if options.daemon else [])]
