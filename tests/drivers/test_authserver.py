"""Where a server is. How it is asked, and what breaks, is shown through AuthHttp in test_authhttp."""

from __future__ import annotations

import pytest

from smtpgate.drivers.authserver import EXPECTED, Endpoint, parse_url


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://127.0.0.1:18080/auth", Endpoint("127.0.0.1", 18080, "/auth")),
        ("http://auth.example", Endpoint("auth.example", 80, "/")),
        ("https://auth.example/a?b=c%20d", Endpoint("auth.example", 443, "/a?b=c%20d", tls=True)),
        ("http://auth.example?b=c", Endpoint("auth.example", 80, "/?b=c")),
        ("http://[::1]:8080/auth", Endpoint("[::1]", 8080, "/auth")),
        ("unix:/run/auth.sock", Endpoint("localhost", 0, "/", path="/run/auth.sock")),
        ("unix:/run/auth.sock:/auth?x", Endpoint("localhost", 0, "/auth?x", path="/run/auth.sock")),
    ],
)
def test_urls(url: str, endpoint: Endpoint) -> None:
    assert parse_url(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:18080/auth",
        "ftp://auth.example/",
        "http://",
        "http:///auth",
        "http://auth.example:0/",
        "http://auth.example:65536/",
        "http://auth.example:port/",
        "http://[::1/",
        "http://ann:hunter2@auth.example/",
        "http://auth.example/#hunter2",
        "http://auth.example/a b?hunter2",
        "http://auth.example/a\r\nX:hunter2",
        "http://j\xf6rg.example/",
        "unix:run/auth.sock",
        "unix:/run/auth.sock:auth",
    ],
)
def test_urls_that_are_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="^auth_http url .*; " + EXPECTED) as refused:
        parse_url(url)
    assert "hunter2" not in str(refused.value)
