"""The policy engine's process: `python -m vdsmd.policy --config FILE`, with the daemon's pipe as standard input.

A byte in the pipe has it begin a round at once; the pipe's end, which only the end of the daemon is and no re-exec, ends it.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys

from state.directory import StateDirectory
from vdsmd import config as configuration
from vdsmd.ctl.wire import Address, Client
from vdsmd.log import FORMAT, LogFile
from vdsmd.policy.engine import Engine, run
from vdsmd.policy.owner import folder
from vdsmd.policy.rules import Rules

PATIENCE = 60.0
"""Seconds to wait for an answer: a re-exec lasts far less."""
SHORTEST = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="vdsmd.policy", description="Follow the policies of a vdsmd. It starts this itself."
    )
    parser.add_argument("--config", required=True)
    config = configuration.load(parser.parse_args().config)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: it is the daemon's to heed, and ours to see its end
    logging.basicConfig(
        handlers=[LogFile(os.path.join(config.paths.log_dir, "mom.log"), encoding="utf-8", errors="replace")],
        level=config.vars.log_level,
        format=FORMAT,
    )
    logging.getLogger("policy").info("Began pid=%d", os.getpid())
    rules = Rules(StateDirectory(folder(config.paths.run_dir)), config.mom.policy_dir, config.mom.tuning_policy)
    client = Client(Address(path=os.path.join(config.paths.run_dir, "vdsmd.sock")), PATIENCE)
    run(Engine(rules, client), lambda: _wait(max(config.mom.interval, SHORTEST)))
    return 0


def _wait(seconds: float) -> bool:
    """Return True when another round is due, False when the daemon has ended."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    if not poll.poll(seconds * 1000):
        return True
    return bool(os.read(0, 4096))


if __name__ == "__main__":
    sys.exit(main())
