"""The verbs about what runs in guests, over the wire, where there is no agent to heed them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tests.running import Running
from tests.until import until


def test_verbs_say_that_no_agent_responds(daemon: Callable[..., Running]) -> None:
    vdsmd = daemon()
    vm_id = str(uuid.uuid4())
    calls: list[tuple[str, list[Any]]] = [
        ("desktopLogin", ["example", "alice", "not for the log"]),
        ("desktopLogoff", [False]),
        ("desktopLock", []),
        ("sendHcCmdToDesktop", ["anything"]),
    ]
    for verb, arguments in calls:
        assert vdsmd.call(verb, vm_id, *arguments)["status"]["code"] == 1, verb
    vdsmd.must("create", {"vmId": vm_id, "memSize": 64})
    until(lambda: vdsmd.must("list")["vmList"][0]["status"] == "Up", 60)
    for verb, arguments in calls:
        assert vdsmd.call(verb, vm_id, *arguments)["status"]["code"] == 19, verb
    assert "not for the log" not in vdsmd.log()
