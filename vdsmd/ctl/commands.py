"""Commands: what vdsmctl does for each of its subcommands. Each returns the exit status."""

from __future__ import annotations

import time
from typing import Any

from vdsmd.ctl import machines, networks
from vdsmd.ctl.catalogue import Entry, Param
from vdsmd.ctl.context import DONE, Context, Problem, as_json, from_json
from vdsmd.ctl.create import literal

VIEWS = {
    "list": machines.show_list,
    "getAllVmStats": machines.show_all_stats,
    "getVmStats": machines.show_stats,
    "vdsmd.planNetworks": networks.show_plan,
}
"""How people see the reply of a verb, where the general form would not do."""


def verb(context: Context) -> int:
    """Carry out the verb that the subcommand stands for."""
    entry = _meant(context.options)
    reply = context.client.call(entry.name, *_arguments(context, entry))
    context.tell(reply, lambda value: _show_reply(context, entry.name, value))
    return DONE


def list_machines(context: Context) -> int:
    if context.options.quiet:
        return machines.name_list(context)
    wanted = [machines.identify(context, word) for word in context.options.vms]
    reply = context.client.call("list", True, wanted)
    context.tell(reply, lambda value: machines.show_list(context, value))
    return DONE


def call(context: Context) -> int:
    """`vdsmctl call VERB ARGS...`: any verb, with arguments as they are."""
    name = context.options.verb
    reply = context.client.call(name, *map(literal, context.options.args))
    context.tell(reply, lambda value: _show_reply(context, name, value))
    return DONE


def verbs(context: Context) -> int:
    """List what can be called. Needs no daemon."""
    told = [
        {"verb": entry.name, "subcommand": entry.cli, "parameters": signature(entry), "summary": entry.summary}
        for entry in context.entries
    ]
    rows = [[entry.name, signature(entry), entry.cli, entry.summary] for entry in context.entries]
    context.tell(told, lambda _: context.screen.table(["VERB", "PARAMETERS", "SUBCOMMAND", "WHAT IT DOES"], rows))
    return DONE


def signature(entry: Entry) -> str:
    """Return the parameters as people write them: 'vmId [delay] [message]'."""
    return " ".join(param.name if param.required else f"[{param.name}]" for param in entry.params)


def state(context: Context) -> int:
    """Show the records that would survive a re-exec now. They are JSON by nature, for people too."""
    records = from_json(context.client.call("vdsmd.state")["state"])
    owner = context.options.owner
    if owner and owner not in records:
        raise Problem(f"no owner is called {owner}; there are {', '.join(sorted(records))}")
    context.screen.line(as_json(records[owner] if owner else records))
    return DONE


def status(context: Context) -> int:
    info = context.client.call("vdsmd.status")["info"]
    context.tell(info, lambda value: _show_status(context, value))
    return DONE


def _meant(options: Any) -> Entry:
    """Return the verb of the subcommand. Where two share it, the one whose required arguments were all given."""
    found: list[Entry] = options.entries
    for entry in found:
        if all(given(options, param) is not None for param in entry.params if param.required):
            return entry
    return found[-1]


def _arguments(context: Context, entry: Entry) -> list[Any]:
    """Return the arguments in the wire's order, up to the last one that was given; defaults fill the gaps."""
    words = [given(context.options, param) for param in entry.params]
    while words and words[-1] is None:
        words.pop()
    values = [param.default if word is None else word for param, word in zip(entry.params, words, strict=False)]
    for param, value in zip(entry.params, values, strict=False):
        if value is None:
            raise Problem(f"--{option_name(param.name)} is needed too: the wire has no way to leave it out")
    return [
        machines.identify(context, value) if param.name == "vmId" else value
        for param, value in zip(entry.params, values, strict=False)
    ]


def given(options: Any, param: Param) -> Any:
    """Return what was given for a verb's parameter, or None."""
    return getattr(options, place(param), None)


def place(param: Param) -> str:
    """Return where the parser keeps a verb's parameter: apart from our own options, which may have the same name."""
    return f"verb_{param.name}"


def option_name(name: str) -> str:
    """Return a parameter's name as an option: existingConnAction is existing-conn-action."""
    return (
        "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-").replace("_", "-")
    )


def _show_reply(context: Context, verb_name: str, reply: dict[str, Any]) -> None:
    view = VIEWS.get(verb_name)
    if view is not None:
        view(context, reply)
    elif not reply or reply == {"output": [""]}:
        context.screen.line(context.screen.tone("done"))
    elif len(reply) == 1:
        context.screen.value(next(iter(reply.values())))
    else:
        context.screen.value(reply)


def _show_status(context: Context, info: dict[str, Any]) -> None:
    screen = context.screen
    machines_by_status = ", ".join(f"{count} {screen.tone(name)}" for name, count in sorted(info["vms"].items()))
    lines = {
        "daemon": f"vdsmd {info['version']}, pid {info['pid']}, generation {info['generation']}",
        "serving for": machines.span(max(0.0, time.time() - info["since"])),
        "virtual machines": machines_by_status or "none",
        "libvirt": _one_line(context, info["libvirt"]),
        "helper": info.get("helper", "unknown"),
        "last re-exec": _last_reexec(context, info["reexec"]),
        "descriptors": f"{info['descriptors']} open, {len(info['named_descriptors'])} of them kept over a re-exec",
    }
    if info["recovering"]:
        lines["recovering"] = screen.paint(info["recovering"], "yellow")
    for key, text in lines.items():
        screen.line(f"{screen.paint(key.ljust(16), 'dim')}  {text}")
    screen.line()
    screen.table(["OWNER", "SAFE TO RE-EXEC"], [[name, why or "yes"] for name, why in sorted(info["owners"].items())])
    if info["children"]:
        screen.line()
        screen.table(["CHILD", "PID"], [[child["name"], child["pid"]] for child in info["children"]])


def _one_line(context: Context, value: Any) -> str:
    if not isinstance(value, dict):
        return context.screen.tone(str(value))
    return ", ".join(f"{key} {context.screen.tone(str(item))}" for key, item in value.items() if item not in ("", None))


def _last_reexec(context: Context, known: dict[str, Any]) -> str:
    if known["state"] == "idle":
        return "none since the start"
    why = known["reason"] or "; ".join(known["waits_for"])
    told = f"{known['pause_ms']:.0f} ms pause" if known["state"] == "done" else why
    return f"{context.screen.tone(known['state'])}{f' ({told})' if told else ''}"
