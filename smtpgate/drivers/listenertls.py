"""TLS towards clients: which certificate, which protocols, what a client's own certificate says.

Owns a listener's TLS contexts. They are made before the workers are forked: OpenSSL draws the keys of session tickets
when a context is made, so all workers of a process group take each other's tickets. Files that change are read again
into the same contexts; sessions that are under way keep what they began with, and tickets stay good (but those of
clients that are asked for certificates).

The certificate is chosen by the name that the client asks for (SNI), the first one where none fits. A client that
offers protocols (ALPN) without smtp among them is refused with the alert of RFC 7301 section 3.2, as nginx does.
Refuses to know SMTP, and when a handshake takes place.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import gevent
import gevent.ssl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from smtpgate.drivers.clienthello import ClientHello
from smtpgate.drivers.tlslayer import TlsLayer
from smtpgate.journal import Journal
from smtpgate.session.streams import ClientCertificate, TlsInfo

# Seconds between two looks at the files; each costs a few stat calls.
REFRESH_INTERVAL: Final = 2.0
ALPN: Final = "smtp"
# RFC 8446 section 6: fatal(2), no_application_protocol(120), in a record of its own.
NO_PROTOCOL_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x78"
# Fatal, internal_error(80): "a memory allocation failure" and its like, "unrelated to the peer". What a client whose
# handshake is still to come can be told of a full proxy.
NO_ROOM_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x50"
VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

# What OpenSSL calls the attributes for which RFC 4514 has no name.
OPENSSL_NAMES: Final = {
    x509.NameOID.EMAIL_ADDRESS: "emailAddress",
    x509.NameOID.SERIAL_NUMBER: "serialNumber",
    x509.NameOID.GIVEN_NAME: "GN",
    x509.NameOID.SURNAME: "SN",
    x509.NameOID.TITLE: "title",
}

Look = tuple[tuple[int, int, int] | None, ...]


class ForeignProtocol(Exception):
    """The client speaks another protocol than SMTP. NO_PROTOCOL_ALERT tells it so."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM. passwords: a passphrase a line, of which one opens the key; None for a key without one."""

    chain: Path
    key: Path
    passwords: Path | None = None


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """certificates: the first is for clients that ask for no name of ours. minimum, maximum: of VERSIONS. ciphers:
    OpenSSL's list for TLS 1.2, curve: of the key exchange; None is OpenSSL's choice. tickets: are handed out, so that
    sessions may be resumed. client: off, or whether a client has to show a certificate of `client_ca`, which
    `client_crl` may have revoked.
    """

    certificates: tuple[CertificateFiles, ...]
    minimum: str = "TLSv1.2"
    maximum: str = "TLSv1.3"
    ciphers: str | None = None
    curve: str | None = None
    tickets: bool = True
    client: Literal["off", "optional", "required"] = "off"
    client_ca: Path | None = None
    client_crl: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        named = [path for one in self.certificates for path in (one.chain, one.key, one.passwords)]
        return tuple(path for path in (*named, self.client_ca, self.client_crl) if path is not None)


@dataclass(frozen=True, slots=True)
class _Read:
    """What changed files say, not in use yet."""

    contexts: list[gevent.ssl.SSLContext]
    names: dict[str, int]


class ListenerTls:
    """The contexts of one listener. Raises OSError, ssl.SSLError, ValueError for files that cannot be used."""

    def __init__(self, settings: TlsSettings) -> None:
        self.settings = settings
        self._looked = _look(settings.files)
        self._contexts, self._names = _load(settings)
        self._read: _Read | None = None

    def refresh(self) -> bool:
        """Read files that have changed; whether there were any. What cannot be used leaves all as it was, until it
        changes again. Raises as __init__.
        """
        self.prepare()
        return self.take_up()

    def prepare(self) -> None:
        """Read files that have changed, and go on with those of before. Raises as __init__, once a change."""
        look = _look(self.settings.files)
        if look == self._looked:
            return
        self._looked, self._read = look, None
        # Into contexts of their own: a half-written file must not leave a chain without its key.
        self._read = _Read(*_load(self.settings))

    def take_up(self) -> bool:
        """Use what `prepare` has read; whether there was anything. Raises as __init__ where it has changed since."""
        if self._read is None:
            return False
        read, self._read = self._read, None
        if self.settings.client == "off":
            for context, files in zip(self._contexts, self.settings.certificates, strict=True):
                _load_chain(context, files)
        else:
            # A resumed session shows no certificate again: whoever has been revoked must not have one.
            self._contexts = read.contexts
        self._names = read.names
        return True

    def choose(self, server_name: str | None) -> gevent.ssl.SSLContext:
        """The context for a name: its own, that of a wildcard one label up (RFC 6125 section 6.4.3), or the first."""
        index = 0
        if server_name is not None:
            wildcard = f"*.{server_name.partition('.')[2]}"
            index = self._names.get(server_name, self._names.get(wildcard, 0))
        return self._contexts[index]

    def begin(self, hello: ClientHello) -> TlsLayer:
        """The server's side of a handshake with a client that has said so much. Raises ForeignProtocol."""
        if hello.protocols is not None and ALPN.encode() not in hello.protocols:
            raise ForeignProtocol("client offers no smtp by ALPN")
        return TlsLayer(self.choose(hello.server_name), server_side=True)

    def learn(self, hello: ClientHello, layer: TlsLayer) -> TlsInfo:
        """What is known of a client once its handshake is done. Raises ValueError: a certificate that OpenSSL takes
        and nobody can read.
        """
        certificate = None if self.settings.client == "off" else describe(layer.certificate())
        return TlsInfo(layer.protocol, layer.cipher, hello.server_name, certificate)


def keep_fresh(listeners: Mapping[str, ListenerTls], journal: Journal) -> None:
    """For a greenlet of its own: certificates, keys, authorities and revocations that change are taken up by the
    handshakes to come. listeners: by name.
    """
    while True:
        for name, tls in listeners.items():
            try:
                if tls.refresh():
                    journal.info("certificates_loaded", listener=name)
            except PermissionError as error:
                # As it should be: root alone reads keys. Then HUP is the word for new ones.
                journal.info(
                    "certificates_unreadable", listener=name, reason=f"{error}; the first process can: HUP it"
                )
            except (OSError, ValueError) as error:
                journal.error("certificates_rejected", listener=name, reason=str(error))
        gevent.sleep(REFRESH_INTERVAL)


def _load(settings: TlsSettings) -> tuple[list[gevent.ssl.SSLContext], dict[str, int]]:
    """A context for each certificate, and which one is whose name's."""
    contexts, names = [], dict[str, int]()
    for index, files in enumerate(settings.certificates):
        contexts.append(_context(settings))
        _load_chain(contexts[-1], files)
        for name in certificate_names(files.chain.read_bytes()):
            names.setdefault(name, index)
    return contexts, names


def _load_chain(context: gevent.ssl.SSLContext, files: CertificateFiles) -> None:
    """With the passphrase that fits. Raises as ListenerTls, in the words for the last one that does not."""
    words = [] if files.passwords is None else files.passwords.read_text("utf-8").splitlines()
    *others, last = words or [""]  # without any OpenSSL would ask on a terminal
    for word in others:
        try:
            return context.load_cert_chain(files.chain, files.key, password=word.encode)
        except ssl.SSLError:
            continue
    return context.load_cert_chain(files.chain, files.key, password=last.encode)


def _context(settings: TlsSettings) -> gevent.ssl.SSLContext:
    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.minimum]
    context.maximum_version = VERSIONS[settings.maximum]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols([ALPN])
    if settings.ciphers is not None:
        context.set_ciphers(settings.ciphers)
    if settings.curve is not None:
        context.set_ecdh_curve(settings.curve)
    if not settings.tickets:
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0  # or TLS 1.3 would hand out ones that this process alone can read
    if settings.client != "off":
        # Optional for OpenSSL in both cases: who shows none is told so in SMTP's words, as nginx does.
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(settings.client_ca)
        if settings.client_crl is not None:
            context.load_verify_locations(settings.client_crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def certificate_names(chain: bytes) -> list[str]:
    """The DNS names of the first certificate of a PEM chain, in lower case; its common name where it has none."""
    certificate = x509.load_pem_x509_certificates(chain)[0]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names: Sequence[str] = extension.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [str(attribute.value) for attribute in common]
    return [name.lower() for name in names]


def describe(der: bytes | None) -> ClientCertificate:
    """A certificate that OpenSSL has verified, None if the client showed none, in nginx's words (auth_http.md
    section 3): one that it does not accept ends the handshake.
    """
    if der is None:
        return ClientCertificate("NONE")
    certificate = x509.load_der_x509_certificate(der)
    return ClientCertificate(
        verify="SUCCESS",
        subject=certificate.subject.rfc4514_string(OPENSSL_NAMES),
        issuer=certificate.issuer.rfc4514_string(OPENSSL_NAMES),
        serial=_serial(certificate.serial_number),
        fingerprint=certificate.fingerprint(hashes.SHA1()).hex(),  # noqa: S303 - nginx's, a name and no proof
        pem=certificate.public_bytes(serialization.Encoding.PEM),
    )


def _serial(number: int) -> str:
    """As OpenSSL prints a serial number: whole octets, upper case."""
    text = f"{number:X}"
    return text if len(text) % 2 == 0 else f"0{text}"


def _look(files: Sequence[Path]) -> Look:
    """Times, sizes and inodes; None for a file that is away for a moment."""
    looks: list[tuple[int, int, int] | None] = []
    for path in files:
        try:
            found = os.stat(path)
        except OSError:
            looks.append(None)
        else:
            looks.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(looks)
