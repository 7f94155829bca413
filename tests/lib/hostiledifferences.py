"""Where our answer to a hostile command is not the one that its case would prefer, each with the reason.

What we answer is in tests/corpora/answers.json; `prefer` is the corpus's word. A case that is not here is answered as
it prefers, on every listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

EVERYWHERE: Final = ("rich", "normalize", "submission")


@dataclass(frozen=True, slots=True)
class Difference:
    """where: section of a reference page, or another text. listeners: on which of them our answer is another one."""

    reason: str
    where: str
    listeners: tuple[str, ...]


def _for(
    reason: str, where: str, names: Iterable[str], listeners: tuple[str, ...] = EVERYWHERE
) -> dict[str, Difference]:
    return {name: Difference(reason, where, listeners) for name in names}


DIFFERENCES: Final[Mapping[str, Difference]] = {
    **_for(
        "500 5.5.1 Invalid command is the one answer to a line that is no command of ours, as nginx gives it: whoever"
        " moves from nginx finds the same words in his logs, and a scanner learns nothing from them",
        "nginx_mail.md 4.1, 4.2",
        (
            *("empty_line", "tabs_only", "ehlo_tab_sep", "ehlo_bare_cr_inside", "ehlo_nul", "unknown_verb"),
            *("verb_glued", "verb_8bit", "verb_dotless_i", "verb_debug", "nul_only", "high_soup", "line_5000"),
            *("mail_bare_cr", "mail_quoted_cr", "rcpt_nul"),
        ),
    ),
    **_for(
        "the same for commands that we know and do not offer",
        "nginx_mail.md 4.2",
        (
            *("starttls_before_ehlo", "help_arg", "vrfy_long", "vrfy_utf8_state", "expn", "turn", "atrn_burl"),
            *("xclient_crlf_xtext", "xclient_in_txn"),
        ),
    ),
    **_for(
        "the same for everything that is wrong about an AUTH, before anybody is asked: nginx never says 501, 504 or"
        " 535 here",
        "nginx_mail.md 4.2, 4.4",
        (
            *("auth_unknown_mech", "auth_mech_21", "auth_plain_star", "auth_plain_notb64", "auth_plain_urlsafe"),
            *("auth_plain_noncanonical", "auth_plain_extra_arg", "auth_plain_one_nul", "auth_plain_empty_user"),
            *("auth_plain_user_4k", "auth_plain_1m", "auth_cram_initial", "auth_anonymous", "login_empty"),
            *("login_notb64", "login_user_nul", "login_endless"),
        ),
    ),
    **_for(
        "DATA before a login is no command yet",
        "nginx_mail.md 4.2",
        ("data_before_helo", "data_arg"),
        ("submission",),
    ),
    **_for(
        "who has not logged in may not send, whether or not he said HELO, which nobody demands by default",
        "nginx_mail.md 4.2",
        ("mail_before_helo",),
        ("submission",),
    ),
    **_for(
        "one wrong line may be a mistake: the fifth ends the session (max_errors). Only HTTP, which is somebody"
        " else's browser, is refused at the first",
        "nginx_mail.md 4.3; security.md C5",
        ("redis_inline", "sslv2_hello"),
    ),
    **_for(
        "a client's name is a word for the log: old clients' literals and labels are let in, as by nginx. What is no"
        " printable ASCII, or longer than a domain, is not",
        "nginx_mail.md 4.2",
        ("ehlo_label_64", "ehlo_literal_unclosed"),
    ),
    **_for(
        "it fits into max_line, 4096 octets, and is one NOOP",
        "nginx_mail.md 4.1",
        ("line_overflow_smuggle",),
    ),
    **_for("arguments of RSET are ignored, as by nginx", "nginx_mail.md 4.2", ("rset_arg",)),
    **_for(
        "the proxy's own answer to MAIL is nginx's: the backend hears of it with the first recipient",
        "nginx_mail.md 4.2",
        ("mail_null",),
    ),
    **_for(
        "what is wrong is the address, and so it is named: 5.1.7, bad sender's mailbox address syntax",
        "RFC 3463 section 3.2",
        ("mail_open_only", "mail_double_brackets"),
    ),
    **_for(
        "a chunk follows a BDAT whatever the answer: where none is offered, nothing behind it is read as commands",
        "security.md A10",
        ("bdat_without_mail", "bdat_no_rcpt", "bdat_notnum", "bdat_huge"),
        ("submission",),
    ),
    **_for(
        "SMTPUTF8 is not offered there",
        "RFC 5321 section 4.1.1.11",
        ("mail_badutf8_smtputf8", "mail_overlong_utf8"),
        ("submission",),
    ),
    **_for(
        "bare_newline: normalize says that a bare LF ends a line, and so the QUIT in the signature is one",
        "security.md A1, E2",
        ("proxy_v2_untrusted",),
        ("normalize",),
    ),
    **_for(
        "a bare LF in a command is no mistake: 521 and the end, before anybody reads it in two ways. Where it is"
        " mended (normalize), these are two commands of the client's own",
        "security.md A1",
        ("rcpt_bare_lf",),
    ),
}
