"""Errors end a dialogue at their limit; what does nothing is free up to another one."""

from __future__ import annotations

from smtpgate.smtp.errorlimit import JUNK, ErrorLimit
from smtpgate.smtp.states import Verb


def test_the_last_error_is_one_too_many() -> None:
    limit = ErrorLimit(3, 0)
    assert [limit.error() for _ in range(4)] == [False, False, True, True]
    assert limit.count == 4


def test_junk_is_free_at_first() -> None:
    limit = ErrorLimit(2, 3)
    assert [limit.junk() for _ in range(5)] == [False, False, False, False, True]
    assert limit.count == 2


def test_a_message_makes_junk_free_again_and_forgives_no_error() -> None:
    limit = ErrorLimit(2, 1)
    limit.error()
    limit.junk()
    limit.message()
    assert not limit.junk()
    assert limit.count == 1
    assert limit.junk()


def test_commands_that_carry_mail_are_not_junk() -> None:
    mail = {Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.BDAT, Verb.AUTH, Verb.STARTTLS, Verb.QUIT}
    assert not JUNK & mail
    assert {Verb.NOOP, Verb.RSET, Verb.VRFY, Verb.EXPN, Verb.HELP, Verb.EHLO, Verb.HELO} == JUNK
