"""What several backends offer together."""

import pytest

from smtpgate.smtp.capabilities import MINIMUM, common
from smtpgate.smtp.extensions import EMPTY, Extensions
from smtpgate.smtp.replies import Reply
from smtpgate.smtp.settings import ServerSettings


def offering(*lines):
    return Extensions.from_ehlo(Reply(250, ("mta.test", *lines)))


POSTFIX = offering(
    *("PIPELINING", "SIZE 10240000", "VRFY", "ETRN", "STARTTLS", "XCLIENT NAME ADDR", "ENHANCEDSTATUSCODES"),
    *("8BITMIME", "DSN", "SMTPUTF8", "CHUNKING"),
)
EXIM = offering("SIZE 52428800", "LIMITS MAILMAX=1000", "8BITMIME", "PIPELINING", "CHUNKING", "PRDR", "HELP")
OPENSMTPD = offering("8BITMIME", "ENHANCEDSTATUSCODES", "SIZE 36700160", "DSN", "HELP")


@pytest.mark.parametrize(
    ("offers", "lines"),
    [
        ([], MINIMUM),
        (
            [POSTFIX],
            ("PIPELINING", "SIZE 10240000", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8", "CHUNKING"),
        ),
        ([POSTFIX, EXIM], ("PIPELINING", "SIZE 10240000", "8BITMIME", "CHUNKING")),
        ([POSTFIX, EXIM, OPENSMTPD], ("PIPELINING", "SIZE 10240000", "8BITMIME")),
        ([EXIM, OPENSMTPD], ("PIPELINING", "SIZE 36700160", "8BITMIME")),
        ([offering("SIZE 0"), offering("SIZE")], ("PIPELINING", "SIZE")),
        ([offering("SIZE 0"), offering("SIZE 5000")], ("PIPELINING", "SIZE 5000")),
        ([POSTFIX, EMPTY], ("PIPELINING", "SIZE 10240000")),
        ([offering("BINARYMIME", "XFORWARD", "BURL imap", "AUTH PLAIN")], ("PIPELINING", "SIZE")),
    ],
)
def test_what_is_offered(offers, lines):
    assert common(offers) == lines
    ServerSettings("mx.test", capabilities=lines)
