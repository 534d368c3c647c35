"""Devices that fence agents talk to: a BMC that speaks IPMI, by OpenIPMI's simulator, and one that speaks Redfish.

They promise that the power of the host behind them is what they were last told, and that nothing of them outlives the test.
"""

from __future__ import annotations

import base64
import http.server
import json
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.until import until

USER, PASSWORD = "admin", "open-sesame"
SYSTEM = "/redfish/v1/Systems/1"


class Ipmi:
    """A BMC on a port of its own. `power` is a file: 1 or 0. `asked`: what was asked of it, one line each."""

    def __init__(self, base: Path) -> None:
        base.mkdir()
        self.power = base / "power"
        self.power.write_text("1")
        self.asked = base / "asked"
        self.asked.touch()
        chassis = base / "chassis"
        chassis.write_text(
            f'#!/bin/sh\nshift\necho "$@" >> {self.asked}\n'
            f'case "$1 $2" in\n"get power") echo "power:$(cat {self.power})";;\n"set power") echo $3 > {self.power};;\nesac\n'
        )
        chassis.chmod(0o755)
        (base / "emu").write_text(
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02\nmc_enable 0x20\n"
        )
        (base / "state").mkdir()
        self.port = free_port()
        levels = "".join(f"allowed_auths_{name} md5 straight\n" for name in ("callback", "user", "operator", "admin"))
        (base / "lan").write_text(
            f'name "bmc"\nset_working_mc 0x20\nstartlan 1\naddr 127.0.0.1 {self.port}\npriv_limit admin\n{levels}endlan\n'
            f'chassis_control "{chassis} 0x20"\nuser 2 true "{USER}" "{PASSWORD}" admin 10 md5 straight\n'
        )
        with open(base / "output", "wb") as output:
            self._process = subprocess.Popen(
                ["ipmi_sim", "-c", base / "lan", "-f", base / "emu", "-s", base / "state", "-n"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        until(self._listens, 60, "the simulator to listen")

    @property
    def options(self) -> str:
        # Machines that run tests are busy.
        return f"ipport={self.port}\npower_wait=0\npower_timeout=120\nipmitool_timeout=20"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _listens(self) -> bool:
        assert self._process.poll() is None, "the simulator has ended"
        return f":{self.port:04X} " in Path("/proc/net/udp").read_text(encoding="ascii")


class Redfish:
    """A BMC that speaks Redfish over TLS, with the certificate in `folder` (NAME.pem and NAME.key). `power` is On or Off."""

    def __init__(self, folder: Path, name: str) -> None:
        self.power = "On"
        bmc = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                reset: dict[str, Any] = {"#ComputerSystem.Reset": {"target": f"{SYSTEM}/Actions/Reset"}}
                known: dict[str, dict[str, Any]] = {
                    "/redfish/v1": {"Systems": {"@odata.id": "/redfish/v1/Systems"}},
                    "/redfish/v1/Systems": {"Members": [{"@odata.id": SYSTEM}]},
                    SYSTEM: {"PowerState": bmc.power, "Actions": reset},
                }
                self._answer(known.get(self.path, {}))

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self._answer({}):
                    bmc.power = "Off" if asked["ResetType"] == "ForceOff" else "On"

            def _answer(self, answer: dict[str, Any]) -> bool:
                known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                welcome = self.headers.get("Authorization") == f"Basic {known}"
                text = json.dumps(answer if welcome else {"error": "who are you?"}).encode()
                self.send_response(200 if welcome else 401)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
                return welcome

            def log_message(self, *_args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.options = f"ipport={self._server.server_address[1]}\npower_wait=0\nssl_insecure=1"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
