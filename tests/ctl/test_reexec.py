"""`vdsmctl reexec`: what it waits for, tells, and returns, for each way a request can end."""

from __future__ import annotations

import json

import pytest

from tests.ctl.conftest import Run
from tests.ctl.serving import Server, outcome


def comes(server: Server, *, generation: int = 3, cut: bool = False, **fields: object) -> None:
    """Have the next request end like this, `cut` with all clients cut off."""

    def become() -> None:
        server.daemon.outcome = outcome(**{"number": server.daemon.outcome["number"], **fields})
        server.daemon.generation = generation

    def on_request() -> None:
        if cut:
            server.drop_clients()
        server.loop.call_later(0.01, become)

    server.daemon.on_request = on_request


@pytest.mark.parametrize("cut", [False, True])
def test_done(cut: bool, server: Server, run: Run) -> None:
    steps = [{"name": "import", "ms": 21.5}, {"name": "serve", "ms": 1.25}]
    comes(server, generation=4, cut=cut, state="done", pause_ms=43.2, steps=steps)
    ran = run("reexec", "--verbose")
    assert ran.status == 0
    assert ran.out.startswith("done: generation 4, pause ")
    assert "43 ms by the daemon's own measure" in ran.out
    assert ran.out.splitlines()[1:] == ["  STEP      MS", "  import  21.5", "  serve    1.2"]
    assert server.daemon.asked == [False]


def test_json(server: Server, run: Run) -> None:
    comes(server, generation=4, state="done", pause_ms=43.2)
    told = json.loads(run("reexec", "--json").out)
    assert (told["state"], told["generation"], told["number"], told["daemon_pause_ms"]) == ("done", 4, 1, 43.2)
    assert told["pause_ms"] > 0


@pytest.mark.parametrize("state", ["refused", "cancelled"])
def test_refused(state: str, server: Server, run: Run) -> None:
    comes(server, state=state, reason="the configuration is broken")
    ran = run("reexec")
    assert ran.status == 3
    assert ran.out == f"{state}: the configuration is broken. The code that ran before runs on, nothing was lost.\n"


def test_pending(server: Server, run: Run) -> None:
    comes(server, state="pending", waits_for=["vm a is being started", "vm b too"])
    ran = run("reexec", "--wait", "0")
    assert ran.status == 4
    assert ran.out.startswith(
        "pending: vm a is being started; vm b too\nIt will be carried out at the next safe point;"
    )
    assert json.loads(run("reexec", "--wait", "0", "--json").out)["waits_for"] == ["vm a is being started", "vm b too"]


def test_now(server: Server, run: Run) -> None:
    comes(server, state="refused", reason="not at a safe point")
    assert run("reexec", "--now").status == 3
    assert server.daemon.asked == [True]


def test_cancel(server: Server, run: Run) -> None:
    server.daemon.outcome = outcome(number=1, state="pending")
    assert run("reexec", "--cancel") == (0, "cancelled: the code that runs stays\n", "")
    ran = run("reexec", "--cancel")
    assert (ran.status, ran.out) == (1, "")
    assert "none is waiting" in ran.err


def test_a_daemon_that_was_started_anew_meanwhile(server: Server, run: Run) -> None:
    comes(server, generation=0, number=0)
    ran = run("reexec")
    assert ran.status == 1
    assert "does not know of the request" in ran.out


def test_another_request_overtakes_ours(server: Server, run: Run) -> None:
    comes(server, generation=5, number=7, state="done", pause_ms=10.0)
    assert run("reexec").status == 0


def test_a_daemon_that_is_not_there(run: Run) -> None:
    ran = run("reexec")
    assert ran.status == 1
    assert "no vdsmd answers" in ran.err
