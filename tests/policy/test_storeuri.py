"""Which URIs name a store, by table; that nothing of one is ever quoted; and that what fits can be opened."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from fakes import ManualClock
from hypothesis import given
from hypothesis import strategies as st

from smtpgate.drivers.store import open_store
from smtpgate.policy.storeuri import SCHEMES, StoreUri, parse_store_uri
from smtpgate.units import InvalidValue

GOOD = [
    ("memory://", StoreUri("memory", "memory://", "", "", "memory://")),
    (
        "redis://127.0.0.1:6379/0",
        StoreUri("redis", "redis://127.0.0.1:6379/0", "", "", "redis://127.0.0.1:6379/0"),
    ),
    (
        "valkeys://:s%40crt@redis.example.com",
        StoreUri("rediss", "rediss://:s%40crt@redis.example.com", "", "s%40crt", "valkeys://redis.example.com"),
    ),
    (
        "redis://ann:s:c^r!t@[2001:db8::1]:6380/15?client_name=gate&socket_keepalive=true",
        StoreUri(
            "redis",
            "redis://ann:s:c^r!t@[2001:db8::1]:6380/15?client_name=gate&socket_keepalive=true",
            "ann",
            "s:c^r!t",
            "redis://[2001:db8::1]:6380/15",
        ),
    ),
    (
        "valkey+unix:///run/valkey.sock?db=2",
        StoreUri("redis+unix", "redis+unix:///run/valkey.sock?db=2", "", "", "valkey+unix:///run/valkey.sock"),
    ),
    (
        "redis+sentinel://ann:x@a:26379,[::1]:26380/my.master-1",
        StoreUri(
            "redis+sentinel",
            "redis+sentinel://ann:x@a:26379,[::1]:26380/my.master-1",
            "ann",
            "x",
            "redis+sentinel://a:26379,[::1]:26380/my.master-1",
        ),
    ),
    (
        "valkey+cluster://a:7000,b:7001/",
        StoreUri("redis+cluster", "redis+cluster://a:7000,b:7001/", "", "", "valkey+cluster://a:7000,b:7001/"),
    ),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_what_fits(text: str, expected: StoreUri) -> None:
    parsed = parse_store_uri(text)
    assert parsed == expected
    assert (parsed.user, parsed.password) == (expected.user, expected.password)
    assert "crt" not in repr(parsed)
    open_store(text, clock=ManualClock())


def test_every_scheme_is_known() -> None:
    assert set(SCHEMES.values()) == {
        "memory",
        "redis",
        "rediss",
        "redis+unix",
        "redis+sentinel",
        "redis+cluster",
    }
    assert len(SCHEMES) == 11


NO_STORE = "is not the URI of a store; expected e.g. memory://, redis://127.0.0.1:6379/0"
TCP = "expected redis://host:port/db"
SENTINEL = "expected redis+sentinel://host:port,host:port/service"
CLUSTER = "expected redis+cluster://host:port,host:port"
UNIX = "expected redis+unix:///path?db=0"
RESERVED = ", with %XX for @ / ? # [ ], spaces and all but ASCII in a user or password"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, NO_STORE),
        (6379, NO_STORE),
        ("", NO_STORE),
        ("redis", NO_STORE),
        ("127.0.0.1:6379", NO_STORE),
        ("REDIS://127.0.0.1", NO_STORE),
        ("async+redis://127.0.0.1", NO_STORE),
        ("rediss+cluster://127.0.0.1:1", NO_STORE),
        ("memcached://:hunter2@127.0.0.1", NO_STORE),
        ("memory://x", "has something after memory://; expected memory://"),
        ("memory://:hunter2@", "has something after memory://; expected memory://"),
        # the characters of a URI
        ("redis://:hunter2 @127.0.0.1", f"has a character that cannot stand there; {TCP}{RESERVED}"),
        ("redis://:hunter2\u2100@127.0.0.1", f"has a character that cannot stand there; {TCP}{RESERVED}"),
        ("redis://:hunter2[@127.0.0.1", f"has a character that cannot stand there; {TCP}{RESERVED}"),
        ("redis://:hunter2@x@127.0.0.1", f"has a character that cannot stand there; {TCP}{RESERVED}"),
        ("redis://127.0.0.1/0#x", f"has a character that cannot stand there; {TCP}{RESERVED}"),
        # servers
        ("redis://", f"names a server that is not an address with a port; {TCP}"),
        ("redis:///0", f"names a server that is not an address with a port; {TCP}"),
        ("redis://:hunter2/x@127.0.0.1:6379", f"names a server that is not an address with a port; {TCP}"),
        ("redis://127.0.0.1:notaport/0", f"names a server that has no valid port; {TCP}"),
        ("redis://127.0.0.1:/0", f"names a server that has no valid port; {TCP}"),
        ("redis://127.0.0.1:0/0", f"names a server that has no valid port; {TCP}"),
        ("redis://127.0.0.1:99999/0", f"names a server that has no valid port; {TCP}"),
        ("redis://a:1,b:2/0", f"names a server that has an IPv6 address without brackets; {TCP}"),
        ("redis://::1/0", f"names a server that has an IPv6 address without brackets; {TCP}"),
        ("redis://[::1/0", f"names a server that has an IPv6 address without brackets; {TCP}"),
        ("redis://192.0.2.256/0", f"names a server that has no valid host before its port; {TCP}"),
        ("redis+cluster://:hunter2@h", f"names a server that is not an address with a port; {CLUSTER}"),
        ("redis+cluster://h:1,:2", f"names a server that is not an address with a port; {CLUSTER}"),
        ("redis+cluster://h:1,", f"names a server that is not an address with a port; {CLUSTER}"),
        ("redis+cluster://:hunter2@h:99999", f"names a server that has no valid port; {CLUSTER}"),
        ("redis+sentinel://127.0.0.1:²/m", f"has a character that cannot stand there; {SENTINEL}{RESERVED}"),
        ("redis+unix://localhost/run/x", f"names a server, and takes none; {UNIX}"),
        # paths
        ("redis://127.0.0.1/x", f"has a path that is no database; {TCP}"),
        ("redis://127.0.0.1/01", f"has a path that is no database; {TCP}"),
        ("redis://127.0.0.1/1/2", f"has a path that is no database; {TCP}"),
        ("redis+cluster://h:1/0", f"has a path that is no database; {CLUSTER}"),
        ("redis+sentinel://h:1", f"names no service; {SENTINEL}"),
        ("redis+sentinel://h:1/", f"names no service; {SENTINEL}"),
        ("redis+sentinel://h:1/a/b", f"names no service; {SENTINEL}"),
        ("redis+unix://", f"has no path of a unix socket; {UNIX}"),
        ("redis+unix:///" + "x" * 107, f"has no path of a unix socket; {UNIX}"),
        # options
        (
            "redis://127.0.0.1/0?foo=bar",
            "has an unknown option; expected one of db, client_name, socket_keepalive",
        ),
        # It would undo our timeouts, and the next would charge twice.
        (
            "redis://127.0.0.1/0?socket_timeout=30",
            "has an unknown option; expected one of db, client_name, socket_keepalive",
        ),
        (
            "redis+unix:///run/x?retry_on_timeout=true",
            "has an unknown option; expected one of db, client_name",
        ),
        ("redis://127.0.0.1/0?", "has an unknown option; expected one of db, client_name, socket_keepalive"),
        ("redis://:hun?ter2@127.0.0.1", f"names a server that is not an address with a port; {TCP}"),
        ("redis+cluster://h:1?db=0", "has an unknown option; expected no options after it"),
        ("redis+sentinel://h:1/m?db=0", "has an unknown option; expected no options after it"),
        ("redis://127.0.0.1/0?db=1", "says db twice; expected it once"),
        ("redis://127.0.0.1/?db=1&db=2", "says db twice; expected it once"),
        ("redis://127.0.0.1/?db=x", "has no usable value of db; expected db=0"),
        ("redis://127.0.0.1/?client_name=", "has no usable value of client_name; expected client_name=…"),
        ("redis://h?socket_keepalive=no", "has no usable value of socket_keepalive; expected socket_keepalive=true"),
        ("rediss://h?ssl_cert_reqs=x", "has no usable value of ssl_cert_reqs; expected ssl_cert_reqs=required"),
    ],
)
def test_what_does_not_fit(text: object, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_store_uri(text)
    assert str(caught.value) == message
    assert (caught.value.__cause__, "hunter2" in repr(caught.value)) == (None, False)


@given(st.sampled_from(sorted(SCHEMES)), st.text("ah1:@/?#[],%&=.-+ é", max_size=24))
def test_what_fits_is_read_alike_by_the_libraries_parser(scheme: str, rest: str) -> None:
    """One text with two readings is how a password ends up in a host name."""
    try:
        parsed = parse_store_uri(f"{scheme}://{rest}")
    except InvalidValue:
        return
    parts = urlsplit(parsed.text)
    assert (parts.username or "", parts.password or "") == (parsed.user, parsed.password)
    assert (parts.scheme, parts.fragment) == (parsed.scheme, "")
    assert parsed.public == f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
