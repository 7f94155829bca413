"""TLS without a socket: OpenSSL between what a session says and hears, and the records on the wire.

An SSLSocket asks the kernel for the head of each record, then for its body, and waits by itself, each piece for the
whole timeout. With memory on both sides one read takes whatever has arrived, one write takes all that is to be said,
and waiting is the stream's, as in clear.

Owns the two buffers and the words for what goes wrong. Refuses to know sockets, and who may speak when.
"""

from __future__ import annotations

import ssl
from typing import Final

# Octets of answers that a peer makes OpenSSL give on its own account (KeyUpdate, RFC 8446 section 4.6.3) and does not
# take: more than any that is alive leaves.
MAX_UNSENT: Final = 1 << 16


class TlsFault(Exception):
    """The peer has broken TLS, or its certificate is not believed. `str()` is for the log."""


class TlsLayer:
    """One connection's, from its first record on. session: of an earlier one to the same server, to be taken up.

    more: there may be something to read already, so that there is no need to wait for records.

    Raises ValueError: a server_hostname that is none, or none where the context wants to believe one.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        if context.check_hostname and not server_side and not server_hostname:
            # An SSLSocket looks after this by itself; OpenSSL would believe any name.
            raise ValueError("a certificate is believed for a name, and the peer has none")
        self.context = context
        self.more = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject = context.wrap_bio(
            self._incoming, self._outgoing, server_side, server_hostname, session
        )
        self._fault = ""  # what was wrong stays wrong, and OpenSSL says so only once
        self._ended = False

    # --- records ---

    def feed(self, records: bytes) -> None:
        """What has arrived; b"" is the end of the connection."""
        if records:
            self._incoming.write(records)
        else:
            self._incoming.write_eof()
        self.more = True

    @property
    def unsent(self) -> int:
        """Octets that wait to be sent."""
        return self._outgoing.pending

    def records(self) -> bytes:
        """Take what is to be sent."""
        return self._outgoing.read()

    # --- the handshake ---

    def shake(self) -> bool:
        """Go as far as the records that have arrived allow: whether it is done. Raises TlsFault; the alert for it is
        unsent as yet.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ValueError) as error:
            raise self._broken(_words(error)) from None
        return True

    @property
    def is_urgent(self) -> bool:
        """Whether the peer waits for what is left to be sent when the handshake is done. What a server of TLS 1.3 has
        left are tickets: they go along with its first words.
        """
        return not (self._tls.server_side and self._tls.version() == "TLSv1.3")

    @property
    def protocol(self) -> str:
        return self._tls.version() or ""

    @property
    def cipher(self) -> str:
        cipher = self._tls.cipher()
        return cipher[0] if cipher else ""

    def certificate(self) -> bytes | None:
        """What the peer has shown and OpenSSL has verified, in DER."""
        return self._tls.getpeercert(binary_form=True)

    def session(self) -> ssl.SSLSession | None:
        """To be taken up by a later connection. TLS 1.3 sends tickets behind the handshake."""
        return self._tls.session

    # --- octets in clear ---

    def read(self, limit: int) -> bytes | None:
        """Of what has arrived, up to `limit` octets; b"" at the end, and None where that is not a whole record.

        An end without close_notify is an end: a message that was cut has no final dot. Raises TlsFault.
        """
        if self._fault:
            raise TlsFault(self._fault)
        pieces: list[bytes] = []
        left = limit
        while left > 0 and not self._ended:
            # A record at a time, as OpenSSL hands them out.
            piece = self._read(left)
            if piece is None:
                break
            self._ended = not piece
            pieces.append(piece)
            left -= len(piece)
            if not self._incoming.pending and left > 0:
                break  # to be told so costs an exception
        self.more = left == 0 or self._incoming.eof or self._ended or bool(self._fault)
        if self._outgoing.pending > MAX_UNSENT:
            raise self._broken("peer wants answers and takes none")
        if pieces:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._fault:
            raise TlsFault(self._fault)
        return b"" if self._ended else None

    def _read(self, limit: int) -> bytes | None:
        try:
            return self._tls.read(limit)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLEOFError:
            return b""
        except ssl.SSLError as error:
            self._broken(_words(error))
            return None

    def write(self, data: bytes) -> bytes:
        """The records that say `data`, with what else is unsent. Raises TlsFault."""
        if self._fault:
            raise TlsFault(self._fault)
        if data:
            try:
                self._tls.write(data)  # all of it: memory is never full
            except ssl.SSLError as error:
                raise self._broken(_words(error)) from None
        return self._outgoing.read()

    def end(self) -> bytes:
        """Records with close_notify, so that the peer can tell an end from a cut. Its own is not waited for."""
        if not self._fault:
            try:
                self._tls.unwrap()
            except (OSError, ValueError):  # that its own has not come is one of them
                pass
        return self._outgoing.read()

    def _broken(self, words: str) -> TlsFault:
        self._fault = words
        return TlsFault(words)


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLEOFError):
        return "peer closed the connection"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not believed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        # Its errno is OpenSSL's, not the system's.
        return error.reason or error.strerror or type(error).__name__
    return str(error) or type(error).__name__
