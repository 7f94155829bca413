from __future__ import annotations

import pytest

from authsvc.answer.contract import AuthRequest
from authsvc.answer.envelope import EnvelopeError, envelope_facts
from smtpgate.policy.model import Facts


def request(mail: bytes, rcpt: bytes) -> AuthRequest:
    return AuthRequest("none", "192.0.2.7", helo="client.example", mail_line=mail, rcpt_line=rcpt)


@pytest.mark.parametrize(
    ("mail", "rcpt", "sender", "recipient"),
    [
        (
            b"MAIL FROM:<a@Example.COM>",
            b"RCPT TO:<b@x.example>",
            ("a@Example.COM", "example.com"),
            ("b@x.example", "x.example"),
        ),
        (
            b"mail   From:<a@b.example>  SIZE=1   BODY=8BITMIME",
            b"rcpt to:<Postmaster>",
            ("a@b.example", "b.example"),
            ("Postmaster", ""),
        ),
        (b"MAIL FROM:<>", b'RCPT TO:<"a>b"@c.example>', ("", ""), ('"a>b"@c.example', "c.example")),
        (
            "MAIL FROM:<ü@b.example> SMTPUTF8".encode(),
            "RCPT TO:<ö@c.example>".encode(),
            ("ü@b.example", "b.example"),
            ("ö@c.example", "c.example"),
        ),
    ],
)
def test_facts(mail: bytes, rcpt: bytes, sender: tuple[str, str], recipient: tuple[str, str]) -> None:
    assert envelope_facts(request(mail, rcpt), 1000.0) == Facts(
        client="192.0.2.7",
        time=1000.0,
        protocol="smtp",
        tls=False,
        helo="client.example",
        method="none",
        sender=sender[0],
        sender_domain=sender[1],
        rcpt=recipient[0],
        rcpt_domain=recipient[1],
    )


@pytest.mark.parametrize(
    ("mail", "rcpt", "code", "text"),
    [
        (b"", b"", "500 5.5.1", "Invalid command"),
        (b"MAIL FROM:<a", b"RCPT TO:<b@c>", "501 5.1.7", "Bad sender address syntax"),
        (b"MAIL FROM:<a@b>", b"RCPT TO:<b@>", "501 5.1.3", "Bad recipient address syntax"),
        (b"MAIL FROM:<a@b>", b"RCPT TO:<b@c>\x00", "500 5.5.1", "Invalid command"),
        (b"MAIL FROM:<a@b>", b"RCPT TO:<b@c>\r\nDATA", "500 5.5.1", "Invalid command"),
        (b"MAIL FROM:<a@b>", b"NOOP", "500 5.5.1", "Invalid command"),
        (b"RCPT TO:<b@c>", b"MAIL FROM:<a@b>", "500 5.5.1", "Invalid command"),
        (b"MAIL FROM:<a@b>", b'RCPT TO:<"a> X=<"@c', "501 5.1.3", "Bad recipient address syntax"),
    ],
)
def test_what_the_proxy_would_refuse_is_refused(mail: bytes, rcpt: bytes, code: str, text: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        envelope_facts(request(mail, rcpt), 1000.0)
    assert (caught.value.code, caught.value.text) == (code, text)
