"""Completion scripts, tried in the shells that they are for."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.ctl.conftest import Run

TRY_BASH = """
{script}
vdsmctl() {{ IFS=' '; echo "asked $*"; }}
COMP_WORDS=({words}) COMP_CWORD={at}
_vdsmctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
TRY_ZSH = """
compdef() {{ : }}
{script}
vdsmctl() {{ echo "asked $*" }}
compadd() {{ printf '%s\\n' "${{found[@]}}" }}
words=({words}) CURRENT={at}
_vdsmctl
"""


def in_bash(script: str, *words: str) -> list[str]:
    text = TRY_BASH.format(script=script, words=" ".join(f"'{word}'" for word in words), at=len(words) - 1)
    ran = subprocess.run(["bash", "-u", "-c", text], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stderr == ""
    return ran.stdout.split("\n")[:-1]


@pytest.fixture
def bash(run: Run) -> str:
    return run("completion", "bash").out


def test_commands(bash: str) -> None:
    assert "status" in in_bash(bash, "vdsmctl", "")
    assert in_bash(bash, "vdsmctl", "stat") == ["status", "state"]
    assert in_bash(bash, "vdsmctl", "host", "log") == ["log-level"]
    assert in_bash(bash, "vdsmctl", "nonsense", "") == [""]


def test_options(bash: str) -> None:
    assert in_bash(bash, "vdsmctl", "reexec", "--c") == ["--cancel"]
    assert in_bash(bash, "vdsmctl", "completion", "") == ["--help", "--json", "bash", "zsh"]


def test_what_stands_after_an_option_is_no_command(bash: str) -> None:
    assert in_bash(bash, "vdsmctl", "--config", "status", "--json", "host", "pi") == ["ping"]


def test_machines_are_asked_for(bash: str) -> None:
    assert in_bash(bash, "vdsmctl", "vm", "destroy", "ask") == ["asked vm list --quiet"]
    assert in_bash(bash, "vdsmctl", "host", "ping", "ask") == [""]


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh here")
def test_zsh(run: Run) -> None:
    text = TRY_ZSH.format(script=run("completion", "zsh").out, words="vdsmctl reexec ''", at=3)
    ran = subprocess.run(["zsh", "-f", "-c", text], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.split() == ["--help", "--json", "--now", "--cancel", "--wait", "--verbose"]
