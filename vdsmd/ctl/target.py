"""Target: which daemon is meant, and how to prove who we are to it."""

from __future__ import annotations

import configparser
import os
from typing import Any

from vdsmd.ctl.wire import Address

CONFIG = "/etc/vdsm/vdsm.conf"
RUN_DIR = "/var/run/vdsm"
TRUST_STORE = "/etc/pki/vdsm"
PORT = 54321


class Unusable(Exception):
    """What was given on the command line, or the configuration, cannot be used."""


def address(options: Any) -> Address:
    """Return where the daemon is: at --url, or at the local socket of the configuration's run directory."""
    if options.url:
        return _remote(options)
    return Address(path=os.path.join(_setting(options.config, "paths", "run_dir", RUN_DIR), "vdsmd.sock"))


def how_to_start(options: Any) -> str:
    """Return what to do about a daemon that does not answer."""
    if options.url:
        return "Is it running there, and is the port right?"
    config = f" --config {options.config}" if options.config else ""
    return f"Is it running? Start it with: python -m vdsmd{config} --daemon (or: systemctl start vdsmd)"


def _remote(options: Any) -> Address:
    from urllib.parse import urlsplit  # only who names a URL waits for its import

    parts = urlsplit(options.url if "//" in options.url else f"//{options.url}", scheme="https")
    try:
        port = parts.port or PORT
    except ValueError as error:
        raise Unusable(f"--url {options.url}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Unusable(f"--url {options.url}: expected http://HOST[:PORT] or https://HOST[:PORT]")
    tls = _tls(options) if parts.scheme == "https" else None
    return Address(host=parts.hostname, port=port, tls=tls)


def _tls(options: Any) -> Any:
    # Only who asks for TLS waits for its import.
    from vdsmd.api.tls import client_context

    store = _setting(options.config, "vars", "trust_store_path", TRUST_STORE)
    ca = options.ca or os.path.join(store, "certs", "cacert.pem")
    cert = options.cert or os.path.join(store, "certs", "vdsmcert.pem")
    key = options.key or os.path.join(store, "keys", "vdsmkey.pem")
    try:
        context = client_context(ca, cert, key)
    except (OSError, ValueError) as error:
        raise Unusable(f"TLS with ca={ca} cert={cert} key={key}: {error}") from error
    context.check_hostname = not options.any_name
    return context


def _setting(path: str, section: str, option: str, default: str) -> str:
    """Return one option of the configuration. A file that nobody named need not be there."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path or CONFIG, encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        if path or not isinstance(error, FileNotFoundError | PermissionError):
            raise Unusable(f"configuration {path or CONFIG}: {' '.join(str(error).split())}") from error
    return parser.get(section, option, fallback=default)
