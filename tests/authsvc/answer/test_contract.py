from __future__ import annotations

import pytest

from authsvc.answer import contract
from authsvc.answer.contract import (
    AuthRequest,
    Granted,
    Refused,
    RequestError,
    Wait,
    is_user_name,
    read_request,
    write_answer,
)

NGINX_PLAIN = {
    "Host": "127.0.0.1",
    "Auth-Method": "plain",
    "Auth-User": "test",
    "Auth-Pass": "1234",
    "Auth-Protocol": "smtp",
    "Auth-Login-Attempt": "1",
    "Client-IP": "192.0.2.7",
    "Client-Host": "[UNAVAILABLE]",
}


def wire(octets: bytes) -> str:
    """Octets as a WSGI server hands them over."""
    return octets.decode("latin-1")


def test_plain_as_nginx_sends_it() -> None:
    assert read_request(NGINX_PLAIN) == AuthRequest(
        method="plain",
        client="192.0.2.7",
        user=b"test",
        password=b"1234",
        client_host="[UNAVAILABLE]",
    )


def test_our_own_proxy_says_so() -> None:
    assert read_request(NGINX_PLAIN | {"Auth-Gate": "smtpgate"}).gate
    for text in ("", "Smtpgate", "smtpgate,smtpgate", "on"):
        assert not read_request(NGINX_PLAIN | {"Auth-Gate": text}).gate


def test_every_header() -> None:
    headers = NGINX_PLAIN | {
        "Auth-Method": "cram-md5",
        "Auth-Salt": "<1.2@host>",
        "Auth-Login-Attempt": "12",
        "Auth-SMTP-Helo": "client.example",
        "Auth-SMTP-From": wire("MAIL FROM:<ü@b>".encode()),
        "Auth-SMTP-To": "RCPT TO:<c@d>",
        "Auth-SSL": "on",
        "Auth-SSL-Verify": "SUCCESS",
        "Auth-SSL-Subject": wire(b"CN=\xc3\xbc"),
    }
    assert read_request(headers) == AuthRequest(
        method="cram-md5",
        client="192.0.2.7",
        user=b"test",
        password=b"1234",
        salt=b"<1.2@host>",
        attempt=12,
        client_host="[UNAVAILABLE]",
        helo="client.example",
        mail_line="MAIL FROM:<ü@b>".encode(),
        rcpt_line=b"RCPT TO:<c@d>",
        tls=True,
        verify="SUCCESS",
        subject=b"CN=\xc3\xbc",
    )


@pytest.mark.parametrize(
    ("sent", "octets"),
    [
        (b"us%20er%25+\xc3\xa9\x7f=", b"us er%+\xc3\xa9\x7f="),
        (b"a+b", b"a+b"),
        (b"%00%0D%0A", b"\x00\r\n"),
        (b"100%", b"100%"),
        (b"%zz", b"%zz"),
        (b"\xfc", b"\xfc"),
        (b"", b""),
    ],
)
def test_user_and_password_are_octets(sent: bytes, octets: bytes) -> None:
    asked = read_request(NGINX_PLAIN | {"Auth-User": wire(sent), "Auth-Pass": wire(sent)})
    assert (asked.user, asked.password) == (octets, octets)


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("::1", "::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("unix:", "unix:"),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_client_addresses(client: str, expected: str) -> None:
    assert read_request(NGINX_PLAIN | {"Client-IP": client}).client == expected


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"Auth-Method": ""},
            "no Auth-Method; expected plain, apop, cram-md5, external, xoauth2, oauthbearer or none",
        ),
        ({"Auth-Salt": "x" * 513}, "Auth-Salt has 513 octets; expected at most 512"),
        *(
            (
                {"Client-IP": text},
                "Client-IP is not an address; expected e.g. 192.0.2.1, 2001:db8::1 or unix:",
            )
            for text in ("", "localhost", "192.0.2.1:25", "[::1]", "fe80::1%x|admin", "192.0.2.01")
        ),
        *(
            ({"Auth-Login-Attempt": text}, "Auth-Login-Attempt is not a number; expected decimal digits")
            for text in ("", "-1", "1.5", "+1", "1_0", wire("٣".encode()), "9" * 10)
        ),
    ],
)
def test_what_is_not_a_request(changed: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_request(NGINX_PLAIN | changed)
    assert str(caught.value) == message


def test_a_password_is_not_shown() -> None:
    assert "1234" not in repr(read_request(NGINX_PLAIN))


@pytest.mark.parametrize(
    ("user", "login"),
    [
        (b"test", "test"),
        (b"a b+c%d{e}|f", "a b+c%d{e}|f"),
        ("jürgen@example.com".encode(), "jürgen@example.com"),
        (b"x" * 320, "x" * 320),
        (b"", None),
        (b"x" * 321, None),
        ("ü".encode() * 161, None),
        ("jürgen".encode("latin-1"), None),
        (b"te\x00st", None),
        (b"te\r\nst", None),
        (b"te\x7fst", None),
        (b" test", None),
        ("te\u202est".encode(), None),
        ("te\u00a0st".encode(), None),
        (b"\xed\xa0\x80", None),
    ],
)
def test_which_octets_name_a_user(user: bytes, login: str | None) -> None:
    assert AuthRequest("plain", "192.0.2.7", user=user).login == login


@pytest.mark.parametrize(
    ("user", "text"),
    [
        (b"", "<>"),
        (b"j\xfcrgen", "j\\xfcrgen"),
        (b"x" * 10_000, "x" * 320),
        (b"\xff" * 10_000, "\\xff" * 80),
    ],
)
def test_any_octets_have_a_text_for_limits_and_log(user: bytes, text: str) -> None:
    assert AuthRequest("plain", "192.0.2.7", user=user).login_text == text


# --- answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "headers"),
    [
        (
            Granted("test", ("127.0.0.1", 10025), "demo", "gold"),
            [
                ("Auth-Status", "OK"),
                ("Auth-Server", "127.0.0.1"),
                ("Auth-Port", "10025"),
                ("Auth-User", "test"),
                ("Auth-Pool", "demo"),
                ("Auth-Plan", "gold"),
            ],
        ),
        (
            Granted(None, ("2001:DB8::0:1", 25), "*"),
            [("Auth-Status", "OK"), ("Auth-Server", "2001:db8::1"), ("Auth-Port", "25"), ("Auth-Pool", "*")],
        ),
        (
            Granted("test", ("192.0.2.1", 110), password="ü %+="),
            [
                ("Auth-Status", "OK"),
                ("Auth-Server", "192.0.2.1"),
                ("Auth-Port", "110"),
                ("Auth-User", "test"),
                ("Auth-Pass", "Ã¼ %+="),
            ],
        ),
        (
            Granted("test", pool="demo", cache=30),
            [("Auth-Status", "OK"), ("Auth-User", "test"), ("Auth-Pool", "demo"), ("Auth-Cache", "30")],
        ),
        (
            Granted("test", pool="demo", cache=86400),
            [("Auth-Status", "OK"), ("Auth-User", "test"), ("Auth-Pool", "demo"), ("Auth-Cache", "3600")],
        ),
        (Wait(1), [("Auth-Status", "WAIT"), ("Auth-Wait", "1")]),
        (Wait(86400), [("Auth-Status", "WAIT"), ("Auth-Wait", "240")]),
        (
            Granted("ü{}%+"),
            [("Auth-Status", "OK"), ("Auth-User", "Ã¼{}%+")],
        ),
        (
            Refused("454 4.7.0", "too many failed logins", 3),
            [("Auth-Status", "too many failed logins"), ("Auth-Error-Code", "454 4.7.0"), ("Auth-Wait", "3")],
        ),
        (
            Refused("535 5.7.8", "no", 0),
            [("Auth-Status", "no"), ("Auth-Error-Code", "535 5.7.8")],
        ),
        (
            Refused("535 5.7.8", "no", 86400),
            [("Auth-Status", "no"), ("Auth-Error-Code", "535 5.7.8"), ("Auth-Wait", "240")],
        ),
    ],
)
def test_headers_of_an_answer(answer: contract.Answer, headers: list[tuple[str, str]]) -> None:
    assert write_answer(answer) == headers


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("OK", "Refused"),
        ("WAIT", "Refused"),
        ("", "Refused"),
        ("  ", "Refused"),
        ("a\r\nAuth-Status: OK", "a??Auth-Status: OK"),
        ("zu schnell für uns", "zu schnell f?r uns"),
        ("\tOK", "?OK"),
        ("x" * 1000, "x" * 200),
    ],
)
def test_a_refusal_is_always_a_failure_to_nginx(text: str, status: str) -> None:
    assert write_answer(Refused("550 5.7.1", text))[0] == ("Auth-Status", status)


def test_the_longest_answers_fit_nginx_buffer() -> None:
    longest = "a" * contract.MAX_NAME
    address = "2001:db8:1111:2222:3333:4444:5555:6666"
    answers = [
        (Granted("x" * contract.MAX_USER, (address, 65535), longest, longest, "x" * contract.MAX_PASS), 765),
        (Granted("x" * contract.MAX_USER, (address, 65535), longest, longest, cache=3600), 643),
        (Refused("550 5.7.100", "x" * 1000, 10**9), 266),
    ]
    for answer, expected in answers:
        octets = sum(len(f"{name}: {value}\r\n".encode("latin-1")) for name, value in write_answer(answer))
        assert octets <= expected
        assert octets + contract.SERVER_OVERHEAD <= contract.MAX_BLOCK


@pytest.mark.parametrize("code", ["535", "999 zz", "250 2.0.0", "535 5.7.8\r\n", "535-5.7.8", "٥35 5.7.8"])
def test_a_refusal_has_a_refusals_code(code: str) -> None:
    with pytest.raises(ValueError, match="is not a reply code"):
        Refused(code, "text")


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "a\r\nb"},
        {"user": ""},
        {"user": "x" * 321},
        {"pool": "a b"},
        {"pool": ""},
        {"plan": "x" * 65},
        {"plan": "a\n"},
        {"plan": "ü"},
        {"password": ""},
        {"password": "a\r\nb"},
        {"password": "a\x7f"},
        {"password": " a"},
        {"password": "a "},
        {"password": "ü" * 65},
    ],
)
def test_a_grant_holds_nothing_that_could_break_a_header(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"is not a name|cannot be sent"):
        Granted(**fields)


def test_a_grant_with_a_password_is_not_kept() -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        Granted("test", password="secret", cache=1)


@pytest.mark.parametrize("wait", [0, -1])
def test_nginx_is_never_told_to_ask_again_at_once(wait: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Wait(wait)


def test_a_name_is_anything_that_a_header_and_a_log_line_can_carry() -> None:
    assert is_user_name("o'neil+tag@example.com")
    assert not is_user_name("\ud800")


def test_a_password_in_a_grant_is_not_shown() -> None:
    assert "hunter2" not in repr(Granted("test", password="hunter2"))
