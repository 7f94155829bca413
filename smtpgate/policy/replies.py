"""Replies as operators write them: a literal or a name -> a template.

Owns what a reply of ours may be: a refusal on one line of SMTP, whatever its placeholders become.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from smtpgate.policy.match import one_of
from smtpgate.policy.rules import LONGEST_RETRY, ReplyTemplate
from smtpgate.units import MAX_AMOUNT, MAX_DURATION, MAX_HOSTNAME, MAX_NAME, InvalidValue

# Characters of a reply's text as written: what a mail program shows of it in a window.
MAX_REPLY_TEXT: Final = 200
# Octets of the line with its CRLF, its placeholders filled in (RFC 5321 section 4.5.3.1.5).
MAX_REPLY_LINE: Final = 512
EXPECTED_REPLY: Final = 'code, enhanced code and text, e.g. "450 4.7.1 rate limit {limit}, retry in {retry}s"'
# Each with the octets that it may become.
PLACEHOLDERS: Final = {
    "limit": MAX_NAME,
    "retry": len(str(LONGEST_RETRY)),
    "rate": len(f"{MAX_AMOUNT}/{MAX_DURATION * 1000:.0f}ms"),
    "host": MAX_HOSTNAME,
}
_REPLY = re.compile(r"([45])([0-9]{2}) ([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}) ([ -~]+)")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def compile_reply(text: str) -> ReplyTemplate:
    """A literal reply. Raises InvalidValue: not a reply, not 4xx or 5xx, too long, a placeholder that is unknown or
    there twice.
    """
    found = _REPLY.fullmatch(text)
    if found is None:
        raise InvalidValue("is not a 4xx or 5xx reply", EXPECTED_REPLY, value=text)
    severity, digits, enhanced, words = found.groups()
    if not enhanced.startswith(f"{severity}."):
        expected = f"an enhanced code that begins with {severity} (RFC 3463)"
        raise InvalidValue(f"has {enhanced} after {severity}{digits}", expected, value=text)
    if len(words) > MAX_REPLY_TEXT:
        raise InvalidValue("is too long", f"at most {MAX_REPLY_TEXT} characters of text", value=text)
    known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    names = _PLACEHOLDER.findall(words)
    for name in names:
        if name not in PLACEHOLDERS:
            raise InvalidValue(f"has the unknown placeholder {{{name}}}", known, value=text)
        if names.count(name) > 1:
            raise InvalidValue(f"has {{{name}}} twice", "each placeholder once", value=text)
    rest = _PLACEHOLDER.sub("", text)
    if set(rest) & set("{}"):
        raise InvalidValue("has a brace that is no placeholder", known, value=text)
    longest = len(rest) + sum(PLACEHOLDERS[name] for name in names) + len("\r\n")
    if longest > MAX_REPLY_LINE:
        message = f"may become a line of {longest} octets"
        raise InvalidValue(message, f"at most {MAX_REPLY_LINE} with its placeholders filled in", value=text)
    return ReplyTemplate(int(severity + digits), enhanced, words)


def find_reply(text: str, replies: Mapping[str, ReplyTemplate]) -> ReplyTemplate:
    """A literal (it begins with a digit) or a name. Raises InvalidValue."""
    if text[:1].isdigit():
        return compile_reply(text)
    if text not in replies:
        expected = f'a literal, e.g. "450 4.7.1 text", or {one_of(replies)}'
        raise InvalidValue("is not a reply", expected, value=text)
    return replies[text]
