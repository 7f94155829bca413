"""auth_http octet by octet: the request that nginx would send, and what each response means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smtpgate.drivers.authwire import (
    MAX_BODY,
    MAX_LIFETIME,
    MAX_WAIT,
    WireError,
    body_length,
    head_end,
    read_answer,
    read_head,
    read_lifetime,
    static_header,
    write_request,
)
from smtpgate.session.ports import AuthAnswer, AuthGranted, AuthQuery, AuthRefused, AuthWait
from smtpgate.session.streams import ClientCertificate, Peer, TlsInfo

PLAIN = AuthQuery(
    method="plain",
    attempt=1,
    peer=Peer("192.0.2.7", 40000, "192.0.2.1", 25),
    client_host="[UNAVAILABLE]",
    user=b"ann@example.com",
    password=b"secret",
)


def sent(query: AuthQuery, *, pass_client_cert: bool = False) -> list[bytes]:
    """The lines between Host and Auth-Gate, which are nginx's."""
    request = write_request("/auth", "auth.example", query, pass_client_cert=pass_client_cert)
    first, host, *lines, gate, blank, end = request.split(b"\r\n")
    assert (first, host) == (b"GET /auth HTTP/1.1", b"Host: auth.example")
    assert (gate, blank, end) == (b"Auth-Gate: smtpgate", b"", b"")
    return lines


# --- the request ---


def test_plain() -> None:
    assert write_request("/auth?x=1", "127.0.0.1", PLAIN, [("X-Key", b"abc")]) == (
        b"GET /auth?x=1 HTTP/1.1\r\n"
        b"Host: 127.0.0.1\r\n"
        b"Auth-Method: plain\r\n"
        b"Auth-User: ann@example.com\r\n"
        b"Auth-Pass: secret\r\n"
        b"Auth-Protocol: smtp\r\n"
        b"Auth-Login-Attempt: 1\r\n"
        b"Client-IP: 192.0.2.7\r\n"
        b"Client-Host: [UNAVAILABLE]\r\n"
        b"Auth-Gate: smtpgate\r\n"
        b"X-Key: abc\r\n"
        b"\r\n"
    )


def test_cram_md5_shows_the_salt_after_the_password() -> None:
    query = replace(PLAIN, method="cram-md5", password=b"0" * 32, salt="<1.2@mail.example.com>", attempt=3)
    assert sent(query)[:6] == [
        b"Auth-Method: cram-md5",
        b"Auth-User: ann@example.com",
        b"Auth-Pass: " + b"0" * 32,
        b"Auth-Salt: <1.2@mail.example.com>",
        b"Auth-Protocol: smtp",
        b"Auth-Login-Attempt: 3",
    ]


def test_none_shows_the_envelope_as_typed() -> None:
    """The example of auth_http.md section 3, with its PROXY header."""
    query = replace(
        PLAIN,
        method="none",
        user=b"",
        password=b"",
        proxied=Peer("192.0.2.7", 1234, "198.51.100.9", 25),
        mail_line=b"mail   From:<a@b>  SIZE=1   BODY=8BITMIME",
        rcpt_line=b"RCPT TO:<b>",
    )
    assert sent(query) == [
        b"Auth-Method: none",
        b"Auth-User: ",
        b"Auth-Pass: ",
        b"Auth-Protocol: smtp",
        b"Auth-Login-Attempt: 1",
        b"Client-IP: 192.0.2.7",
        b"Client-Host: [UNAVAILABLE]",
        b"Proxy-Protocol-Addr: 192.0.2.7",
        b"Proxy-Protocol-Port: 1234",
        b"Proxy-Protocol-Server-Addr: 198.51.100.9",
        b"Proxy-Protocol-Server-Port: 25",
        b"Auth-SMTP-Helo: ",
        b"Auth-SMTP-From: mail   From:<a@b>  SIZE=1   BODY=8BITMIME",
        b"Auth-SMTP-To: RCPT TO:<b>",
    ]


def test_tls_and_a_client_certificate() -> None:
    certificate = ClientCertificate(
        verify="SUCCESS",
        subject=r"O=Acme\, Inc,CN=client one",
        issuer="CN=ca",
        serial="0A1B",
        fingerprint="ab" * 20,
        pem=b"-----BEGIN CERTIFICATE-----\na+/=\n-----END CERTIFICATE-----\n",
    )
    query = replace(PLAIN, tls=TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", certificate=certificate))
    tls = [
        b"Auth-SSL: on",
        b"Auth-SSL-Protocol: TLSv1.3",
        b"Auth-SSL-Cipher: TLS_AES_256_GCM_SHA384",
        b"Auth-SSL-Verify: SUCCESS",
        rb"Auth-SSL-Subject: O=Acme\, Inc,CN=client one",
        b"Auth-SSL-Issuer: CN=ca",
        b"Auth-SSL-Serial: 0A1B",
        b"Auth-SSL-Fingerprint: " + b"ab" * 20,
    ]
    assert sent(query)[7:] == tls
    pem = b"-----BEGIN%20CERTIFICATE-----%0Aa+/=%0A-----END%20CERTIFICATE-----%0A"
    assert sent(query, pass_client_cert=True)[7:] == [*tls, b"Auth-SSL-Cert: " + pem]


@pytest.mark.parametrize(
    ("certificate", "rows"),
    [(None, []), (ClientCertificate("NONE"), [b"Auth-SSL-Verify: NONE"])],
)
def test_tls_rows_without_a_value_are_left_out(certificate: ClientCertificate | None, rows: list[bytes]) -> None:
    query = replace(PLAIN, tls=TlsInfo("TLSv1.2", "", certificate=certificate))
    assert sent(query)[7:] == [b"Auth-SSL: on", b"Auth-SSL-Protocol: TLSv1.2", *rows]


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (b"us er%+\xc3\xa9\x7f=", b"us%20er%25+\xc3\xa9\x7f="),  # auth_http.md section 4, as measured
        (b"a\r\nAuth-User: admin", b"a%0D%0AAuth-User:%20admin"),  # security.md D1
        (b"a\n\tb\r\tc", b"a%0A%09b%0D%09c"),
        (b"a\x00b", b"a%00b"),
        (b"%0D%0A", b"%250D%250A"),
        (b"\xff\xfe", b"\xff\xfe"),
        (bytes(range(0x21)), b"".join(b"%%%02X" % octet for octet in range(0x21))),
    ],
)
def test_credentials_are_escaped_as_nginx_does(typed: bytes, shown: bytes) -> None:
    lines = sent(replace(PLAIN, user=typed, password=typed))
    assert lines[1:3] == [b"Auth-User: " + shown, b"Auth-Pass: " + shown]
    assert len(lines) == 7


def test_no_control_octet_of_the_envelope_reaches_the_service() -> None:
    query = replace(
        PLAIN, method="none", helo="a\r\nX: y", mail_line=b"MAIL FROM:<a%b\x00\t\x7f\xe9>", rcpt_line=b"\r\n\r\nGET /"
    )
    assert sent(query)[7:] == [
        b"Auth-SMTP-Helo: a%0D%0AX: y",
        b"Auth-SMTP-From: MAIL FROM:<a%b%00%09%7F\xe9>",
        b"Auth-SMTP-To: %0D%0A%0D%0AGET /",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mail.client.example", b"mail.client.example"),
        ("[TEMPUNAVAIL]", b"[TEMPUNAVAIL]"),
        ("a\r\nMAIL", b"[UNAVAILABLE]"),  # security.md D5
        ("under_score.example", b"[UNAVAILABLE]"),
        ("a" * 256, b"[UNAVAILABLE]"),
        ("", b"[UNAVAILABLE]"),
        ("[OTHER]", b"[UNAVAILABLE]"),
    ],
)
def test_a_host_name_is_one_or_is_unavailable(name: str, shown: bytes) -> None:
    assert sent(replace(PLAIN, client_host=name))[6] == b"Client-Host: " + shown


def test_static_headers_are_sent_as_written() -> None:
    assert static_header("X-Auth-Key", 'a b\t%20"é') == ("X-Auth-Key", b'a b\t%20"\xe9')


@pytest.mark.parametrize("name", ["", "X Key", "X:Key", "X\r\nKey", "Host", "content-length", "Connection"])
def test_names_of_static_headers_that_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a header's name"):
        static_header(name, "x")


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\0b", "a\x7fb", "\u20ac"])
def test_values_of_static_headers_that_are_refused_are_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="expected printable Latin-1 on one line") as refused:
        static_header("X-Key", value + "hunter2")
    assert "hunter2" not in str(refused.value)


# --- where the header ends ---


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_the_blank_line_is_found_at_every_split(end: bytes) -> None:
    block = b"HTTP/1.1 200 OK\r\nA: b" + end
    data = block + b"body\r\n\r\n"
    for cut in range(len(data) + 1):
        assert head_end(data[:cut]) == (len(block) if cut >= len(block) else None)
        if cut <= len(block):
            assert head_end(data, searched=max(0, cut - 1)) == len(block)


# --- the answer: auth_http.md section 6 ---


def answer(*lines: str, status: str | None = "HTTP/1.1 200 OK") -> AuthAnswer:
    block = "".join(f"{line}\r\n" for line in ([status] if status is not None else []) + list(lines))
    return read_answer(read_head(block.encode("latin-1") + b"\r\n"))


OK = "Auth-Status: OK"
SERVER = "Auth-Server: 192.0.2.10"
PORT = "Auth-Port: 25"
THERE = AuthGranted(server=("192.0.2.10", 25))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # 6.1 names, values, repetition
        ([OK, SERVER, PORT], THERE),
        (["auth-STATUS:OK", "AUTH-SERVER:   192.0.2.10  ", "aUTH-pORT: 25"], THERE),
        ([OK, SERVER, PORT, "X_Foreign.Header (odd): yes", "Set-Cookie: a=b; c", "colonless"], THERE),
        ([OK, SERVER, PORT, "X-Policy: one", "   folded", "\tfolded"], THERE),
        ([OK, "Auth-Server: 198.51.100.1", "Auth-Port: 1", SERVER, PORT], THERE),
        (["Auth-Status: no", OK, SERVER, PORT], AuthRefused("535 5.7.0", "no", 0)),
        ([OK, SERVER, PORT, "Auth-Status: no"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: WAIT", OK, SERVER, PORT, "Auth-Wait: 2"], AuthWait(2)),
        (["Auth-Status: no", "Auth-Status: WAIT", "Auth-Status: really"], AuthRefused("535 5.7.0", "really", 0)),
        # 6.2 Auth-Status
        ([SERVER, PORT], THERE),
        (["Auth-Status:", SERVER, PORT], THERE),
        (["Auth-Status", SERVER, PORT], THERE),
        (["Auth-Status: ok", SERVER, PORT], AuthRefused("535 5.7.0", "ok", 0)),
        (["Auth-Status: wait", SERVER, PORT], AuthRefused("535 5.7.0", "wait", 0)),
        (["Auth-Status:\tOK", SERVER, PORT], AuthRefused("535 5.7.0", "authentication failed", 0)),
        # 6.3 Auth-Wait
        (["Auth-Status: no", "Auth-Wait: 3"], AuthRefused("535 5.7.0", "no", 3)),
        (["Auth-Status: no", "Auth-Wait: 0"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Wait: -1"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Wait: 1.5"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Wait: 1_0"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Wait: \xb2"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Wait:"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Wait: 240"], AuthRefused("535 5.7.0", "no", 240)),
        (["Auth-Status: no", "Auth-Wait: 241"], AuthRefused("535 5.7.0", "no", MAX_WAIT)),
        (["Auth-Status: no", "Auth-Wait: " + "9" * 5000], AuthRefused("535 5.7.0", "no", MAX_WAIT)),
        (["Auth-Status: no", "Auth-Wait: " + "0" * 5000 + "7"], AuthRefused("535 5.7.0", "no", 7)),
        ([OK, SERVER, PORT, "Auth-Wait: 9"], THERE),
        (["Auth-Status: WAIT", "Auth-Wait: 5"], AuthWait(5)),
        (["Auth-Status: WAIT", "Auth-Wait: 0"], AuthWait(1)),
        (["Auth-Status: WAIT"], AuthWait(1)),
        (["Auth-Status: WAIT", "Auth-Wait: 999"], AuthWait(MAX_WAIT)),
        (["Auth-Status: WAIT", "Auth-User: b\xc3\xa9", "Auth-Pass: x%20y"], AuthWait(1, b"b\xc3\xa9", b"x%20y")),
        # 6.4 Auth-Server, Auth-Port
        ([OK, "Auth-Server: ::1", PORT], AuthGranted(server=("::1", 25))),
        ([OK, "Auth-Server: 2001:DB8:0::1", PORT], AuthGranted(server=("2001:db8::1", 25))),
        ([OK, SERVER, "Auth-Port: 1"], AuthGranted(server=("192.0.2.10", 1))),
        ([OK, SERVER, "Auth-Port: 65535"], AuthGranted(server=("192.0.2.10", 65535))),
        # 6.4 Auth-User, Auth-Pass: nothing is unescaped
        ([OK, SERVER, PORT, "Auth-User: ann%20b"], replace(THERE, user="ann%20b")),
        ([OK, SERVER, PORT, "Auth-User: j\xc3\xb6rg", "Auth-Pass: p\xff w"],
         replace(THERE, user="j\xf6rg", password=b"p\xff w")),
        ([OK, SERVER, PORT, "Auth-User:", "Auth-Pass:"], THERE),
        # 6.4 Auth-Error-Code, and security.md D10
        (["Auth-Status: no", "Auth-Error-Code: 550 5.1.1"], AuthRefused("550 5.1.1", "no", 0)),
        (["Auth-Status: no", "Auth-Error-Code: 450"], AuthRefused("450", "no", 0)),
        (["Auth-Status: no", "Auth-Error-Code: 454 4.7.0"], AuthRefused("454 4.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Error-Code: 999 zz"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Error-Code: 250 2.0.0"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Error-Code: 535-5.7.0"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: no", "Auth-Error-Code: 535 5.7.1234"], AuthRefused("535 5.7.0", "no", 0)),
        (["Auth-Status: " + "x" * 400], AuthRefused("535 5.7.0", "x" * 400, 0)),
        (["Auth-Status: " + "x" * 401], AuthRefused("535 5.7.0", "authentication failed", 0)),
        (["Auth-Status: f\xfcr"], AuthRefused("535 5.7.0", "authentication failed", 0)),
        (["Auth-Status: a\x00b"], AuthRefused("535 5.7.0", "authentication failed", 0)),
        # ours: Auth-Pool, Auth-Plan
        ([OK, "Auth-Pool: core"], AuthGranted(pool="core")),
        (["Auth-Pool: core", "Auth-Plan: gold_1.x-y"], AuthGranted(pool="core", plan="gold_1.x-y")),
        ([OK, "Auth-Pool: core", "Auth-Server: mta.internal", PORT], AuthGranted(pool="core")),
        ([OK, "Auth-Pool: *", SERVER, PORT], AuthGranted(own_routes=True)),
        ([OK, "Auth-Pool: " + "p" * 64], AuthGranted(pool="p" * 64)),
        ([OK, "Auth-Pool:", SERVER, PORT, "Auth-Plan:"], THERE),
    ],
)  # fmt: skip
def test_answers(lines: list[str], expected: AuthAnswer) -> None:
    assert answer(*lines) == expected


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([], 0),
        (["Auth-Cache: 30"], 30),
        (["auth-cache:  0030 "], 30),
        (["Auth-Cache: 10", "Auth-Cache: 20"], 20),
        (["Auth-Cache: 3600"], 3600),
        (["Auth-Cache: 3601"], MAX_LIFETIME),
        (["Auth-Cache: " + "9" * 5000], MAX_LIFETIME),
        (["Auth-Cache: -1"], 0),
        (["Auth-Cache: 1.5"], 0),
        (["Auth-Cache: 30s"], 0),
        (["Auth-Cache:"], 0),
    ],
)
def test_how_long_an_answer_may_be_given_again(lines: list[str], seconds: float) -> None:
    block = "".join(f"{line}\r\n" for line in ["HTTP/1.1 200 OK", OK, SERVER, PORT, *lines, ""])
    assert read_lifetime(read_head(block.encode("ascii"))) == seconds


@pytest.mark.parametrize("method", ["xoauth2", "oauthbearer"])
def test_tokens_travel_as_passwords_do(method: str) -> None:
    query = replace(PLAIN, method=method, user=b"", password=b"a.b_c~d+e/f-g==")
    assert sent(query)[:3] == [
        b"Auth-Method: " + method.encode(),
        b"Auth-User: ",
        b"Auth-Pass: a.b_c~d+e/f-g==",
    ]


@pytest.mark.parametrize(
    "status",
    ["HTTP/1.1 500 Oops", "HTTP/1.0 403 Forbidden", "HTTP/1.1 302 Found", "HTTP/2 200", "HTTP/what is this", None],
)
def test_the_status_counts_for_nothing(status: str | None) -> None:
    assert answer(OK, SERVER, PORT, status=status) == THERE
    assert answer("Auth-Status: no", SERVER, PORT, status=status) == AuthRefused("535 5.7.0", "no", 0)


def test_lines_may_end_with_lf_alone() -> None:
    block = b"HTTP/1.1 200 OK\nAuth-Status: OK\nAuth-Server: 192.0.2.10\r\nAuth-Port: 25\n\n"
    assert read_answer(read_head(block)) == THERE


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([OK], "HTTP 200 without Auth-Server and Auth-Port, or Auth-Pool"),
        ([], "HTTP 200 without Auth-Server and Auth-Port, or Auth-Pool"),
        ([OK, SERVER], "HTTP 200 without Auth-Server and Auth-Port, or Auth-Pool"),
        ([OK, PORT], "HTTP 200 without Auth-Server and Auth-Port, or Auth-Pool"),
        (["Location: http://127.0.0.1/"], "HTTP 200 without Auth-Server and Auth-Port, or Auth-Pool"),
        ([OK, "Auth-Server: mta.internal", PORT], "Auth-Server 'mta.internal'; expected an address"),
        ([OK, "Auth-Server: [::1]", PORT], "Auth-Server '[::1]'; expected an address"),
        ([OK, "Auth-Server: unix:/run/x", PORT], "Auth-Server 'unix:/run/x'; expected an address"),
        ([OK, "Auth-Server: fe80::1%eth0", PORT], "Auth-Server 'fe80::1%eth0'; expected an address"),
        ([OK, "Auth-Server: 192.0.2.010", PORT], "Auth-Server '192.0.2.010'; expected an address"),
        ([OK, "Auth-Server: 3221225994", PORT], "Auth-Server '3221225994'; expected an address"),
        ([OK, "Auth-Server: \xff", PORT], r"Auth-Server '\xff'; expected an address"),
        ([OK, SERVER, "Auth-Port: 0"], "Auth-Port '0'; expected 1 to 65535"),
        ([OK, SERVER, "Auth-Port: 65536"], "Auth-Port '65536'; expected 1 to 65535"),
        ([OK, SERVER, "Auth-Port: smtp"], "Auth-Port 'smtp'; expected 1 to 65535"),
        ([OK, SERVER, "Auth-Port: +25"], "Auth-Port '+25'; expected 1 to 65535"),
        ([OK, SERVER, "Auth-Port: " + "2" * 100], "Auth-Port '" + "2" * 64 + "'; expected 1 to 65535"),
        ([OK, SERVER, PORT, "Auth-User: \xf6"], "Auth-User is not UTF-8"),
        ([OK, SERVER, PORT, "Auth-User: a\x00b"], "Auth-User; expected at most 320 printable octets"),
        ([OK, SERVER, PORT, "Auth-User: " + "a" * 321], "Auth-User; expected at most 320 printable octets"),
        ([OK, SERVER, PORT, "Auth-Pool: a b"], "Auth-Pool 'a b'; expected 1 to 64 of A-Z a-z 0-9 . _ -"),
        ([OK, "Auth-Pool: " + "p" * 65], "Auth-Pool '" + "p" * 64 + "'; expected 1 to 64 of A-Z a-z 0-9 . _ -"),
        ([OK, "Auth-Pool: **"], "Auth-Pool '**'; expected 1 to 64 of A-Z a-z 0-9 . _ -"),
        ([OK, SERVER, PORT, "Auth-Plan: *"], "Auth-Plan '*'; expected 1 to 64 of A-Z a-z 0-9 . _ -"),
        # A refusal in doubtful clothes must not become "no status, so OK".
        (["Auth_Status: no", SERVER, PORT], "header name 'Auth_Status'; expected letters and hyphens"),
        (["Auth-Status : no", SERVER, PORT], "header name 'Auth-Status '; expected letters and hyphens"),
        (["AuthStatus: no", SERVER, PORT], "header name 'AuthStatus'; expected letters and hyphens"),
        ([OK, SERVER, PORT, " 5"], "a folded header line; expected Name: value"),
        ([" Auth-Status: no", SERVER, PORT], "a folded header line; expected Name: value"),
        (["X: y\rAuth-Status: no", SERVER, PORT], "a CR without LF in the header"),
        (["Auth-Status: no\r", SERVER, PORT], "a CR without LF in the header"),
    ],
)  # fmt: skip
def test_what_is_no_answer(lines: list[str], reason: str) -> None:
    with pytest.raises(WireError) as refused:
        answer(*lines)
    assert str(refused.value).startswith(reason)


def test_secrets_stay_out_of_the_reason_and_the_repr() -> None:
    with pytest.raises(WireError) as refused:
        answer(OK, "Auth-Pass: hunter2", "Auth-Server: x", PORT)
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(answer(OK, SERVER, PORT, "Auth-Pass: hunter2"))
    assert "secret" not in repr(PLAIN)


# --- whether the connection may be used again ---


@pytest.mark.parametrize(
    ("status", "lines", "length"),
    [
        ("HTTP/1.1 200 OK", ["Content-Length: 0"], 0),
        ("HTTP/1.1 200 OK", ["Content-Length: 12", "Connection: keep-alive"], 12),
        ("HTTP/1.1 204 No Content", [], 0),
        ("HTTP/1.1 304 Not Modified", ["Content-Length: 5"], 0),
        ("HTTP/1.1 200 OK", [f"Content-Length: {MAX_BODY}"], MAX_BODY),
        ("HTTP/1.1 200 OK", [f"Content-Length: {MAX_BODY + 1}"], None),
        ("HTTP/1.1 200 OK", ["Content-Length: " + "9" * 5000], None),
        ("HTTP/1.1 200 OK", ["Content-Length: -1"], None),
        ("HTTP/1.1 200 OK", ["Content-Length: 1", "Content-Length: 1"], None),
        ("HTTP/1.1 200 OK", ["Content-Length: 1", "Transfer-Encoding: chunked"], None),
        ("HTTP/1.1 200 OK", ["Content-Length: 1", "Connection: Close"], None),
        ("HTTP/1.1 200 OK", [], None),
        ("HTTP/1.0 200 OK", ["Content-Length: 0"], None),
        ("HTTP/1.1 100 Continue", [], None),
        ("HTTP/what", ["Content-Length: 0"], None),
    ],
)
def test_body_length(status: str, lines: list[str], length: int | None) -> None:
    block = "".join(f"{line}\r\n" for line in [status, *lines, ""]).encode()
    assert body_length(read_head(block)) == length
