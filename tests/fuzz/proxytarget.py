"""The target of the PROXY protocol's header."""

from __future__ import annotations

import ipaddress

from smtpgate.smtp.proxyheader import MAX_V1, MAX_V2, ProxyHeaderError, parse


def proxy_header(data: bytes) -> None:
    """A header, an error, or how many octets it needs: always more than there are. What was said of the beginning
    holds whatever follows, so that the octets behind the header are the client's, wherever the stream was cut.
    """
    said: object = None
    for length in range(len(data) + 1):
        found = _parsed(data[:length])
        if said is not None:
            assert found == said, length
            continue
        match found:
            case int():
                assert length < found <= max(MAX_V1, MAX_V2)
                continue
            case str():
                assert found.isascii()
            case (header, end):
                assert end == length
                for address in (header.source, header.destination):
                    assert address is None or (ipaddress.ip_address(address[0]) and 0 <= address[1] <= 0xFFFF)
        said = found


def _parsed(data: bytes) -> object:
    try:
        return parse(data)
    except ProxyHeaderError as error:
        return str(error)
