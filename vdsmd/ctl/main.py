"""vdsmctl: the command line of vdsmd, for people and, with --json, for programs.

Its exit statuses are a promise to scripts; `vdsmctl --help` lists them.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from vdsmd.api.xmlrpc import Unsendable
from vdsmd.ctl import catalogue, commands, completion, create, events, reexec
from vdsmd.ctl.catalogue import Entry, Param
from vdsmd.ctl.context import FAILED, USAGE, Context, Problem, as_json, from_json
from vdsmd.ctl.show import Screen
from vdsmd.ctl.target import CONFIG, Unusable, address, how_to_start
from vdsmd.ctl.wire import Client, Lost, Refused, Unreachable

TIMEOUT = 120.0
GROUPS = {
    "vm": "virtual machines",
    "guest": "systems inside virtual machines, through their agents",
    "host": "this host",
    "network": "this host's networks",
    "storage": "connections to storage",
    "domain": "storage domains",
    "pool": "storage pools",
    "spm": "the role that writes to a pool",
    "volume": "volumes",
    "image": "images: chains of volumes",
    "task": "long work on storage",
}
EPILOG = """\
exit status:
  0  done
  1  it could not be done; standard error says why in one line
  2  wrong command line or configuration
  3  reexec: refused or cancelled, the code that ran before runs on
  4  reexec: pending, it will be carried out at the next safe point
"""


def main(argv: list[str] | None = None) -> int:
    """Return the exit status."""
    options = None
    try:
        entries = catalogue.load()
        options = build(entries).parse_args(argv)
        client = Client(address(options), options.timeout)
        status = int(options.run(Context(options, client, Screen(), entries)))
        sys.stdout.flush()  # or a reader that has left would be noticed too late to answer for
        return status
    except Unusable as error:
        return _fail(options, USAGE, str(error))
    except Refused as error:
        return _refused(options, error)
    except Unreachable as error:
        return _fail(options, FAILED, f"{error}. {how_to_start(options)}")
    except (Problem, Lost, Unsendable) as error:
        return _fail(options, FAILED, str(error))
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return 130


def build(entries: list[Entry]) -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="vdsmctl",
        description="Talk to vdsmd, the node agent of this host or another.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_target_options(parser)
    top = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group, meaning in GROUPS.items():
        mine = [entry for entry in entries if entry.cli.startswith(f"{group} ")]
        if mine:
            below = top.add_parser(group, help=meaning).add_subparsers(
                dest="subcommand", required=True, metavar="COMMAND"
            )
            _add_verbs(below, mine)
    _add_own(top)
    parser.set_defaults(parser=parser)
    return parser


def _add_target_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--json", action="store_true", help="write JSON, for programs (also allowed after the command)")
    add("--config", default="", metavar="FILE", help=f"the daemon's configuration (default: {CONFIG})")
    add("--url", default="", help="another daemon: http(s)://HOST[:PORT], instead of the local socket")
    add("--cert", metavar="FILE", help="with https: our certificate (default: the trust store of the configuration)")
    add("--key", metavar="FILE", help="its key")
    add("--ca", metavar="FILE", help="who signs the daemon's certificate")
    add("--any-name", action="store_true", help="accept the daemon's certificate whatever host it names")
    add(
        "--timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"wait so long for an answer (default: {TIMEOUT:g})",
    )


def _add_command(below: Any, name: str, run: Any, summary: str, description: str = "", **defaults: Any) -> Any:
    parser = below.add_parser(
        name,
        help=summary,
        description=description or summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="write JSON, for programs")
    parser.set_defaults(run=run, **defaults)
    return parser


def _add_own(top: Any) -> None:
    """Add the subcommands that are not verbs alone."""
    _add_command(top, "status", commands.status, "what the daemon is doing")
    parser = _add_command(
        top, "reexec", reexec.reexec, "replace the running code in place, and wait until it has been", EPILOG
    )
    parser.add_argument("--now", action="store_true", help="be refused rather than wait for a safe point")
    parser.add_argument("--cancel", action="store_true", help="take back one that is pending")
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS", help="wait so long for a safe point (default: 60)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show how long each step took")
    parser = _add_command(top, "events", events.events, "what has happened, and with --follow what happens")
    parser.add_argument(
        "--since",
        type=int,
        default=0,
        metavar="N",
        help="after the event with this number; -N: the last N (default: all)",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until interrupted, over re-execs and restarts"
    )
    state = _add_command(top, "state", commands.state, "what would survive a re-exec now")
    state.add_argument("show", choices=["show"], help="show the records")
    state.add_argument("owner", nargs="?", metavar="OWNER", help="of this owner only")
    _add_command(top, "verbs", commands.verbs, "all verbs that can be called")
    parser = _add_command(top, "call", commands.call, "call any verb")
    parser.add_argument("verb", metavar="VERB")
    parser.add_argument("args", nargs="*", metavar="ARG", help="JSON where it parses, else text")
    parser = _add_command(top, "completion", completion.completion, "a script for your shell to complete our commands")
    parser.add_argument(
        "shell", choices=["bash", "zsh"], help='for your start-up file: eval "$(vdsmctl completion bash)"'
    )


def _add_verbs(below: Any, entries: list[Entry]) -> None:
    by_word: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (entry.cli, -len(entry.params))):
        by_word.setdefault(entry.cli.split(" ", 1)[1], []).append(entry)
    for word, found in by_word.items():
        first = found[0]
        if first.name == "create":
            create.add_options(_add_command(below, word, create.create, first.summary, first.doc))
        elif first.name == "list":
            parser = _add_command(below, word, commands.list_machines, first.summary, first.doc)
            parser.add_argument("vms", nargs="*", metavar="VM", help="only these (name, id, or the beginning of an id)")
            parser.add_argument("-q", "--quiet", action="store_true", help="names only, one a line")
        else:
            summary = "; or ".join(entry.summary for entry in found)
            parser = _add_command(below, word, commands.verb, summary, first.doc, entries=found)
            for param in first.params:
                _add_parameter(parser, param, may_lack=len(found) > 1)


def _add_parameter(parser: Any, param: Param, *, may_lack: bool) -> None:
    """Add one parameter of a verb: a required one by position, others as options. What is not given stays None."""
    place = commands.place(param)
    metavar = "VM" if param.name == "vmId" else param.name.upper()
    if param.required:
        explained = "name, id, or the beginning of an id" if param.name == "vmId" else None
        lacking = {"nargs": "?"} if may_lack else {}
        parser.add_argument(place, metavar=metavar, type=_reader(param), help=explained, **lacking)
        return
    option = commands.option_name(param.name)
    if isinstance(param.default, bool):
        word, action = (f"--no-{option}", "store_false") if param.default else (f"--{option}", "store_true")
        parser.add_argument(word, dest=place, action=action, default=None)
    else:
        parser.add_argument(f"--{option}", dest=place, metavar=metavar, type=_reader(param))


def _reader(param: Param) -> Any:
    """Return what turns a word of the command line into a value of the parameter's type."""
    words = set(param.hint.replace("|", " ").replace("[", " ").split())
    if words & {"str", "Uuid", "Size"}:
        return str
    if words & {"int", "Number"}:
        return int
    return create.literal


def _refused(options: Any, error: Refused) -> int:
    name = _code_name(error.code)
    if options.json:
        return _fail(options, FAILED, error.message, code=error.code, name=name)
    return _fail(options, FAILED, f"{error.message} (code {error.code}{f', {name}' if name else ''})")


def _code_name(code: int) -> str:
    try:
        with open(os.path.join(catalogue.FOLDER, "contract.json"), encoding="utf-8") as file:
            return str(from_json(file.read())["codes"].get(str(code), ""))
    except (OSError, ValueError):
        return ""  # an error about an error helps nobody


def _fail(options: Any, exit_status: int, text: str, **fields: Any) -> int:
    if getattr(options, "json", False):
        print(as_json({"error": {"message": text, **fields}}, indent=None), file=sys.stderr)
    else:
        print(f"vdsmctl: {text}", file=sys.stderr)
    return exit_status


if __name__ == "__main__":
    sys.exit(main())
