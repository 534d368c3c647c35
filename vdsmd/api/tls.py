"""TLS for the management port: both sides show a certificate of the same authority.

It promises that nobody without such a certificate gets as far as a request, and that a file that is missing or unusable
is named. Imported only where TLS is on: `ssl` costs a tenth of the pause that a re-exec may take.

The certificate chain's depth is OpenSSL's own limit: Python has no way to set it.
"""

from __future__ import annotations

import os
import socket
import ssl

from vdsmd.loop import READ, WRITE

KEY = "keys/vdsmkey.pem"
CERTIFICATE = "certs/vdsmcert.pem"
AUTHORITY = "certs/cacert.pem"


class SecureSocket:
    """A connection under TLS, with a plain socket's manners: what would have to wait raises BlockingIOError."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock
        self._failed = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def handshake(self) -> int:
        """Go on with the handshake. Return what to wait for, or 0 when it is done. Raises OSError (ssl.SSLError)."""
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            return READ
        except ssl.SSLWantWriteError:
            return WRITE
        except OSError:
            self._failed = True
            raise
        return 0

    def recv(self, size: int, /) -> bytes:
        if self._failed:
            # Only to be thrown away, so that our alert arrives: closing over unread bytes would take it back.
            return socket.socket.recv(self._sock, size)
        try:
            return self._sock.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error

    def send(self, data: bytes | memoryview, /) -> int:
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error

    def shutdown(self, how: int, /) -> None:
        """End our half, with TLS's own farewell first, so that the client knows that nothing was cut off."""
        try:
            self._sock.unwrap()
        except (OSError, ValueError):
            pass  # sent as far as it could be; we do not wait for the client's
        # SSLSocket.shutdown would throw the session away, and what is still to be read with it.
        socket.socket.shutdown(self._sock, how)

    def close(self) -> None:
        self._sock.close()


class ServerContext:
    """What all connections of a listener need."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap(self, sock: socket.socket) -> SecureSocket:
        """Return the secure form of a connection that has just been accepted. The handshake is still to be done."""
        return SecureSocket(self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False))


def server_context(trust_store: str) -> ServerContext:
    """Return the server's side, with key and certificates of the trust store. Raises OSError naming the file."""
    key, certificate, authority = (_readable(trust_store, name) for name in (KEY, CERTIFICATE, AUTHORITY))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Tickets would let clients come back faster, but not after a re-exec, and not everybody reads them.
    context.num_tickets = 0
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        raise OSError(f"{certificate} and {key}: not a certificate with its key: {error}") from error
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise OSError(f"{authority}: not a certificate: {error}") from error
    return ServerContext(context)


def client_context(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    """Return a client's side, from files. Raises OSError or ValueError."""
    context = ssl.create_default_context(cafile=authority)
    # An engine's authority may be older than what Python 3.13 wants to be said in each certificate.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_cert_chain(certificate, key)
    return context


def _readable(trust_store: str, name: str) -> str:
    """Return the file's path. OpenSSL's own errors do not say which file they are about."""
    path = os.path.join(trust_store, name)
    with open(path, "rb"):
        return path


def _no_password() -> str:
    """A key under a password is refused; without this, OpenSSL would ask at the terminal."""
    return ""
