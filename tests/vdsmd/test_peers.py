"""Daemons that call one another: what is sent once, under TLS, and what is known when it fails."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.errors import Invalid
from drivers.vm.errors import PeerRefused, PeerSilent, PeerUnreachable
from tests.certificates import authority, certificate, trust_store
from tests.running import Running
from vdsmd.config import Config, Vars
from vdsmd.peers import DEFAULT_PORT, Peer, split

PLAIN = Config(path="", vars=Vars(ssl=False))
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("peer", "found"),
    [
        ("host", ("host", DEFAULT_PORT)),
        ("host:1", ("host", 1)),
        ("192.0.2.1:65535", ("192.0.2.1", 65535)),
        ("[fe80::1]:2", ("fe80::1", 2)),
        ("[fe80::1]", ("fe80::1", DEFAULT_PORT)),
    ],
)
def test_a_peer_is_a_host_and_a_port(peer: str, found: tuple[str, int]) -> None:
    assert split(peer) == found


@pytest.mark.parametrize("peer", ["", ":1", "host:65536", "host:-1", "host:a", "[]:1"])
def test_what_is_none(peer: str) -> None:
    with pytest.raises(Invalid):
        split(peer)


def test_under_tls_both_prove_who_they_are(daemon: Callable[..., Running], tmp_path: Path) -> None:
    for issuer in ("ours", "theirs"):
        authority(tmp_path, issuer)
        certificate(tmp_path, f"host-of-{issuer}", issuer)
    store = trust_store(tmp_path / "store", tmp_path, "host-of-ours", "ours")
    vdsmd = daemon(config={"vars": {"ssl": "true", "trust_store_path": store}})
    address = f"127.0.0.1:{vdsmd.port}"
    ours = Peer(address, Config(path="", vars=Vars(trust_store_path=str(store))))
    assert ours.call("list", False, [], timeout=PATIENCE) == {"vmList": []}
    with pytest.raises(PeerRefused) as refused:
        ours.call("destroy", "11111111-1111-4111-8111-111111111111", timeout=PATIENCE)
    assert refused.value.fields["code"] == 1
    strange = trust_store(tmp_path / "strange", tmp_path, "host-of-theirs", "theirs")
    with pytest.raises((PeerUnreachable, PeerSilent)):
        Peer(address, Config(path="", vars=Vars(trust_store_path=str(strange)))).call("ping", timeout=PATIENCE)
    with pytest.raises(PeerUnreachable):
        Peer(address, Config(path="", vars=Vars(trust_store_path=str(tmp_path)))).call("ping", timeout=PATIENCE)


def test_nobody_there_and_nobody_who_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = Peer(f"127.0.0.1:{server.getsockname()[1]}", PLAIN)

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(PeerSilent):
            peer.call("ping", timeout=PATIENCE)
        thread.join()
    with pytest.raises(PeerUnreachable):
        peer.call("ping", timeout=PATIENCE)
