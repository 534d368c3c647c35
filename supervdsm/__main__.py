"""The command line of the helper, and its three ways of life: a service, vdsmd's parent, or vdsmd's child."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import pkgutil
import signal
import sys

from supervdsm import actions, release, settings
from supervdsm.helper import Helper, Trouble
from supervdsm.loop import HANDLED
from supervdsm.replace import receive
from supervdsm.settings import ConfigError

SIGNALS = """
signals:
  HUP         replace the helper's code in place; its connections, and with --spawn its vdsmd, stay
  USR1        go on in a new log file
  USR2        with --spawn: have vdsmd replace its own code in place
  TERM, INT   stop; with --spawn, vdsmd first. Virtual machines are left running
"""
TO_START = 120.0
"""Seconds in which a replaced helper must be back."""


def main() -> int:
    """Return the exit status: 0 stopped on request, 1 could not start or go on, 2 wrong command line or configuration."""
    options = _arguments()
    # Until they can be handled. The image before us has left them blocked, too.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    signal.setitimer(signal.ITIMER_REAL, TO_START)
    try:
        document = receive()
        config = settings.load(options.config, own=options.fd is not None)
        if options.once:
            config = config._replace(restarts=0)
        if options.check:
            load_actions(strict=True)
            if options.spawn:
                release.program(config)
            return 0
        if os.geteuid() != 0:
            raise Trouble("only root can do what needs root")
        helper = Helper(config, document, spawn=options.spawn, fd=options.fd)
        load_actions()
        return helper.run()
    except ConfigError as error:
        sys.stderr.write(f"supervdsm: {error}\n")
        return 2
    except (OSError, Trouble) as error:
        sys.stderr.write(f"supervdsm: cannot start: {error}\n")
        return 1


def load_actions(*, strict: bool = False) -> None:
    """Import all modules of actions: nothing is imported later. A module that cannot be imported costs its own actions only,
    unless `strict`."""
    for module in pkgutil.iter_modules(actions.__path__):
        try:
            importlib.import_module(f"{actions.__name__}.{module.name}")
        except Exception as error:
            # The edge: whatever is wrong with one module, the others' actions are still wanted.
            if strict:
                raise Trouble(f"the actions of {module.name} cannot be imported: {error}") from error
            logging.getLogger("supervdsm").exception("There are no actions of this module module=%s", module.name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="supervdsm",
        description="Does for vdsmd and hsmd, which are ordinary users, the few deeds that need root.",
        epilog=SIGNALS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", default=settings.DEFAULT_PATH, help="default: %(default)s")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--spawn", action="store_true", help="run vdsmd as an ordinary user, and serve it alone")
    way.add_argument(
        "--fd", type=int, metavar="N", help="serve our parent, over the socket that it gave us as descriptor N"
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="with --spawn: end when vdsmd dies, for a service manager that starts both again",
    )
    parser.add_argument(
        "--check", action="store_true", help="only see whether this code and the configuration can be used"
    )
    options = parser.parse_args()
    if options.once and not options.spawn:
        parser.error("--once needs --spawn")
    return options


if __name__ == "__main__":
    sys.exit(main())
