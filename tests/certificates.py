"""Keys and certificates for tests, made with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vdsmd.api import tls


def openssl(*options: str | Path) -> None:
    subprocess.run(["openssl", *options], check=True, capture_output=True, timeout=120)


def authority(folder: Path, name: str) -> None:
    """Make an authority: NAME.key and NAME.pem."""
    subject = f"/CN={name}"
    key = folder / f"{name}.key"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", subject, "-keyout", key, "-out", folder / f"{name}.pem")  # fmt: skip


def certificate(folder: Path, name: str, issuer: str, *, extra: str = "") -> None:
    """Make NAME.key and NAME.pem, signed by the issuer. extra: a line of openssl's configuration for what it says."""
    request, key = folder / f"{name}.csr", folder / f"{name}.key"
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", key, "-out", request)  # fmt: skip
    openssl("x509", "-req", "-in", request, "-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key",
            "-CAcreateserial", "-days", "2", "-out", folder / f"{name}.pem", *_extensions(folder, name, extra))  # fmt: skip


def _extensions(folder: Path, name: str, extra: str) -> list[str | Path]:
    if not extra:
        return []
    file = folder / f"{name}.ext"
    file.write_text(extra, encoding="ascii")
    return ["-extfile", file]


def trust_store(path: Path, keys: Path, host: str, issuer: str) -> Path:
    """Make a trust store as on a host, from certificates in `keys`; return its path."""
    for name, source in ((tls.KEY, f"{host}.key"), (tls.CERTIFICATE, f"{host}.pem"), (tls.AUTHORITY, f"{issuer}.pem")):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes((keys / source).read_bytes())
    return path
