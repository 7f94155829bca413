"""Through the proxy into a real Postfix: every message arrives, once, octet by octet, and Postfix knows from whom."""

from __future__ import annotations

import random
import re
import smtplib
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from peers.fixtures import StartPostfix
from peers.process import HOST
from peers.smtptools import smtp_source
from rawclient import RawClient
from stack import RELAY, SUBMISSION, Stack
from watch import leaked, users_yaml

PASSWORDS = {"ann": "Sesam-oeffne-dich-123", "bob@example.org": "Pass wort äöü 987654"}
CLIENTS = 20
EACH = 10
MESSAGES = 1000


def body(number: int, chance: random.Random) -> bytes:
    """A distinct message: dots at lines' starts, 8-bit octets, long lines, empty lines, trailing blanks, no CRLF
    fault. Line ends are CRLF, the last one included; nothing is stuffed.
    """
    kinds = [
        lambda: b".",
        lambda: b"..",
        lambda: b"." * chance.randrange(1, 60) + b" dots",
        lambda: b"",
        lambda: bytes(chance.choices(range(0x80, 0x100), k=chance.randrange(1, 200))),
        lambda: "Grüße, κόσμε, 世界 🐟".encode(),
        lambda: b"x" * chance.choice([70, 500, 997, 998]),
        lambda: b" \t leading and trailing \t ",
        lambda: b"From the start of a line",
        lambda: b"QUIT",
    ]
    lines = [chance.choice(kinds)() for _ in range(chance.randrange(1, 60))]
    head = b"From: a@example.com\r\nSubject: =?utf-8?q?n=C3=A4h?= %d\r\nX-Number: %d\r\n\r\n" % (number, number)
    return head + b"".join(line + b"\r\n" for line in lines)


def at_rest(message: bytes) -> bytes:
    """The content as a Maildir holds it."""
    return message.replace(b"\r\n", b"\n")


def test_a_thousand_messages_of_many_sessions(postfix: StartPostfix, start_stack: Callable[..., Stack]) -> None:
    """smtp-source numbers its recipients, which tells what came twice from what was lost."""
    [mta] = postfix()
    stack = start_stack([(HOST, mta.port)], listeners=[RELAY], auth_url=None)
    assert smtp_source(mta.port, messages=1, sessions=1, length=3000).returncode == 0
    [direct] = mta.wait_for(1)  # past the proxy: what the others must be like
    half = MESSAGES // 2
    for recipient, options in (("own@example.com", ("-N",)), ("shared@example.com", ("-N", "-d"))):
        # A session for each message, and then many messages a session.
        done = smtp_source(
            stack.proxy[1],
            host=stack.proxy[0],
            messages=half,
            sessions=20,
            length=3000,
            recipient=recipient,
            options=options,
        )
        assert (done.returncode, done.stderr) == (0, "")
    delivered = mta.wait_for(1 + MESSAGES)
    recipients = Counter(one.trace["delivered-to"] for one in delivered if one.content != direct.content)
    assert len(recipients) == MESSAGES
    assert set(recipients.values()) == {1}
    assert {text(one.content) for one in delivered} == {text(direct.content)}
    assert len(text(direct.content)) > 2900
    assert len(stack.wait_for_event("transaction", MESSAGES, outcome="delivered")) == MESSAGES
    assert "warning" not in mta.log()


def text(message: bytes) -> bytes:
    """Without the header, in which smtp-source writes the time and the recipient."""
    return message.partition(b"\n\n")[2]


def test_twenty_authenticated_clients(postfix: StartPostfix, start_stack: Callable[..., Stack]) -> None:
    """200 messages, several a session, some with BODY=8BITMIME; each arrives as it was sent."""
    [mta] = postfix()
    stack = start_stack([(HOST, mta.port)], users=users_yaml(PASSWORDS))
    chance = random.Random(7)
    sent = [body(number, chance) for number in range(CLIENTS * EACH)]
    users = list(PASSWORDS.items())

    def client(mine: int) -> None:
        user, password = users[mine % len(users)]
        with smtplib.SMTP(*stack.proxy, local_hostname=f"c{mine}.example", timeout=60) as smtp:
            smtp.ehlo()
            login(smtp, user, password)
            for number in range(mine, len(sent), CLIENTS):
                refused = smtp.sendmail(
                    f"s{number}@example.com", [f"r{number}@example.net"], sent[number], ["BODY=8BITMIME"]
                )
                assert refused == {}

    with ThreadPoolExecutor(CLIENTS) as pool:
        for one in [pool.submit(client, mine) for mine in range(CLIENTS)]:
            one.result()
    delivered = mta.wait_for(len(sent))
    arrived = {int(one.trace["return-path"][2:].partition("@")[0]): one for one in delivered}
    assert len(arrived) == len(sent)
    wrong = [number for number, message in enumerate(sent) if arrived[number].content != at_rest(message)]
    assert wrong == []
    assert {arrived[n].trace["delivered-to"] for n in range(9)} == {f"r{n}@example.net" for n in range(9)}
    names = Counter(re.findall(r"sasl_username=(\S+)", mta.log()))
    assert names == {"ann": len(sent) // 2, "bob@example.org": len(sent) // 2}
    assert leaked(stack.show() + mta.log(), *PASSWORDS.values()) == []


def login(smtp: smtplib.SMTP, user: str, password: str) -> None:
    """AUTH PLAIN in UTF-8 (RFC 4616); smtplib's own login() can say ASCII only."""
    code, text = smtp.docmd("AUTH", "PLAIN " + b64encode(f"\0{user}\0{password}".encode()).decode())
    assert (code, text) == (235, b"2.0.0 OK")


def test_postfix_learns_the_clients_address_name_and_login(
    postfix: StartPostfix, start_stack: Callable[..., Stack]
) -> None:
    """By XCLIENT, which Debian's Postfix offers to those in smtpd_authorized_xclient_hosts."""
    [mta] = postfix()
    stack = start_stack([(HOST, mta.port)], listeners=[SUBMISSION, RELAY], users=users_yaml(PASSWORDS))
    with RawClient(stack.listeners["submission"], source="127.0.3.7") as client:
        client.greeted(b"laptop.example").login("ann", PASSWORDS["ann"])
        assert client.deliver().startswith(b"250 2.0.0 Ok: queued as ")
        assert client.deliver().startswith(b"250 2.0.0 Ok: queued as ")
    with RawClient(stack.listeners["relay"], source="127.0.3.8") as client:
        assert client.greeted(b"mx.example").deliver().startswith(b"250 2.0.0 Ok: queued as ")
    delivered = mta.wait_for(3)
    lines = re.findall(r"smtpd\[\d+\]: [0-9A-F]+: (client=.*)", mta.log())
    assert sorted(lines) == [
        "client=unknown[127.0.3.7], sasl_method=XCLIENT, sasl_username=ann",
        "client=unknown[127.0.3.7], sasl_method=XCLIENT, sasl_username=ann",
        "client=unknown[127.0.3.8]",
    ]
    received = Counter(one.trace["received"].partition("\n")[0] for one in delivered)
    assert received == {
        "from laptop.example (unknown [127.0.3.7])": 2,
        "from mx.example (unknown [127.0.3.8])": 1,
    }


def test_without_xclient_postfix_sees_the_proxy(postfix: StartPostfix, start_stack: Callable[..., Stack]) -> None:
    [mta] = postfix()
    stack = start_stack([(HOST, mta.port)], listeners=[RELAY], auth_url=None, pool={"xclient": "off"})
    with RawClient(stack.proxy, source="127.0.3.9") as client:
        assert client.greeted().deliver().startswith(b"250 2.0.0 Ok: queued as ")
    mta.wait_for(1)
    assert "client=unknown[127.0.3.9]" not in mta.log()
    assert re.search(r"smtpd\[\d+\]: [0-9A-F]+: client=unknown\[127\.", mta.log())


def test_postfixs_own_refusals_reach_the_client(postfix: StartPostfix, start_stack: Callable[..., Stack]) -> None:
    refused = "inline:{{no@example.com=550 5.1.1 nobody of that name}}"
    main = {
        "smtpd_recipient_restrictions": f"check_recipient_access {refused}, permit",
        "smtpd_sender_restrictions": "check_sender_access inline:{{spam@example.com=554 5.7.1 not you}}",
        "message_size_limit": "20000",
    }
    [mta] = postfix(main=main)
    stack = start_stack([(HOST, mta.port)], listeners=[RELAY], auth_url=None)
    with RawClient(stack.proxy) as client:
        client.greeted()
        assert client.ask(b"MAIL FROM:<a@example.com>").startswith(b"250 ")
        assert client.ask(b"RCPT TO:<no@example.com>").startswith(b"550 5.1.1 <no@example.com>: Recipient address")
        assert client.ask(b"RCPT TO:<yes@example.com>") == b"250 2.1.5 Ok\r\n"
        assert client.opened().end(b"Subject: x\r\n\r\nx\r\n").startswith(b"250 2.0.0 Ok: queued")
        assert client.ask(b"MAIL FROM:<spam@example.com>").startswith(b"250 ")
        assert client.ask(b"RCPT TO:<yes@example.com>").startswith(b"554 5.7.1 <spam@example.com>: Sender address")
        assert client.ask(b"RSET").startswith(b"250 ")
        # Too big for this backend, and not for the listener: Postfix says so after the end.
        client.envelope().opened()
        assert client.end(b"Subject: x\r\n\r\n" + b"y" * 70 + (b"z" * 70 + b"\r\n") * 400) == (
            b"552 5.3.4 Error: message file too big\r\n"
        )
        assert client.deliver().startswith(b"250 2.0.0 Ok: queued")
    assert {one.trace["delivered-to"] for one in mta.wait_for(2)} == {"yes@example.com", "b@example.com"}
