"""Fence agents: real programs in a directory of root's, with secrets on their standard input only."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from supervdsm import agents
from supervdsm.errors import ActionError, Invalid, NotAllowed, NotFound, TimedOut
from supervdsm.registry import ACTIONS, Context
from tests.supervdsm.actions.place import UID, call
from tests.until import until


def agent(where: Context, text: str, name: str = "test") -> Path:
    Path(where.fence_agents).mkdir(exist_ok=True)
    path = Path(where.fence_agents, f"fence_{name}")
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def fence(where: Context, **more: Any) -> Any:
    given: dict[str, Any] = {
        "agent": "test",
        "address": "10.0.0.1",
        "username": "admin",
        "password": "sesame",
        "deed": "status",
    }
    return call(where, "fence.run", **(given | more))


def test_an_agent_is_told_on_its_standard_input(where: Context, tmp_path: Path) -> None:
    agent(where, f"cat > {tmp_path}/told; echo Status: OFF; exit 2")
    told = fence(where, port="7", secure=True, options="power_wait=3\r\nipport=623\n\nssl-insecure=1\n")
    assert told == {"code": 2, "output": "Status: OFF\n"}
    assert (tmp_path / "told").read_text() == (
        "agent=fence_test\nipaddr=10.0.0.1\nlogin=admin\naction=status\npasswd=sesame\nport=7\nsecure=yes\n"
        "power_wait=3\nipport=623\nssl-insecure=1\n"
    )


@pytest.mark.parametrize("deed", ["status", "on", "off", "reboot", "monitor"])
def test_every_deed_reaches_the_agent(where: Context, deed: str) -> None:
    agent(where, "grep ^action=")
    assert fence(where, deed=deed) == {"code": 0, "output": f"action={deed}\n"}


def test_secrets_are_in_no_argument_list_environment_or_answer(where: Context, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    agent(where, f"cat; echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; cat {go}")
    answers: list[Any] = []
    caller = threading.Thread(
        target=lambda: answers.append(fence(where, password="open sesame!", options="snmp_priv_passwd=hidden\nplug=4"))
    )
    caller.start()
    try:
        pid = until((tmp_path / "pid").exists, 60) and (tmp_path / "pid").read_text().strip()
        seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert str(where.fence_agents).encode() in seen
    finally:
        with open(go, "w", encoding="ascii") as pipe:
            pipe.write("bye")
        caller.join()
    (answer,) = answers
    for secret in ("open sesame!", "hidden"):
        assert secret.encode() not in seen
        assert secret not in answer["output"]
    assert "passwd=********\n" in answer["output"] and "plug=4" in answer["output"]
    assert {"password", "options"} <= ACTIONS["fence.run"].secret


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "-x", "test\n", "test;reboot", "x" * 99, ".hidden"])
def test_other_names_are_no_agents(where: Context, name: str) -> None:
    agent(where, "true")
    with pytest.raises(NotAllowed):
        fence(where, agent=name)


def test_an_agent_must_be_roots_alone(where: Context, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="fence_test"):
        fence(where)
    path = agent(where, "true")
    path.chmod(0o775)
    with pytest.raises(NotAllowed, match="root's alone"):
        fence(where)
    path.chmod(0o755)
    os.chown(path, UID, UID)
    with pytest.raises(NotAllowed, match="root's alone"):
        fence(where)
    path.unlink()
    path.symlink_to(agent(where, "exit 1", "other"))  # agents are often links to one another
    assert fence(where)["code"] == 1
    path.unlink()
    path.mkdir()
    with pytest.raises(NotAllowed):
        fence(where)


DANGEROUS = [
    "passwd_script=/tmp/x",
    "passwd-script=/tmp/x",
    "PASSWD_SCRIPT=/tmp/x",
    "password_script=/tmp/x",
    "ssh_path=/tmp/x",
    "ipmitool-path=/tmp/x",
    "debug_file=/etc/passwd",
    "debug-file=/etc/passwd",
    "debug=/etc/passwd",
    "logfile=/etc/passwd",
    "identity_file=/etc/shadow",
    "ssh_options=-oProxyCommand=x",
    "exec=/tmp/x",
    "devices=/dev/sda",
    "tlskey=/etc/shadow",
    "help=1",
    "version=1",
    "action=off",
    "option=off",
    "agent=x",
]


@pytest.mark.parametrize("option", DANGEROUS)
def test_options_that_lend_roots_power_are_refused(where: Context, tmp_path: Path, option: str) -> None:
    agent(where, f"touch {tmp_path}/ran")
    with pytest.raises(NotAllowed, match=option.partition("=")[0]):
        fence(where, options=f"power_wait=1\n{option}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "a\naction=off"},
        {"username": "a\nb"},
        {"username": "x -oProxyCommand=touch"},
        {"username": "-oProxyCommand=touch"},
        {"address": "-oProxyCommand=touch"},
        {"address": "host name"},
        {"address": ""},
        {"address": "host\nx"},
        {"port": "1\naction=off"},
        {"port": "$(reboot)"},
        {"options": "not one word"},
        {"options": "=x"},
        {"options": "a b=x"},
        {"options": "plug=`reboot`"},
        {"options": "plug=\x00"},
        {"password": "x" * 5000},
        {"deed": "metadata"},
        {"deed": "OFF"},
        {"port": 7},
        {"secure": "yes"},
        {"argv": ["x"]},
    ],
)
def test_other_values_are_refused_without_a_word_of_them(where: Context, tmp_path: Path, wrong: dict[str, Any]) -> None:
    agent(where, f"touch {tmp_path}/ran")
    with pytest.raises(Invalid) as raised:
        fence(where, **wrong)
    assert not (tmp_path / "ran").exists()
    assert str(wrong.get("password", "\0")) not in str(raised.value)


METADATA = """
<resource-agent name="fence_test"><parameters>
<parameter name="action"><getopt mixed="-o, --action=[action]" /></parameter>
<parameter name="ipaddr"><getopt mixed="-a, --ip=[ip]" /></parameter>
<parameter name="login"><getopt mixed="-l, --username=[name]" /></parameter>
<parameter name="cmd_prompt"><getopt mixed="-c, --command-prompt=[prompt]" /></parameter>
<parameter name="look"><getopt mixed="--look-script=[script]" /></parameter>
<parameter name="lanplus"><getopt mixed="-P, --lanplus" /></parameter>
<parameter name="verbose"><getopt mixed="-v, --verbose" /></parameter>
</parameters></resource-agent>
"""


def knowing(where: Context, tmp_path: Path) -> Path:
    """Make an agent that says what it takes; return where it writes what it is told."""
    (tmp_path / "metadata").write_text(METADATA)
    told = tmp_path / "told"
    agent(where, f'[ "$*" = "-o metadata" ] && exec cat {tmp_path}/metadata\n[ $# = 0 ] && cat > {told}')
    return told


def test_an_agent_is_told_nothing_that_it_does_not_know(
    where: Context, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = knowing(where, tmp_path)
    options = "command-prompt=admin1->\nlanplus\nusername=other\nsnmp_priv_passwd=hidden\nverbose=1"
    assert fence(where, secure=True, options=options)["code"] == 0
    assert told.read_text() == (
        "ipaddr=10.0.0.1\nlogin=admin\naction=status\ncommand-prompt=admin1->\nlanplus\nusername=other\n"
    )
    assert "['passwd', 'secure', 'snmp_priv_passwd', 'verbose']" in caplog.text and "hidden" not in caplog.text


def test_an_option_by_another_name_is_what_it_is(where: Context, tmp_path: Path) -> None:
    told = knowing(where, tmp_path)
    with pytest.raises(NotAllowed, match="look"):
        fence(where, options="look=/tmp/x")
    assert not told.exists()


def test_an_agent_that_says_nothing_is_told_everything(where: Context, tmp_path: Path) -> None:
    agent(where, f"# metadata\n[ $# = 0 ] || exit 1\ncat > {tmp_path}/told")
    assert fence(where, options="lanplus\nplug=4")["code"] == 0
    assert (tmp_path / "told").read_text().endswith("passwd=sesame\nlanplus\nplug=4\n")


@pytest.mark.skipif(shutil.which("ipmitool") is None, reason="not installed: ipmitool")
def test_ipmitool_gets_its_password_where_root_alone_can_see_it(where: Context, tmp_path: Path) -> None:
    takes = METADATA.replace("look", "ipmitool_path").replace("_path-script", "-path")
    (tmp_path / "metadata").write_text(takes.replace("lanplus", "passwd"))
    agent(
        where,
        f'[ "$*" = "-o metadata" ] && exec cat {tmp_path}/metadata\n'
        f'cat > {tmp_path}/told; echo "$IPMI_PASSWORD" > {tmp_path}/environment',
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agents, "find", lambda name: name)  # whether or not there is one here
        assert fence(where, password='it\'s "secret"')["code"] == 0
    assert (tmp_path / "environment").read_text() == 'it\'s "secret"\n'
    told = dict(line.split("=", 1) for line in (tmp_path / "told").read_text().splitlines())
    assert told["passwd"] == agents.MASK and told["ipmitool_path"] == agents.IPMITOOL


def test_what_stands_in_for_ipmitool_drops_the_password(tmp_path: Path) -> None:
    program = tmp_path / "ipmitool"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    given = ["-I", "lan", "-U", "a b", "-P", "secret", "-L", "ADMIN", "chassis", "power", "status"]
    ran = subprocess.run(
        [agents.IPMITOOL, *given], capture_output=True, text=True, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert ran.stdout.splitlines() == ["-I", "lan", "-U", "a b", "-E", *given[6:]]


def test_an_agent_that_hangs_is_ended(where: Context) -> None:
    agent(where, "sleep 600")
    with pytest.raises(TimedOut, match="fence_test"):
        fence(where, patience=1)


def test_a_short_secret_is_masked_where_it_is_a_word(where: Context) -> None:
    agent(where, "echo p, plug: p=p")
    assert fence(where, password="p")["output"] == "********, plug: ********=********\n"


def test_one_that_cannot_be_run_is_said(where: Context) -> None:
    path = agent(where, "true")
    path.write_bytes(b"\x7fELF nonsense")
    with pytest.raises(ActionError):
        fence(where)
