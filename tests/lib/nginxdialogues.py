"""The dialogues that nginx and we are compared in, by what they are about; and the configuration of both.

Each name is a test. What is said is plain text where it can be; replies are not written here: nginx says what is
right, and test_nginx_differential where we know better.
"""

from __future__ import annotations

import base64
from typing import Final

from nginxduel import OK, Dialogue, End, Send, StartTls
from recorder import Act

SOON: Final = 1.0  # patience where nginx is known to say nothing

# One nginx for all dialogues: a server each way of being configured. {name} is its port.
MAIL: Final = """\
server_name mx.example.com;
auth_http {host}:{auth}/auth;
ssl_certificate {cert};
ssl_certificate_key {key};
ssl_protocols TLSv1.2 TLSv1.3;
server {{ listen {host}:{bare}; protocol smtp; }}
server {{
    listen {host}:{full};
    protocol smtp;
    smtp_auth plain login cram-md5;
    smtp_capabilities "SIZE 10485760" 8BITMIME DSN;
}}
server {{ listen {host}:{silent}; protocol smtp; xclient off; }}
server {{ listen {host}:{replay}; protocol smtp; xclient off; proxy_smtp_auth on; smtp_auth plain login cram-md5; }}
server {{ listen {host}:{both}; protocol smtp; proxy_smtp_auth on; }}
server {{ listen {host}:{words}; protocol smtp; proxy_pass_error_message on; }}
server {{ listen {host}:{relay}; protocol smtp; smtp_auth none; }}
server {{ listen {host}:{mixed}; protocol smtp; smtp_auth plain login none; xclient off; }}
server {{ listen {host}:{relaywords}; protocol smtp; smtp_auth none; proxy_pass_error_message on; }}
server {{ listen {host}:{header}; protocol smtp; xclient off; proxy_protocol on; }}
server {{ listen {host}:{starttls}; protocol smtp; starttls on; }}
server {{ listen {host}:{only}; protocol smtp; starttls only; smtp_auth plain login none; }}
server {{
    listen {host}:{implicit} ssl;
    protocol smtp;
    smtp_auth external;
    ssl_verify_client on;
    ssl_client_certificate {ca};
}}
server {{ listen {host}:{short}; protocol smtp; timeout 1s; smtp_auth plain none; }}
server {{ listen {host}:{small}; protocol smtp; smtp_client_buffer 512; max_errors 2; }}
server {{ listen {host}:{delay}; protocol smtp; smtp_greeting_delay 300ms; }}
server {{
    listen {host}:{headers};
    protocol smtp;
    auth_http_header X-Auth-Key secret;
    auth_http_header X-Port 25;
    auth_http_timeout 1s;
}}
server {{
    listen {host}:{front} proxy_protocol;
    protocol smtp;
    smtp_auth none;
    set_real_ip_from 127.0.0.0/8;
}}
"""
SERVERS: Final = (
    *("bare", "full", "silent", "replay", "both", "words", "relay", "mixed", "relaywords", "header", "starttls"),
    *("only", "implicit", "short", "small", "delay", "headers", "front"),
)


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def plain(user: str, password: str, authzid: str = "") -> str:
    message = "\0".join((authzid, user, password))
    return f"AUTH PLAIN {b64(message)}"


IN: Final = plain("ann", "secret")
DIGEST: Final = "0123456789abcdef0123456789abcdef"
LETTER: Final = Send((b"Subject: x\r\n\r\n..stuffed\r\nx\r\n.\r\n",))
MESSAGE: Final = ("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA", LETTER)
NO: Final = {"Auth-Status": "Invalid login or password"}
LATER: Final = {"Auth-Status": "Invalid login or password", "Auth-Wait": "1"}
UNKNOWN: Final = {"Auth-Status": "Nobody here", "Auth-Error-Code": "550 5.1.1", "Auth-Wait": "1"}
REFUSED: Final = Act(b"554 5.7.1 go away\r\n")


def closes(reply: bytes = b"") -> Act:
    return Act(reply, "close")


# --- before anybody is authenticated (reference/nginx_mail.md section 4) -------------------------------------

COMMANDS: Final = (
    Dialogue("greeting and quit", "bare", ["QUIT", End()]),
    Dialogue("quit with an argument", "bare", ["quit now", End()]),
    Dialogue("the client leaves", "bare", ["NOOP"]),
    Dialogue("helo", "bare", ["HELO client.example"]),
    Dialogue("ehlo", "bare", ["EHLO client.example"]),
    Dialogue("ehlo with capabilities", "full", ["ehlo client.example", "EHLO [192.0.2.1]"]),
    Dialogue("ehlo without AUTH", "relay", ["EHLO client.example"]),
    Dialogue("ehlo of starttls on", "starttls", ["EHLO client.example"]),
    Dialogue("ehlo of starttls only", "only", ["EHLO client.example"]),
    Dialogue("helo and ehlo with no or two names", "bare", ["EHLO", "HELO", "EHLO a b", "HELO a b"]),
    Dialogue("noop and rset", "bare", ["NOOP", "NOOP with words", "noop", "RSET", "RSET x"]),
    Dialogue("vrfy, expn and help are not counted", "bare", [*["VRFY x", "EXPN y", "HELP"] * 3, "NOOP"]),
    Dialogue("data, bdat and turn", "bare", ["DATA", "BDAT 0 LAST", "TURN", "ETRN x", "NOOP"]),
    Dialogue(
        "the fifth unknown command is the last", "bare", ["A", "BADD x", "FOOBAR", "NOOP", "X-Y", "DATA", End()]
    ),
    Dialogue("max_errors 2", "small", ["NOPE", "NOOP", "NOPE", End()]),
    Dialogue("starttls where there is none", "bare", ["STARTTLS", "STARTTLS x"]),
    Dialogue("mail without login", "bare", ["MAIL FROM:<a@example.com>", "MAIL", "RCPT TO:<b@example.com>"]),
    Dialogue("an empty line, and one that begins with a space", "bare", ["", " NOOP", "NOOP"]),
    Dialogue("eleven arguments and twelve", "bare", ["NOOP 1 2 3 4 5 6 7 8 9 10", "NOOP 1 2 3 4 5 6 7 8 9 10 11"]),
    Dialogue("a tab is no space", "bare", ["NOOP\tx", "NOOP"]),
    Dialogue("spaces behind a command", "bare", ["NOOP   ", "EHLO   client.example  ", "QUIT ", End()]),
    Dialogue("a bare LF ends a line", "bare", [Send((b"NOOP\n",)), "NOOP"]),
    Dialogue("a CR inside a line", "bare", [Send((b"NOOP\rx\r\n",)), "NOOP"]),
    Dialogue("xclient from anybody", "bare", ["XCLIENT ADDR=192.0.2.1", "XFORWARD NAME=x", "NOOP"]),
    Dialogue("a web browser", "bare", [Send((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",), 3)]),
)
LINES: Final = (
    Dialogue("a line in two pieces", "bare", [Send((b"NO", b"OP\r\n")), "NOOP"]),
    Dialogue("CR and LF apart", "bare", [Send((b"NOOP\r", b"\nNOOP\r\n"), 2)]),
    Dialogue("octet by octet", "bare", [Send(tuple(bytes([octet]) for octet in b"EHLO a.example\r\n"))]),
    Dialogue("two lines and a half", "bare", [Send((b"NOOP\r\nEHLO a.example\r\nRS", b"ET\r\n"), 3)]),
    Dialogue("pipelined commands", "bare", ["EHLO a.example|NOOP|VRFY x|RCPT|AUTH|RSET|QUIT", End()]),
    Dialogue("pipelined behind a refused sender", "bare", ["MAIL FROM:<a@b.example>|RSET|NOOP"], patience=SOON),
    Dialogue("what is said behind quit", "bare", [Send((b"QUIT\r\nNOOP\r\n",)), End()]),
    Dialogue("as long as a line may be", "small", [f"NOOP {'x' * 505}", "NOOP"]),
    Dialogue("one octet more", "small", [f"NOOP {'x' * 506}", End()]),
    Dialogue("a login that is longer than the buffer", "small", [f"AUTH PLAIN {b64(b'x' * 600)}", "NOOP"]),
    Dialogue(
        "more pipelined than the buffer holds",
        "small",
        ["|".join(["NOOP a line of thirty octets x"] * 20)],
        patience=SOON,
    ),
    Dialogue("before the greeting", "bare", [Send((b"EHLO a.example\r\n",), 2)], early=True),
    Dialogue("greeting after its delay", "delay", ["NOOP"]),
    Dialogue("before the delayed greeting", "delay", [Send((b"EHLO a.example\r\n",)), End()], early=True),
    Dialogue("leaves before the delayed greeting", "delay", [Send((b"",), 0)], early=True),
    Dialogue("silence", "short", [End()]),
    Dialogue("a login does not end the silence", "short", ["NOOP", "AUTH PLAIN", End()]),
)

# --- AUTH (section 4.4) --------------------------------------------------------------------------------------

AUTH: Final = (
    Dialogue("plain", "bare", ["EHLO a.example", IN, "NOOP", "QUIT", End()]),
    Dialogue("plain in two steps", "bare", ["auth plain", IN[11:]]),
    Dialogue("plain with authzid and controls", "bare", [plain("us er%\tx", "p%a+=s ü", authzid="zoe")]),
    Dialogue("plain without any ehlo", "bare", [IN]),
    Dialogue("login", "bare", ["EHLO a.example", "AUTH LOGIN", b64("ann"), b64("secret")]),
    Dialogue("login with the name at once", "bare", ["HELO a.example", f"AUTH LOGIN {b64('ann')}", b64("secret")]),
    Dialogue("cram-md5", "full", ["EHLO a.example", "AUTH CRAM-MD5", b64(f"ann {DIGEST}")]),
    Dialogue("cram-md5 where it is not listed", "bare", ["AUTH CRAM-MD5", "NOOP"]),
    Dialogue("cram-md5 with an initial response", "full", [f"AUTH CRAM-MD5 {b64('ann')}"]),
    Dialogue("cram-md5 with a short digest", "full", ["AUTH CRAM-MD5", b64("ann 0123"), "NOOP"]),
    Dialogue("auth without a mechanism, with a strange one", "bare", ["AUTH", "AUTH NTLM", "AUTH GSSAPI x", "NOOP"]),
    Dialogue("auth with too many words", "bare", [f"{IN} x", "AUTH LOGIN a b", "NOOP"]),
    Dialogue("cancelled", "full", ["AUTH PLAIN", "*", "AUTH LOGIN", "*", "AUTH CRAM-MD5", "*", "NOOP"]),
    Dialogue("cancelled at the password", "bare", ["AUTH LOGIN", b64("ann"), "*", "NOOP"]),
    Dialogue("what is no base64", "bare", ["AUTH PLAIN !", "AUTH PLAIN", "a", "AUTH LOGIN", "?", "NOOP"]),
    Dialogue("plain without a NUL", "bare", [f"AUTH PLAIN {b64(one)}" for one in ("x", "xx", "")]),
    Dialogue("plain with =", "bare", ["AUTH PLAIN =", "NOOP"]),
    Dialogue("base64 without its padding", "bare", [plain("ann", "abc").rstrip("=")]),
    Dialogue("an empty password", "bare", [plain("ann", "")]),
    Dialogue("an empty user", "bare", [plain("", "secret")]),
    Dialogue("two words in answer to a challenge", "bare", ["AUTH PLAIN", f"{IN[11:]} x"]),
    Dialogue("a login pipelined", "bare", [f"EHLO a.example|{IN}|NOOP"]),
    Dialogue("login with all pipelined", "bare", [f"AUTH LOGIN|{b64('ann')}|{b64('secret')}|NOOP"]),
    Dialogue("plain where only none is listed", "relay", [IN]),
    Dialogue("external where it is not listed", "bare", ["AUTH EXTERNAL", f"AUTH EXTERNAL {b64('ann')}"]),
    Dialogue("a login in the middle of a message", "mixed", ["MAIL FROM:<a@example.com>", IN]),
    Dialogue("a second login", "bare", [IN, IN]),
)
ANSWERS: Final = (
    Dialogue("refused", "bare", [IN, End()], [NO]),
    Dialogue("refused, and may try again", "bare", [IN, IN], [LATER, OK]),
    Dialogue("refused with a code", "bare", [IN, End()], [NO | {"Auth-Error-Code": "454 4.7.0"}]),
    Dialogue("refused, the rest pipelined", "bare", [f"{IN}|NOOP|RSET"], [LATER]),
    Dialogue("to be asked again", "bare", [IN], [{"Auth-Status": "WAIT", "Auth-Wait": "1"}, OK]),
    Dialogue(
        "to be asked again with another name",
        "replay",
        ["EHLO a.example", IN, *MESSAGE[:2]],
        [{"Auth-Status": "WAIT", "Auth-Wait": "1", "Auth-User": "bob", "Auth-Pass": "other"}, OK],
    ),
    Dialogue("another name", "bare", ["EHLO x", IN, *MESSAGE], [OK | {"Auth-User": "b=o +b"}]),
    Dialogue("no status at all", "bare", [IN, "NOOP"], [OK | {"Auth-Status": ""}]),
    Dialogue("neither server nor port", "bare", [IN, "NOOP"], [{"Auth-Status": ""}]),
    Dialogue("a server by name", "bare", [IN, "NOOP"], [OK | {"Auth-Server": "localhost"}]),
    Dialogue("a port by name", "bare", [IN, "NOOP"], [OK | {"Auth-Port": "smtp"}]),
    Dialogue("garbage", "bare", [IN, "NOOP"], [b"garbage\r\n"]),
    Dialogue("an error page", "bare", [IN, "NOOP"], [b"HTTP/1.1 500 No\r\nServer: x\r\n\r\nno"]),
    Dialogue("no answer", "headers", [IN, "NOOP"], [None]),
    Dialogue("headers of the operator", "headers", [IN]),
    Dialogue("many headers", "bare", [IN, "NOOP"], [OK | {"X-Long": "x" * 1024}]),
    Dialogue("a cookie", "bare", [IN, "NOOP"], [OK | {"Set_Cookie": "x"}]),
)

# --- a message (sections 5 and 6) ----------------------------------------------------------------------------

RELAYED: Final = (
    Dialogue("a message", "bare", ["EHLO a.example", IN, *MESSAGE, "QUIT", End()]),
    Dialogue("a message after helo", "bare", ["HELO a.example", IN, *MESSAGE]),
    Dialogue("a message without any ehlo", "bare", [IN, *MESSAGE]),
    Dialogue("ehlo, then helo", "bare", ["EHLO a.example", "HELO b.example", IN, *MESSAGE]),
    Dialogue("a login that needs xtext", "bare", [plain("x=y+z wé", "s"), *MESSAGE]),
    Dialogue("xclient off", "silent", ["EHLO a.example", IN, *MESSAGE[:2]]),
    Dialogue("xclient off, helo", "silent", ["HELO a.example", IN, *MESSAGE[:2]]),
    Dialogue("credentials replayed", "replay", ["EHLO a.example", IN, *MESSAGE[:2]]),
    Dialogue("credentials of login replayed", "replay", ["AUTH LOGIN", b64("ann"), b64("secret"), *MESSAGE[:2]]),
    Dialogue(
        "credentials from the service",
        "replay",
        ["EHLO a.example", "AUTH CRAM-MD5", b64(f"ann {DIGEST}"), *MESSAGE[:2]],
        [OK | {"Auth-User": "bob", "Auth-Pass": "clear"}],
    ),
    Dialogue("xclient and credentials", "both", ["EHLO a.example", IN, *MESSAGE[:2]]),
    Dialogue("proxy header to the backend", "header", ["EHLO a.example", IN, *MESSAGE[:2]]),
    Dialogue("two messages", "bare", ["EHLO a.example", IN, *MESSAGE, *MESSAGE]),
    Dialogue(
        "two recipients, and no sender",
        "bare",
        [
            *("EHLO a.example", IN, "MAIL FROM:<>", "RCPT TO:<b@example.com>"),
            *("RCPT TO:<c@example.com>", "DATA", LETTER),
        ],
    ),
    Dialogue(
        "a recipient refused, and reset",
        "bare",
        ["EHLO a.example", IN, *MESSAGE[:2], "RSET", *MESSAGE[:1]],
        backend={"RCPT": Act(b"550 5.1.1 nobody\r\n")},
    ),
    Dialogue(
        "a message refused at its end",
        "bare",
        ["EHLO a.example", IN, *MESSAGE],
        backend={".": Act(b"554-5.7.1 spam\r\n554 5.7.1 really\r\n")},
    ),
    Dialogue(
        "a pipelined message",
        "full",
        [
            *("EHLO a.example", IN),
            "MAIL FROM:<a@example.com> SIZE=40|RCPT TO:<b@example.com>|DATA",
            LETTER,
        ],
        backend={"EHLO": Act(b"250-backend\r\n250 SIZE 1000000\r\n")},
    ),
)
NONE: Final = (
    Dialogue("none: a message", "relay", ["EHLO a.example", *MESSAGE, "QUIT", End()]),
    Dialogue("none: after helo", "relay", ["HELO a.example", *MESSAGE]),
    Dialogue("none: without any helo", "relay", MESSAGE),
    Dialogue("none: xclient off", "mixed", ["EHLO a.example", *MESSAGE[:2]]),
    Dialogue("none: the service names a user", "relay", ["EHLO x", *MESSAGE], [OK | {"Auth-User": "ann"}]),
    Dialogue(
        "none: lines as typed",
        "relay",
        ["mail   From:<a@example.com>  SIZE=1   BODY=8BITMIME  ", "rcpt to:<b@example.com>   ", "DATA", LETTER],
    ),
    Dialogue("none: refused", "relay", ["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", End()], [NO]),
    Dialogue(
        "none: refused, and the next one is taken",
        "relay",
        [*MESSAGE[:2], "RCPT TO:<c@example.com>", "DATA", LETTER],
        [UNKNOWN, OK],
    ),
    Dialogue(
        "none: all pipelined, the first refused",
        "relay",
        ["EHLO x", "MAIL FROM:<a@example.com>|RCPT TO:<b@example.com>|RCPT TO:<c@example.com>|DATA", LETTER],
        [UNKNOWN, OK],
    ),
    Dialogue(
        "none: sequence", "relay", ["RCPT TO:<b@example.com>", "MAIL", "MAIL FROM:<a@b>", "MAIL FROM:<a@b>", "RCPT"]
    ),
    Dialogue(
        "none: reset forgets the sender", "relay", ["MAIL FROM:<a@b.example>", "RSET", "RCPT TO:<b@example.com>"]
    ),
    Dialogue(
        "none: ehlo forgets the sender", "relay", ["MAIL FROM:<a@b.example>", "EHLO x", "RCPT TO:<b@example.com>"]
    ),
    Dialogue("none: data without recipients", "relay", ["MAIL FROM:<a@b.example>", "DATA", "NOOP"]),
    Dialogue("none: what is no path", "relay", ["MAIL hello", "NOOP"]),
    Dialogue("none: recipient refused by the backend", "relay", MESSAGE[:2], backend={"RCPT": REFUSED}),
    Dialogue("none: sender refused by the backend", "relay", [*MESSAGE[:2], "NOOP"], backend={"MAIL": REFUSED}),
    Dialogue(
        "none: sender refused in the backend's words", "relaywords", [*MESSAGE[:2], "NOOP"], backend={"MAIL": REFUSED}
    ),
    Dialogue("none: the second message", "relay", ["EHLO a.example", *MESSAGE, *MESSAGE]),
)

# --- backends that fail (section 7) --------------------------------------------------------------------------

LOGGED_IN: Final = ("EHLO a.example", IN)
REJECTS: Final = Act(b"554-5.7.1 no\r\n554 5.7.1 really no\r\n")
REFUSING: Final = tuple(
    Dialogue(f"none: {name}", server, ["EHLO a.example", *MESSAGE[:2], "NOOP"], backend=backend)
    for name, server, backend in (
        ("the backend refuses in its greeting", "relay", {"GREETING": REJECTS}),
        ("the backend refuses EHLO", "relay", {"EHLO": Act(b"451 4.3.0 later\r\n")}),
        ("the backend refuses XCLIENT", "relay", {"XCLIENT": REJECTS}),
        ("the backend hangs up at once", "relay", {"GREETING": closes()}),
        ("the backend hangs up at EHLO", "relay", {"EHLO": closes()}),
        ("the backend hangs up at MAIL", "relay", {"MAIL": closes()}),
        ("the backend talks nonsense", "relay", {"GREETING": Act(b"hello there\r\n")}),
        ("words: the greeting", "relaywords", {"GREETING": REJECTS}),
        ("words: EHLO", "relaywords", {"EHLO": Act(b"451 4.3.0 later\r\n")}),
        ("words: XCLIENT", "relaywords", {"XCLIENT": REJECTS}),
        ("words: the backend hangs up", "relaywords", {"GREETING": closes()}),
    )
)
FAILING: Final = (
    Dialogue("login: nobody listens", "bare", [IN, *MESSAGE[:2]], [OK | {"Auth-Port": "9"}]),
    Dialogue("none: nobody listens", "relay", [*MESSAGE[:2], "NOOP"], [OK | {"Auth-Port": "9"}]),
    Dialogue(
        "login: the backend refuses in its greeting",
        "bare",
        [*LOGGED_IN, *MESSAGE[:2]],
        backend={"GREETING": REJECTS},
    ),
    Dialogue("login: words", "words", [*LOGGED_IN, *MESSAGE[:2]], backend={"GREETING": REJECTS}),
    Dialogue(
        "login: credentials are refused",
        "replay",
        [*LOGGED_IN, *MESSAGE[:2]],
        backend={"AUTH": Act(b"535 5.7.8 no\r\n")},
    ),
    Dialogue("login: no password to replay", "replay", ["AUTH CRAM-MD5", b64(f"ann {DIGEST}"), *MESSAGE[:2]]),
    Dialogue("the backend hangs up at DATA", "bare", [*LOGGED_IN, *MESSAGE[:3], "NOOP"], backend={"DATA": closes()}),
    Dialogue("the backend hangs up at the end", "bare", [*LOGGED_IN, *MESSAGE, "NOOP"], backend={".": closes()}),
    Dialogue(
        "the backend says 421 at DATA",
        "bare",
        [*LOGGED_IN, *MESSAGE[:3], "NOOP"],
        backend={"DATA": closes(b"421 x\r\n")},
    ),
)

# --- TLS and the PROXY protocol (sections 3 and 4.6) ---------------------------------------------------------

TLS: Final = (
    Dialogue(
        "starttls",
        "starttls",
        ["EHLO a.example", "STARTTLS", StartTls(), "EHLO a.example", IN, *MESSAGE],
    ),
    Dialogue("starttls, then no ehlo", "starttls", ["EHLO a.example", "STARTTLS", StartTls(), IN]),
    Dialogue("starttls twice", "starttls", ["STARTTLS", StartTls(), "STARTTLS", "EHLO a.example"]),
    Dialogue("starttls with an argument", "starttls", ["STARTTLS now", StartTls(), "NOOP"]),
    Dialogue("starttls forgets the sender", "only", ["STARTTLS", StartTls(), "RCPT TO:<b@example.com>"]),
    Dialogue("external without certificates", "starttls", ["STARTTLS", StartTls(), "AUTH EXTERNAL"]),
    Dialogue("a login in clear where starttls is on", "starttls", [IN]),
    Dialogue("a login in clear where starttls is a must", "only", [IN, "AUTH LOGIN", "NOOP"]),
    Dialogue("a sender in clear where starttls is a must", "only", ["MAIL FROM:<a@example.com>"]),
    Dialogue("a login where starttls is a must", "only", ["STARTTLS", StartTls(), "EHLO x", IN]),
    Dialogue("a client certificate", "implicit", [StartTls(as_client=True), "EHLO x", "AUTH EXTERNAL", "="]),
    Dialogue(
        "a client certificate, with a name", "implicit", [StartTls(as_client=True), f"AUTH EXTERNAL {b64('ann')}"]
    ),
    Dialogue("no client certificate", "implicit", [StartTls(), End()]),
)
FRONT: Final = tuple(
    Dialogue(f"front: {name}", "front", [Send((header,), replies), *rest], early=True)
    for name, header, replies, *rest in (
        ("TCP4", b"PROXY TCP4 192.0.2.7 198.51.100.9 1234 25\r\n", 1, "EHLO x", *MESSAGE),
        ("TCP6", b"PROXY TCP6 2001:db8::7 2001:db8::9 1234 25\r\n", 1, *MESSAGE),
        ("UNKNOWN", b"PROXY UNKNOWN\r\n", 1, *MESSAGE),
        ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x09\x04\xd2\0\x19", 1, *MESSAGE),
        ("v2 LOCAL", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 1, *MESSAGE),
        ("no header", b"EHLO a.example\r\n", 0, End()),
        ("with the first command", b"PROXY TCP4 192.0.2.7 198.51.100.9 1234 25\r\nEHLO x\r\n", 2, "NOOP"),
    )
)

DIALOGUES: Final = (
    *COMMANDS,
    *LINES,
    *AUTH,
    *ANSWERS,
    *RELAYED,
    *NONE,
    *REFUSING,
    *FAILING,
    *TLS,
    *FRONT,
)
