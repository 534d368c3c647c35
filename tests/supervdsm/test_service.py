"""The helper under a service manager, and what of it a caller can reach."""

from __future__ import annotations

import ast
import io
import os
import signal
import socket
import tempfile
import tokenize
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.supervdsm.helper import PATIENCE, ROOT, Helper
from tests.until import until

REACHED = ("wire", "server", "callers", "perform", "slow", "registry", "errors", "loop", "discard")
"""The modules that run between a caller's bytes and an action: what an audit reads first."""
MOST = 600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start the helper")
def test_the_service_manager_is_told(helper: Callable[..., Helper]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        manager.bind(f"{folder}/notify")
        manager.settimeout(PATIENCE)
        told: list[str] = []

        def hears(word: str) -> bool:
            while not any(word in message for message in told):
                told.append(manager.recv(4096).decode())
            return True

        one = helper(service=True, env={"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "3000000"})
        assert hears("READY=1") and hears("WATCHDOG=1")
        told.clear()
        one.send(signal.SIGHUP)
        assert hears("RELOADING=1\nMONOTONIC_USEC=") and hears("READY=1")
        told.clear()
        one.configure({"supervdsm": {"user": "no-such-user"}})
        one.send(signal.SIGHUP)
        assert hears("STATUS=replacement refused: ")
        one.configure({})
        told.clear()
        one.send(signal.SIGTERM)
        assert hears("STOPPING=1")
        until(lambda: one.process.poll() == 0, PATIENCE)


def test_what_a_caller_can_reach_is_small() -> None:
    counted = {name: _lines(ROOT / "supervdsm" / f"{name}.py") for name in REACHED}
    assert sum(counted.values()) <= MOST, counted


def _lines(path: Path) -> int:
    """Return the number of lines of code: without comments, docstrings and empty lines."""
    source = path.read_text(encoding="utf-8")
    prose: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            prose |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in blank:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - prose)
