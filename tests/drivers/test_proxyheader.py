"""The PROXY header's octets, against the specification's layout, and against HAProxy as the receiver."""

import socket

import pytest
from peers.process import HOST, free_port

from smtpgate.drivers import proxyheader
from smtpgate.session.streams import ClientCertificate, Peer, TlsInfo

V4 = Peer("192.0.2.7", 40000, "198.51.100.1", 587)
V6 = Peer("2001:db8::7", 40000, "2001:db8::1", 587)
MIXED = Peer("192.0.2.7", 40000, "2001:db8::1", 587)
UNIX = Peer("unix:", 0, "unix:", 0)
OWN = Peer("10.0.0.1", 25, "10.0.0.5", 50000)
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


@pytest.mark.parametrize(
    ("peer", "header"),
    [
        (V4, b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 587\r\n"),
        (V6, b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 587\r\n"),
        (MIXED, b"PROXY TCP6 ::ffff:c000:207 2001:db8::1 40000 587\r\n"),
        (UNIX, b"PROXY TCP4 10.0.0.5 10.0.0.1 50000 25\r\n"),
        (None, b"PROXY TCP4 10.0.0.5 10.0.0.1 50000 25\r\n"),
    ],
)
def test_version_1(peer, header):
    assert proxyheader.of("v1", peer, None, OWN) == header
    assert len(header) <= 107  # section 2.1


@pytest.mark.parametrize(
    ("peer", "rest"),
    [
        (V4, "21 11 000c c0000207 c6336401 9c40 024b"),
        (
            V6,
            "21 21 0024 20010db8000000000000000000000007 20010db8000000000000000000000001 9c40 024b",
        ),
        (
            MIXED,
            "21 21 0024 00000000000000000000ffffc0000207 20010db8000000000000000000000001 9c40 024b",
        ),
        (UNIX, "20 00 0000"),
        (None, "20 00 0000"),
    ],
)
def test_version_2(peer, rest):
    assert proxyheader.of("v2", peer, None, OWN) == SIGNATURE + bytes.fromhex(rest)


def test_a_connection_without_addresses_at_either_side():
    assert proxyheader.of("v1", UNIX, None, UNIX) == b"PROXY UNKNOWN\r\n"


def tlvs(data):
    found = []
    while data:
        length = int.from_bytes(data[1:3], "big")
        found.append((data[0], data[3 : 3 + length]))
        data = data[3 + length :]
    return found


def told(tls):
    """(authority, client bits, verify, sub-fields) of a version 2 header."""
    header = proxyheader.of("v2", V4, tls, OWN)
    assert int.from_bytes(header[14:16], "big") == len(header) - 16
    fields = dict(tlvs(header[16 + 12 :]))
    ssl = fields[0x20]
    return fields.get(0x02), ssl[0], int.from_bytes(ssl[1:5], "big"), tlvs(ssl[5:])


def test_the_clients_tls():
    tls = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", sni="mail.example.com")
    version, cipher = (0x21, b"TLSv1.3"), (0x23, b"TLS_AES_256_GCM_SHA384")
    assert told(tls) == (b"mail.example.com", 1, 1, [version, cipher])


@pytest.mark.parametrize(
    ("verify", "subject", "client", "status", "name"),
    [
        ("SUCCESS", "CN=ann,O=Example", 7, 0, b"ann"),
        ("SUCCESS", "O=Example,CN=ann\\, the first+UID=1", 7, 0, b"ann, the first"),
        ("SUCCESS", "CN=Zo\\C3\\AB", 7, 0, "Zo\u00eb".encode()),
        ("FAILED:certificate has expired", "CN=ann", 7, 1, b"ann"),
        ("SUCCESS", "O=Example", 7, 0, None),
        ("NONE", "", 1, 1, None),
    ],
)
def test_the_clients_certificate(verify, subject, client, status, name):
    tls = TlsInfo("TLSv1.2", "ECDHE", certificate=ClientCertificate(verify, subject=subject))
    cn = [] if name is None else [(0x22, name)]
    assert told(tls) == (None, client, status, [(0x21, b"TLSv1.2"), *cn, (0x23, b"ECDHE")])


def test_a_long_name_is_cut_so_that_the_header_fits_every_receiver():
    tls = TlsInfo("TLSv1.2", "E" * 900, sni="s" * 900)
    authority, _, _, fields = told(tls)
    assert (len(authority), len(dict(fields)[0x23])) == (255, 255)


@pytest.mark.peer("haproxy")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_haproxy_takes_the_header_and_believes_it(haproxy, version):
    port = free_port()
    with socket.create_server((HOST, 0)) as behind:
        server = f"server s {HOST}:{behind.getsockname()[1]} send-proxy-v2"
        conf = f"listen l\n  bind {HOST}:{port} accept-proxy\n  {server}\n"
        haproxy(conf, port)
        with socket.create_connection((HOST, port)) as client:
            client.sendall(proxyheader.of(version, V4, TlsInfo("TLSv1.3", "X"), OWN) + b"EHLO")
            told = b""
            while not told.endswith(b"EHLO"):  # the fixture's own look at the port has a header only
                inner, _ = behind.accept()
                with inner:
                    inner.settimeout(5)
                    told = b""
                    while not told.endswith(b"EHLO") and (data := inner.recv(4096)):
                        told += data
    assert told == SIGNATURE + bytes.fromhex("21 11 000c c0000207 c6336401 9c40 024b") + b"EHLO"
