"""Asks an embedded libvirt whether it takes domains: `python -m tests.drivers.vm.embedded ROOT`.

Standard input: {name: [xml, whether QEMU's command line is to be made, too]}. Standard output: {name: error, or empty text}.
A program of its own, because libvirt's event loop and the parenthood of its orphaned probes are facts of a whole process.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading

import libvirt

from state.process import reap_orphans

PR_SET_CHILD_SUBREAPER = 36
NOBODY = 65534


def turn_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def become_nobody(root: str) -> None:
    """Where /dev/kvm can be opened but runs no guest, libvirt asks QEMU for its abilities again for every domain: it must
    not be able to open it."""
    for path in (root, f"{root}/etc"):
        os.chown(path, NOBODY, NOBODY)
    os.environ.update(HOME=root, XDG_RUNTIME_DIR=root, XDG_CACHE_HOME=root, XDG_CONFIG_HOME=root)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def verdict(connection: libvirt.virConnect, xml: str, command_line: bool) -> str:
    try:
        connection.defineXML(xml).undefine()
        if command_line:
            connection.domainXMLToNative("qemu-argv", xml, 0)
    except libvirt.libvirtError as error:
        return str(error)
    return ""


def main() -> int:
    root = sys.argv[1]
    os.makedirs(f"{root}/etc")
    with open(f"{root}/etc/qemu.conf", "w", encoding="ascii") as file:
        file.write('stdio_handler = "file"\nsecurity_driver = "none"\nremember_owner = 0\n')
        file.write(f'spice_tls = 1\nspice_tls_x509_cert_dir = "{root}"\n')
    if os.geteuid() == 0:
        become_nobody(root)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    libvirt.virEventAddTimeout(100, lambda _timer, _: reap_orphans(set()), None)
    threading.Thread(target=turn_events, daemon=True).start()
    connection = libvirt.open(f"qemu:///embed?root={root}")
    verdicts = {name: verdict(connection, *asked) for name, asked in json.load(sys.stdin).items()}
    print(json.dumps(verdicts), flush=True)
    # No orderly end: a thread is inside of libvirt.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
