"""Completion: the shell's own script for completing our command line, made from the parser that reads it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator

from vdsmd.ctl.context import DONE, Context

WORDS = """\
# Completion for vdsmctl. It asks the daemon only for the names of virtual machines.
_vdsmctl_words() {{
    local at='' skip='' word
    for word in "$@"; do
        if [ -n "$skip" ]; then skip=''; continue; fi
        case $word in
            {valued}) skip=1 ;;
            -*) ;;
            *) at="$at $word" ;;
        esac
    done
    case $at in
{cases}
    esac
}}
"""
BASH = """\
_vdsmctl() {
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$(_vdsmctl_words "${COMP_WORDS[@]:1:COMP_CWORD-1}")" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _vdsmctl vdsmctl
"""
ZSH = """\
_vdsmctl() {
    local -a found
    found=("${(@f)$(_vdsmctl_words "${(@)words[2,CURRENT-1]}")}")
    compadd -a found
}
compdef _vdsmctl vdsmctl
"""
MACHINES = "vdsmctl vm list --quiet 2>/dev/null"


def completion(context: Context) -> int:
    context.screen.line(script(context.options.parser, context.options.shell).rstrip())
    return DONE


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    levels = list(_levels(parser, ""))
    valued = sorted({option for _, below in levels for option in _valued(below)})
    cases = "\n".join(_case(at, below) for at, below in levels)
    return WORDS.format(valued="|".join(valued), cases=cases) + (ZSH if shell == "zsh" else BASH)


def _levels(parser: argparse.ArgumentParser, at: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Return every parser with the words that lead to it."""
    yield at, parser
    for action in _actions(parser):
        if isinstance(action.choices, dict):
            for word, below in action.choices.items():
                yield from _levels(below, f"{at} {word}")


def _case(at: str, parser: argparse.ArgumentParser) -> str:
    words: list[str] = []
    for action in _actions(parser):
        words += [option for option in action.option_strings if option.startswith("--")]
        if not action.option_strings and action.choices is not None:
            words += map(str, action.choices)
    takes_machine = any(action.metavar == "VM" for action in _actions(parser))
    # Below a command further words may stand; below a group the next word is the command.
    pattern = shlex.quote(at) if _is_group(parser) else f"{shlex.quote(at)}|{shlex.quote(f'{at} ')}*"
    asked = f"; {MACHINES}" if takes_machine else ""
    return f"        {pattern}) printf '%s\\n' {shlex.join(words)}{asked} ;;"


def _is_group(parser: argparse.ArgumentParser) -> bool:
    return any(isinstance(action.choices, dict) for action in _actions(parser))


def _valued(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options after which a value stands, which is no command."""
    return [option for action in _actions(parser) if action.nargs is None for option in action.option_strings]


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    # argparse has no public way to look at a parser; this list has been there since its first release.
    return parser._actions
