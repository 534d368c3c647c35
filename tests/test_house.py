"""The house rules, enforced: who may import whom, what every module has, and what must not be written."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ("state", "supervdsm", "drivers", "vdsmd", "scripts")
FILES = sorted(path for folder in (*PRODUCT, "tests") for path in (ROOT / folder).rglob("*.py"))
MODULES = [path for path in FILES if path.read_text(encoding="utf-8").strip()]

# Imports point down: each folder, and what it may import of the others.
BELOW = {
    "state": {"state"},
    "supervdsm": {"supervdsm"},
    "drivers": {"drivers", "state", "supervdsm.client"},
    "vdsmd": {"vdsmd", "drivers", "state", "supervdsm.client"},
    "scripts": {"scripts", "vdsmd", "drivers", "state", "supervdsm"},
    "tests": {"tests", "scripts", "vdsmd", "drivers", "state", "supervdsm"},
}

# Each costs tens of milliseconds, or imports what does, and a re-exec waits for all that `python -m vdsmd` imports.
SLOW = {
    "asyncio", "concurrent", "dataclasses", "http", "inspect", "libvirt", "lxml", "multiprocessing", "psutil",
    "socketserver", "ssl", "subprocess", "typing_extensions", "urllib", "xmlrpc",
}  # fmt: skip

# What belongs to one machine or one person has no place in the project.
PRIVATE = re.compile(rf"{re.escape(str(ROOT))}/|/root/|/home/[a-z]|pyenv|\bissue #?\d", re.IGNORECASE)
TEXTS = (".py", ".md", ".toml", ".service", ".conf", ".sh")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of everything imported anywhere in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def within(name: str, allowed: set[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    allowed = BELOW[path.relative_to(ROOT).parts[0]]
    for line, name in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if name.partition(".")[0] in BELOW:
            assert within(name, allowed), f"{name_of(path)}:{line}: may not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{name_of(path)} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_broad_except_gives_its_reason(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\s*except( \(?(Base)?Exception\b.*)?:", line):
            assert "#" in "".join(lines[number : number + 3]), f"{name_of(path)}:{number + 1}: why so broad?"


@pytest.mark.parametrize("path", [path for path in MODULES if path.is_relative_to(ROOT / "tests")], ids=name_of)
def test_tests_wait_for_facts(path: Path) -> None:
    if path.name == "until.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("time.sleep", "sleep"), f"{name_of(path)}:{node.lineno}: sleeps; use until()"


def test_nothing_belongs_to_one_machine() -> None:
    places = [ROOT / place for place in (*PRODUCT, "tests", "docs", "packaging", ".ci")]
    files = [path for place in places for path in place.rglob("*") if path.is_file() and _is_text(path)]
    files += [path for path in ROOT.iterdir() if path.suffix in TEXTS]
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in files
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert not found, "\n".join(found)


def _is_text(path: Path) -> bool:
    return path.suffix in TEXTS or (path.suffix == "" and path.parent.name in ("scripts", ".ci"))


def test_the_daemon_imports_nothing_slow_at_start() -> None:
    """These modules import all that the first answer needs."""
    wanted = "vdsmd.__main__, vdsmd.lifecycle, vdsmd.daemon, vdsmd.service"
    theirs = "msgspec, httptools"  # what these two import is their own business, and depends on what else is installed
    probe = f"import sys, {theirs}; before = set(sys.modules); import {wanted}; print(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert not SLOW & set(run.stdout.split())


def run_tool(*command: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stdout


def test_ruff_check() -> None:
    run_tool("ruff", "check", *_cache("ruff"))


def test_ruff_format() -> None:
    run_tool("ruff", "format", "--diff", *_cache("ruff"))


def test_types() -> None:
    run_tool("mypy", *_cache("mypy"))


def _cache(tool: str) -> list[str]:
    """Tell a tool not to keep its cache in a checkout that is another user's."""
    return [] if os.access(ROOT, os.W_OK) else ["--cache-dir", f"/tmp/vdsmd-{tool}-{os.getuid()}"]
