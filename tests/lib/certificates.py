"""Certificates for tests: an authority, what it signs, what it revokes. Keys are small curves, made in no time."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from peers.process import HOST

DAY: Final = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path
    x509: x509.Certificate = field(repr=False)


def _write(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key", certificate)
    pair.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair


class Authority:
    """A certificate authority in `folder`, which it makes; `ca` is its certificate's file."""

    def __init__(self, folder: Path, name: str = "test-ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = _write(folder, "ca", certificate, self._key).cert

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
        )

    def sign(self, file: str, *names: str, email: str | None = None, organization: str | None = None) -> Pair:
        """A certificate whose common name is the first of `names`; names and addresses are its alternative names."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, names[0])]
        if organization is not None:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        if email is not None:
            attributes.append(x509.NameAttribute(NameOID.EMAIL_ADDRESS, email))
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        certificate = (
            self._builder(x509.Name(attributes), key)
            .add_extension(alternatives, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _write(self._folder, file, certificate, key)

    def issue(self, *names: str) -> tuple[str, str]:
        """The files of a certificate and its key, as a configuration names them; the first of `names` names them."""
        pair = self.sign(names[0], *names)
        return str(pair.cert), str(pair.key)

    def revoke(self, *pairs: Pair) -> Path:
        """A list of all that is revoked."""
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - DAY + datetime.timedelta(minutes=len(pairs))).next_update(now + DAY)
        for pair in pairs:
            revoked = x509.RevokedCertificateBuilder().serial_number(pair.x509.serial_number).revocation_date(now)
            builder = builder.add_revoked_certificate(revoked.build())
        path = self._folder / "crl.pem"
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: an authority, a server's certificate for HOST, and a client's for O=Acme, CN=test."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]


def make_certificates(folder: Path, authority: str = "test authority") -> Certificates:
    """New ones in `folder`."""
    signs = Authority(folder, authority)
    server = signs.sign("server", "mail.example.com", HOST)
    client = signs.sign("client", "test", organization="Acme")
    return Certificates(signs.ca, (server.cert, server.key), (client.cert, client.key))


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
