"""What our proxy does otherwise than nginx on purpose, dialogue by dialogue, each with its reason.

The dialogues are those of nginxdialogues; what is not here is the same, octet for octet, but for what
test_nginx_differential takes off everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Difference:
    """where: section of reference/nginx_mail.md, or of another text. lines: as `nginxduel.differing` tells them."""

    reason: str
    where: str
    lines: tuple[str, ...]


def _intended(reason: str, where: str, dialogues: Mapping[str, tuple[str, ...]]) -> dict[str, Difference]:
    return {name: Difference(reason, where, lines) for name, lines in dialogues.items()}


DIFFERENCES: Final[Mapping[str, Difference]] = {
    **_intended(
        "a chunk follows BDAT whatever the answer; read as commands it would speak in the client's name",
        "4.2; RFC 3030",
        {
            "data, bdat and turn": (
                "-C 500 5.5.1 Invalid command",
                "+C 502 5.5.1 BDAT is not offered here",
                "-C 500 5.5.1 Invalid command",
                "+C (closed)",
                "-C 500 5.5.1 Invalid command",
                "+C (closed)",
                "-C 250 2.0.0 OK",
                "+C (closed)",
            ),
        },
    ),
    **_intended(
        "a line end that others do not know smuggles commands",
        "4.1; security.md A1",
        {
            "a bare LF ends a line": (
                "-C 250 2.0.0 OK",
                "+C 521 5.5.2 bare <LF> received",
                "-C 250 2.0.0 OK",
                "+C (closed)",
            ),
        },
    ),
    **_intended(
        "a browser that is made to post to us carries somebody else's commands",
        "4.1; security.md C5",
        {
            "a web browser": (
                "-C 500 5.5.1 Invalid command",
                "-C 500 5.5.1 Invalid command",
                "-C 500 5.5.1 Invalid command",
                "+C 521 5.5.1 This is an SMTP server",
                "+C (closed)",
            ),
        },
    ),
    **_intended(
        "nginx 1.22 overwrites the line ends of what is pipelined behind a refused MAIL",
        "4.7",
        {
            "pipelined behind a refused sender": (
                "-C (silence)",
                "+C 250 2.0.0 OK",
                "+C 250 2.0.0 OK",
            ),
        },
    ),
    **_intended(
        "nginx never compacts its buffer: a command across its end counts as too long",
        "4.1, 10",
        {
            "more pipelined than the buffer holds": (
                "-C (silence)",
                "+C 250 2.0.0 OK",
                "+C 250 2.0.0 OK",
                "+C 250 2.0.0 OK",
                "+C 250 2.0.0 OK",
                "-C step 3",
            ),
        },
    ),
    **_intended(
        "AUTH may be 12288 octets long",
        "4.1; RFC 4954 section 4",
        {
            "a login that is longer than the buffer": (
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
        },
    ),
    **_intended(
        "a client is told why it is left",
        "2; RFC 5321 section 3.8",
        {
            "silence": ("+C 421 4.4.2 Timeout, closing connection",),
            "a login does not end the silence": ("+C 421 4.4.2 Timeout, closing connection",),
        },
    ),
    **_intended(
        "two spellings of a password would be two ways past a filter",
        "4.4; security.md D2",
        dict.fromkeys(
            (
                "base64 without its padding",
                "two words in answer to a challenge",
            ),
            (
                "-C 235 2.0.0 OK",
                "+C 500 5.5.1 Invalid command",
                "-A question 1",
            ),
        ),
    ),
    **_intended(
        "neither can be empty; directories take an empty password for an anonymous login",
        "4.4; RFC 4616",
        dict.fromkeys(
            (
                "an empty password",
                "an empty user",
            ),
            (
                "-C 235 2.0.0 OK",
                "+C 500 5.5.1 Invalid command",
                "-A question 1",
            ),
        ),
    ),
    **_intended(
        "what is not listed is not taken",
        "4.4, 10",
        dict.fromkeys(
            (
                "plain where only none is listed",
                "external where it is not listed",
            ),
            (
                "-C 235 2.0.0 OK",
                "+C 500 5.5.1 Invalid command",
                "-A question 1",
            ),
        ),
    ),
    **_intended(
        "AUTH is for a client without login or transaction",
        "4.2; RFC 4954 section 4",
        {
            "a login in the middle of a message": (
                "-C 235 2.0.0 OK",
                "+C 503 5.5.1 Bad sequence of commands",
                "-A question 1",
            ),
            "a second login": (
                "-C 235 2.7.0 in",
                "+C 503 5.5.1 Bad sequence of commands",
            ),
        },
    ),
    **_intended(
        "xtext; nginx does so from 1.29.2 on",
        "6",
        {
            "another name": (
                "-B XCLIENT ADDR=127.0.7.7 LOGIN=b=o +b NAME=[UNAVAILABLE]",
                "+B XCLIENT ADDR=127.0.7.7 LOGIN=b+3Do+20+2Bb NAME=[UNAVAILABLE]",
            ),
            "a login that needs xtext": (
                "-B XCLIENT ADDR=127.0.7.7 LOGIN=x=y+z w\\xc3\\xa9 NAME=[UNAVAILABLE]",
                "+B XCLIENT ADDR=127.0.7.7 LOGIN=x+3Dy+2Bz+20w+C3+A9 NAME=[UNAVAILABLE]",
            ),
        },
    ),
    **_intended(
        "nginx reads 1024 octets of an answer",
        "10; auth_http.md section 6.1",
        {
            "many headers": (
                "-C 451 4.3.2 Internal server error",
                "+C 235 2.0.0 OK",
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
        },
    ),
    **_intended(
        "headers of others are none of our business",
        "10; auth_http.md section 9",
        {
            "a cookie": (
                "-C 451 4.3.2 Internal server error",
                "+C 235 2.0.0 OK",
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
        },
    ),
    **_intended(
        "EHLO tells us what the backend can do; HELO is said where it refuses that",
        "6; RFC 5321 section 3.2",
        {
            "xclient off, helo": (
                "-B HELO mx.example.com",
                "+B EHLO mx.example.com",
            ),
            "credentials of login replayed": (
                "-B HELO mx.example.com",
                "+B EHLO mx.example.com",
            ),
        },
    ),
    **_intended(
        "what nobody was accepted for need not be taken back; MAIL waits for its recipient",
        "6; ARCHITECTURE.md, one session, 5",
        {
            "a recipient refused, and reset": (
                "-B RSET",
                "-B MAIL FROM:<a@example.com>",
            ),
        },
    ),
    **_intended(
        "commands are written anew, with the parameters that the backend offers",
        "6; security.md B3",
        {
            "none: lines as typed": (
                "-B mail   From:<a@example.com>  SIZE=1   BODY=8BITMIME",
                "-B rcpt to:<b@example.com>",
                "+B MAIL FROM:<a@example.com>",
                "+B RCPT TO:<b@example.com>",
            ),
        },
    ),
    **_intended(
        "DATA is known, and comes too early",
        "4.2; RFC 5321 section 4.1.4",
        {
            "none: data without recipients": (
                "-C 500 5.5.1 Invalid command",
                "+C 503 5.5.1 Bad sequence of commands",
            ),
        },
    ),
    **_intended(
        "what is no path is not accepted",
        "4.2; RFC 5321 section 4.1.2",
        {
            "none: what is no path": (
                "-C 250 2.0.0 OK",
                "+C 501 5.5.4 Invalid argument",
            ),
        },
    ),
    **_intended(
        "a refused sender is the backend's answer and no failure: the client hears it, and may go on",
        "5, 7",
        {
            "none: sender refused by the backend": (
                "-C 451 4.3.2 Internal server error",
                "+C 554 5.7.1 go away",
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
            "none: sender refused in the backend's words": (
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
        },
    ),
    **_intended(
        "the backend is found with the first recipient, and its failure is told then",
        "6; ARCHITECTURE.md, one session, 5",
        {
            **dict.fromkeys(
                (
                    "login: nobody listens",
                    "login: the backend refuses in its greeting",
                    "login: credentials are refused",
                ),
                (
                    "-C 451 4.3.2 Internal server error",
                    "+C 235 2.0.0 OK",
                    "-C (closed)",
                    "+C 250 2.0.0 OK",
                    "-C (closed)",
                    "+C 451 4.4.1 No mail server available, try again later",
                ),
            ),
            "login: words": (
                "-C 554-5.7.1 no",
                "-C 554 5.7.1 really no",
                "+C 235 2.0.0 OK",
                "-C (closed)",
                "+C 250 2.0.0 OK",
                "-C (closed)",
                "+C 554-5.7.1 no",
                "+C 554 5.7.1 really no",
            ),
        },
    ),
    **_intended(
        "as above, and EHLO instead of HELO",
        "6",
        {
            "login: no password to replay": (
                "-C 451 4.3.2 Internal server error",
                "+C 235 2.0.0 OK",
                "-C (closed)",
                "+C 250 2.0.0 OK",
                "-C (closed)",
                "+C 451 4.3.2 Internal server error",
                "-B HELO mx.example.com",
                "+B EHLO mx.example.com",
            ),
        },
    ),
    **_intended(
        "nobody could say whether the client may log in: neither has failed, and it may try again",
        "7; RFC 4954 section 6",
        dict.fromkeys(
            (
                "no status at all",
                "neither server nor port",
                "a server by name",
                "a port by name",
                "garbage",
                "an error page",
                "no answer",
            ),
            (
                "-C 451 4.3.2 Internal server error",
                "+C 454 4.7.0 Temporary authentication failure",
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
        ),
    ),
    **_intended(
        "a client need not leave because a mail server is away",
        "6; security.md section 3",
        dict.fromkeys(
            (
                "none: the backend refuses in its greeting",
                "none: the backend refuses EHLO",
                "none: the backend refuses XCLIENT",
                "none: the backend hangs up at once",
                "none: the backend hangs up at EHLO",
                "none: the backend hangs up at MAIL",
                "none: the backend talks nonsense",
                "none: words: the backend hangs up",
                "none: nobody listens",
            ),
            (
                "-C 451 4.3.2 Internal server error",
                "+C 451 4.4.1 No mail server available, try again later",
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
        ),
    ),
    **_intended(
        "a lost backend is told as 451, and the client may go on where it can",
        "6; RFC 5321 section 4.2.1",
        {
            "the backend hangs up at DATA": (
                "-C (closed)",
                "+C 451 4.4.2 Mail server lost, try again later",
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
            "the backend says 421 at DATA": (
                "-C 421 x",
                "+C 451 4.4.2 Mail server lost, try again later",
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
            "the backend hangs up at the end": (
                "-C (closed)",
                "+C 451 4.4.2 Mail server lost, try again later",
                "-C (closed)",
                "+C 250 2.0.0 OK",
            ),
        },
    ),
    **_intended(
        "nothing goes in clear, and the client hears why",
        "4.4, 10; RFC 3207 section 4",
        {
            "a login in clear where starttls is a must": (
                "-C 500 5.5.1 Invalid command",
                "+C 530 5.7.0 Must issue a STARTTLS command first",
                "-C 500 5.5.1 Invalid command",
                "+C 530 5.7.0 Must issue a STARTTLS command first",
            ),
            "a sender in clear where starttls is a must": (
                "-C 250 2.0.0 OK",
                "+C 530 5.7.0 Must issue a STARTTLS command first",
            ),
        },
    ),
}
