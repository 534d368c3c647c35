"""Peers: the daemons of other hosts, called over the network as any client calls us.

It promises that a call is sent once, and that it is said whether nothing was sent, something was refused, or nobody knows. For
worker threads; imported after the first answer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from drivers.errors import Invalid
from drivers.vm.errors import PeerRefused, PeerSilent, PeerUnreachable
from vdsmd.api.tls import AUTHORITY, CERTIFICATE, KEY, client_context
from vdsmd.api.xmlrpc import Unsendable
from vdsmd.config import Config
from vdsmd.ctl.wire import Address, Client, Lost, Refused, Unreachable

if TYPE_CHECKING:
    import ssl

DEFAULT_PORT = 54321


class Peer:
    """The daemon at an address: host, host:port, or [address]:port."""

    def __init__(self, peer: str, config: Config) -> None:
        self._peer = peer
        self._config = config

    def call(self, verb: str, *args: Any, timeout: float) -> dict[str, Any]:
        """Return the reply without its envelope. Raises PeerUnreachable, PeerRefused, PeerSilent, Invalid."""
        action = f"calling {verb} of {self._peer}"
        try:
            client = Client(self._address(), timeout)
        except OSError as error:
            raise PeerUnreachable(action=action, reason=f"TLS is not set up: {error}") from error
        try:
            return client.call(verb, *args)
        except Unreachable as error:
            raise PeerUnreachable(action=action, reason=error) from error
        except Refused as error:
            raise PeerRefused(peer=self._peer, reason=error.message, code=error.code) from error
        except Lost as error:
            raise PeerSilent(what=self._peer, reason=error) from error
        except Unsendable as error:
            raise Invalid(what=verb, reason=error) from error
        finally:
            client.close()

    def _address(self) -> Address:
        host, port = split(self._peer)
        return Address(host=host, port=port, tls=self._tls() if self._config.vars.ssl else None)

    def _tls(self) -> ssl.SSLContext:
        """Our own certificate is shown to it, and its own must be of the same authority. Whose name is in it does not matter:
        engines name hosts by addresses, too."""
        store = self._config.vars.trust_store_path
        context = client_context(*(os.path.join(store, name) for name in (AUTHORITY, CERTIFICATE, KEY)))
        context.check_hostname = False
        return context


def split(peer: str) -> tuple[str, int]:
    """Return host and port. Raises Invalid."""
    if peer.startswith("["):
        host, _, port = peer[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = peer.partition(":")
    if not host or (port and not (port.isascii() and port.isdigit() and int(port) < 65536)):
        raise Invalid(what=peer, reason="expected a host, or host:port")
    return host, int(port or DEFAULT_PORT)
