"""Dispatch: every call is answered once, in its own way, and the log tells of it without telling secrets."""

from __future__ import annotations

import logging
import os
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers import errors
from drivers.hooks import Hooks
from tests.api.server import Server, request
from vdsmd.api import dispatch
from vdsmd.api.http import Request
from vdsmd.api.table import Reply, Verb
from vdsmd.api.wire import Struct, Uuid
from vdsmd.api.xmlrpc import Decoder

Submitted = tuple[Callable[[], Any], Callable[[Any, Exception | None], None], str | None, float]


class Node:
    """A daemon with one machine, and workers that the test runs."""

    def __init__(self) -> None:
        self.recovering = ""
        self.hooks = Hooks("/nonexistent")
        self.submitted: list[Submitted] = []
        self.done: list[str] = []

    def submit(self, work: Callable[[], Any], done: Any = None, *, key: str | None = None, timeout: float = 0) -> None:
        self.submitted.append((work, done, key, timeout))

    def work(self) -> None:
        """Carry what was submitted, as a worker would."""
        for work, done, _, _ in self.submitted:
            try:
                done(work(), None)
            except errors.DriverError as error:
                done(None, error)
        self.submitted.clear()


def ping(node: Node) -> Reply:
    return {}


def stats(node: Node, vmId: Uuid) -> Reply:
    if vmId != "known":
        raise errors.NoSuchVm(vm=vmId)
    return {"statsList": [{"vmId": vmId}]}


def ticket(node: Node, vmId: Uuid, password: str, params: Struct = {}) -> Reply:  # noqa: B006
    return {}


def create(node: Node, vmParams: Struct) -> Reply:
    if "vmId" not in vmParams:
        raise errors.MissingParameter(name="vmId")
    return {"vmList": vmParams}


def broken(node: Node) -> Reply:
    raise ZeroDivisionError("deliberate")


def nothing(node: Node) -> Reply:
    return {"info": {"found": None}}


def own_status(node: Node) -> Reply:
    return {"status": {"code": 7, "message": "half done"}, "progress": 50}


def destroy(node: Node, vmId: Uuid) -> Reply:
    return {"done": [*node.done, vmId]}


def hasten(node: Node, vmId: Uuid) -> None:
    assert not node.submitted
    node.done.append(f"ahead {vmId}")


VERBS = [
    Verb(name="destroy", run=destroy, key="vmId", ahead=hasten),
    Verb(name="ping", run=ping, quick=True, alive=True),
    Verb(name="getVmStats", run=stats, quick=True),
    Verb(name="setVmTicket", run=ticket, key="vmId", timeout=7.0),
    Verb(name="fence", run=ticket, secret=("params",)),
    Verb(name="create", run=create, key="vmParams.vmId"),
    Verb(name="broken", run=broken, quick=True),
    Verb(name="brokenSlowly", run=broken),
    Verb(name="nothing", run=nothing, quick=True),
    Verb(name="ownStatus", run=own_status, quick=True),
    Verb(name="vdsmd.local", run=ping, quick=True, local=True, gated=False),
    Verb(name="getSpmStatus", run=stats, quick=True, gated=False, message="OK"),
]


class Caller:
    """Calls as the rim does, and returns the value of the answer."""

    def __init__(self, run_dir: Path) -> None:
        self.node = Node()
        self.sign = run_dir / "client.log"
        self.dispatcher = dispatch.Dispatcher(
            self.node, self.node.submit, str(run_dir), table={verb.name: verb for verb in VERBS}
        )
        self.answers: list[bytes] = []

    def send(self, body: bytes, *, local: bool = False) -> None:
        decoder = Decoder()
        decoder.feed(body)
        asked = Request(decoder)
        asked.peer, asked.local, asked.flow = "10.0.0.1:5", local, "f1"
        self.dispatcher.serve(asked, self.answers.append)

    def call(self, name: str, *args: Any, local: bool = False) -> Any:
        self.send(xmlrpc.client.dumps(args, name).encode(), local=local)
        self.node.work()
        (answer,) = self.answers
        self.answers.clear()
        return xmlrpc.client.loads(answer)[0][0]

    def code(self, name: str, *args: Any, local: bool = False) -> tuple[int, str]:
        status = self.call(name, *args, local=local)["status"]
        return status["code"], status["message"]

    def fault(self, name: str, *args: Any) -> tuple[int, str]:
        with pytest.raises(xmlrpc.client.Fault) as caught:
            self.call(name, *args)
        self.answers.clear()
        return caught.value.faultCode, caught.value.faultString


@pytest.fixture
def caller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Caller:
    caplog.set_level(logging.INFO, "api")
    return Caller(tmp_path)


def test_the_envelope(caller: Caller) -> None:
    done = {"code": 0, "message": "Done"}
    assert caller.call("ping") == {"status": done}
    assert caller.call("getVmStats", "known") == {"status": done, "statsList": [{"vmId": "known"}]}
    assert caller.call("create", {"vmId": "v"}) == {"status": done, "vmList": {"vmId": "v"}}
    assert caller.call("getSpmStatus", "known")["status"] == {"code": 0, "message": "OK"}
    assert caller.call("ownStatus") == {"status": {"code": 7, "message": "half done"}, "progress": 50}


def test_errors_come_in_the_envelope_and_nothing_else_does(caller: Caller) -> None:
    assert caller.call("getVmStats", "x") == {"status": {"code": 1, "message": "Virtual machine does not exist"}}
    assert caller.call("create", {}) == {"status": {"code": 11, "message": "Missing required parameter: vmId"}}


@pytest.mark.parametrize("args", [[5], [True], [{}], [["a"]], [b"x"]])
def test_wrong_types(caller: Caller, args: list[Any]) -> None:
    code, text = caller.code("getVmStats", *args)
    assert code == 91
    assert text.startswith("vmId: expected")


def test_what_is_no_call_is_a_fault(caller: Caller) -> None:
    assert caller.fault("noSuchVerb") == (-32601, "there is no verb 'noSuchVerb'")
    assert caller.fault("system.multicall", [])[0] == -32601
    assert caller.fault("getVmStats") == (-32602, "getVmStats takes 1 argument, 0 given")
    assert caller.fault("getVmStats", "a", "b")[0] == -32602
    code, text = caller.fault("nothing")
    assert (code, text) == (-32603, "reply.info.found: nothing (None) cannot be sent")


@pytest.mark.parametrize("body", [b"", b"<html/>", b"<methodCall>", b"<!DOCTYPE x><methodCall/>", b"\xff" * 100])
def test_malformed_documents(caller: Caller, body: bytes) -> None:
    caller.send(body)
    with pytest.raises(xmlrpc.client.Fault) as caught:
        xmlrpc.client.loads(caller.answers[0])
    assert caught.value.faultCode == -32700
    assert "line 1" in caught.value.faultString


@pytest.mark.parametrize("name", ["broken", "brokenSlowly"])
def test_what_was_not_foreseen(caller: Caller, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caller.send(xmlrpc.client.dumps((), name).encode())
    for work, done, _, _ in caller.node.submitted:
        with pytest.raises(ZeroDivisionError) as caught:
            work()
        done(None, caught.value)
    (status,) = (xmlrpc.client.loads(answer)[0][0] for answer in caller.answers)
    assert status == {"status": {"code": 16, "message": "unexpected failure: ZeroDivisionError: deliberate"}}
    assert len([record for record in caplog.records if record.exc_info]) == 1


def test_verbs_that_are_not_built(caller: Caller) -> None:
    assert caller.code("migrateCancel", "vm") == (44, "migrateCancel is not built yet")
    assert caller.code("getVolumeInfo", "a", "b", "c", "d")[0] == 44
    assert caller.fault("migrateCancel")[0] == -32602
    assert caller.fault("merge", 1, 2, 3) == (-32602, "merge takes 4 to 6 arguments, 3 given")


def test_the_gate(caller: Caller) -> None:
    caller.node.recovering = "connecting to libvirt"
    for name, args in (("ping", []), ("getVmStats", ["known"]), ("create", [{}]), ("migrateCancel", ["vm"])):
        code, text = caller.code(name, *args)
        assert code == 99
        assert "connecting to libvirt" in text
    assert caller.code("getSpmStatus", "known")[0] == 0
    assert caller.code("getVolumeInfo", "a", "b", "c", "d")[0] == 44
    assert caller.code("vdsmd.local", local=True)[0] == 0
    assert "ping" in caller.call("system.listMethods")
    caller.node.recovering = ""
    assert caller.code("ping")[0] == 0


def test_what_is_for_operators_of_this_host(caller: Caller) -> None:
    assert caller.code("vdsmd.local", local=True) == (0, "Done")
    code, text = caller.code("vdsmd.local")
    assert code == 75
    assert "local socket" in text


def test_the_engines_sign_of_life(caller: Caller) -> None:
    caller.call("getVmStats", "known")
    caller.call("ping", local=True)  # an operator's, who does not come over the network
    assert not caller.sign.exists()
    caller.call("ping")
    os.utime(caller.sign, (1, 1))
    caller.call("getVmStats", "known")
    assert caller.sign.stat().st_mtime == 1
    caller.call("ping")
    assert caller.sign.stat().st_mtime > 1
    assert caller.dispatcher.last_client == "10.0.0.1:5"


def test_a_sign_of_life_that_cannot_be_noted_hurts_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caller = Caller(tmp_path / "missing")
    assert [caller.code("ping")[0] for _ in range(3)] == [0, 0, 0]
    assert len([line for line in caplog.messages if "client.log" in line]) == 1


def test_what_is_done_ahead_does_not_wait_for_others_of_the_key(caller: Caller) -> None:
    assert caller.call("destroy", "V1")["done"] == ["ahead V1", "V1"]
    assert [key for _, _, key, _ in caller.node.submitted] == []


def test_slow_verbs_are_isolated_by_their_key(caller: Caller) -> None:
    for name, args in (("setVmTicket", ("V1", "x")), ("create", ({"vmId": "v2"},)), ("create", ({"vmId": 5},))):
        caller.send(xmlrpc.client.dumps(args, name).encode())
    assert [(key, timeout) for _, _, key, timeout in caller.node.submitted] == [("v1", 7.0), ("v2", 60.0), (None, 60.0)]
    assert not caller.answers
    caller.node.work()
    assert len(caller.answers) == 3


def test_one_line_says_who_asked_and_one_how_it_ended(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caller.call("create", {"vmId": "v"})
    asked, ended = caplog.messages
    assert asked == "call verb=create client=10.0.0.1:5 flow=f1 args=vmParams={'vmId': 'v'}"
    assert ended.startswith("answer verb=create client=10.0.0.1:5 flow=f1 code=0 ms=")


def test_answers_from_memory_are_worth_a_line_only_when_they_went_wrong(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caller.call("ping")
    assert not caplog.messages
    caller.call("getVmStats", "x")
    (line,) = caplog.messages
    assert "verb=getVmStats" in line
    assert "code=1 " in line
    caplog.set_level(logging.DEBUG, "api")
    caller.call("ping")
    assert "verb=ping" in caplog.messages[-1]


def test_secrets_are_not_logged(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caller.call("setVmTicket", "v", "hunter2", {"userName": "joe", "innerPassword": "hunter2"})
    caller.call("create", {"vmId": "v", "custom": {"sysprepInf": "hunter2"}, "devices": [{"passwd": "hunter2"}]})
    assert caller.code("setVmTicket", "v", ["hunter2"])[0] == 91
    assert "joe" in caplog.text
    caller.call("fence", "v", "", {"options": "key=hunter2"})
    caller.call("create", {"vmId": "v", "custom": {"otp": "hunter2", "bootproto": "a word that is none"}})
    assert "hunter2" not in caplog.text
    assert "a word that is none" in caplog.text


def test_lines_are_not_endless_and_cannot_be_forged(caller: Caller, caplog: pytest.LogCaptureFixture) -> None:
    caller.call("create", {"vmId": "v" * 100_000, "x": ["y"] * 100_000})
    caller.fault("no\nsuch verb" + "x" * 100_000)
    caller.call("getVmStats", "a\nb")
    assert all(len(line) < 2000 and "\n" not in line for line in caplog.messages)


def test_over_a_socket(tmp_path: Path, caller: Caller) -> None:
    with Server(tmp_path, caller.dispatcher.serve) as server:
        with server.proxy() as proxy:
            assert proxy.ping() == {"status": {"code": 0, "message": "Done"}}
            with pytest.raises(xmlrpc.client.Fault):
                proxy.noSuchVerb()
        with server.local_client() as client:
            assert client.call("vdsmd.local")["status"]["code"] == 0
        with server.client() as client:
            assert client.call("vdsmd.local")["status"]["code"] == 75
            bad = request("ping").replace(b"methodName", b"methodGame")
            assert b"faultCode" in client.send(bad).answer().body
            assert client.call("ping")["status"]["code"] == 0
