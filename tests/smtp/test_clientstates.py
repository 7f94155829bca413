"""The table of the client's side, whole."""

from __future__ import annotations

import pytest

from smtpgate.smtp.clientstates import RULES, ClientState, Verb

# verb: legal in | after a positive reply | after a negative one | first digit of the positive | marks
TABLE = """
GREETING:    greeting                           | hello  | -      | 2 | last
HELO:        hello ready                        | ready  | -      | 2 | last
EHLO:        hello ready                        | ready  | -      | 2 | last
STARTTLS:    ready                              | tls    | -      | 2 | last
XCLIENT:     ready                              | -      | -      | 2 | last
AUTH:        ready                              | -      | -      | 2 | last
MAIL:        ready                              | mail   | -      | 2 |
RCPT:        mail rcpt                          | rcpt   | -      | 2 |
DATA:        rcpt                               | data   | -      | 3 | last also:mail
END_OF_DATA: data                               | ready  | ready  | 2 |
BDAT:        bdat rcpt                          | bdat   | bdat   | 2 |
BDAT_LAST:   bdat rcpt                          | ready  | bdat   | 2 | last
RSET:        bdat mail rcpt ready               | ready  | -      | 2 | never-refused
QUIT:        bdat greeting hello mail rcpt ready| closed | closed | 2 | last
"""


def show(verb: Verb) -> str:
    rule = RULES[verb]
    marks = ["last"] * rule.last + ["never-refused"] * (not rule.refusable)
    marks += [f"also:{state.value}" for state in rule.also_from]
    columns = (
        " ".join(sorted(state.value for state in rule.legal)),
        rule.success.value if rule.success else "-",
        rule.refused.value if rule.refused else "-",
        str(rule.positive),
        " ".join(marks),
    )
    return f"{verb.name}: {' | '.join(columns)}"


def test_the_table() -> None:
    expected = []
    for row in TABLE.strip().splitlines():
        verb, _, columns = row.partition(":")
        expected.append(f"{verb}: {' | '.join(column.strip() for column in columns.split('|'))}")
    assert [show(verb) for verb in RULES] == expected


def test_every_verb_has_a_row() -> None:
    assert set(RULES) == set(Verb)


@pytest.mark.parametrize("state", ClientState)
def test_every_state_can_be_reached_and_only_closed_is_a_dead_end(state: ClientState) -> None:
    reached = {ClientState.GREETING, *(rule.success for rule in RULES.values())}
    assert state in reached
    ways_out = [verb for verb, rule in RULES.items() if state in rule.legal]
    # TLS is left by tls_started(), which is no command.
    assert bool(ways_out) is (state not in (ClientState.CLOSED, ClientState.TLS))


def test_what_may_not_be_followed_is_what_rfc_2920_says() -> None:
    """Section 3.1: EHLO, DATA, QUIT (and NOOP, VRFY, EXPN, TURN) end a group; RSET, MAIL, RCPT do not."""
    assert not any(RULES[verb].last for verb in (Verb.RSET, Verb.MAIL, Verb.RCPT, Verb.END_OF_DATA, Verb.BDAT))
    assert all(RULES[verb].last for verb in (Verb.EHLO, Verb.DATA, Verb.QUIT, Verb.STARTTLS, Verb.AUTH))
