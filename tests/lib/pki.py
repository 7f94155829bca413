"""Certificates for tests: an authority of our own, and what it signs. Made with the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")  # made in milliseconds


class Authority:
    """`ca`: the PEM file to believe. `issue` gives the files of a certificate and its key."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs openssl")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = str(folder / "ca.pem")
        self._key = str(folder / "ca.key")
        _openssl("req", "-x509", *CURVE, "-days", "1", "-subj", "/CN=authority", *_out(self._key, self.ca))

    def issue(self, name: str, *alternatives: str) -> tuple[str, str]:
        """(certificate, key) for `name`; alternatives as openssl writes them, `DNS:` and the name by default."""
        cert, key = str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key")
        names = ",".join(alternatives or (f"DNS:{name}",))
        _openssl(
            *("req", "-x509", *CURVE, "-days", "1", "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}"),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-CA", self.ca, "-CAkey", self._key),
            *_out(key, cert),
        )
        return cert, key


def _out(key: str, cert: str) -> tuple[str, ...]:
    return ("-keyout", key, "-out", cert)


def _openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)
