"""What is assumed of a session where a question is silent."""

from __future__ import annotations

from smtpgate.explain.facts import Question
from smtpgate.policy.model import Event


def test_an_address_alone() -> None:
    question = Question(ip="192.0.2.7")
    facts = question.facts(now=7.0)
    assert (facts.client, facts.time, facts.login, facts.method, facts.user) == ("192.0.2.7", 7.0, None, None, None)
    assert (facts.sender_domain, facts.rcpt_domain) == (None, None)
    assert question.events() == [Event.CONNECT, Event.MAIL]


def test_a_user_types_that_name_and_a_password() -> None:
    question = Question(ip="192.0.2.7", user="ann", rcpt="Bob@Example.NET", sender="", size=9)
    facts = question.facts(now=7.0)
    assert (facts.login, facts.method, facts.rcpt_domain, facts.sender_domain) == ("ann", "plain", "example.net", "")
    assert (facts.size, facts.octets) == (9, 9)
    assert question.events() == [Event.CONNECT, Event.AUTH, Event.MAIL, Event.RCPT, Event.DATA, Event.EOD]
