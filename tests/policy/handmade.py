"""Limits and policies made by hand: what the compiler would give, without YAML."""

from __future__ import annotations

from typing import Any

from smtpgate.policy.addresses import Prefixes
from smtpgate.policy.keys import compile_key
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.rules import Deny, Kind, Limit, Limiter, ReplyTemplate
from smtpgate.policy.select import Policy, Rule

SLOW = ReplyTemplate(450, "4.7.1", "rate limit {limit} ({rate}), retry in {retry}s")
STOP = ReplyTemplate(550, "5.7.1", "{limit} exhausted, {host}")
ANN = Facts("192.0.2.7", user="ann", login="ann", sender="a@b", sender_domain="b", time=0.0)
BOB = Facts("192.0.2.8", user="bob", login="bob", sender="a@b", sender_domain="b", time=0.0)
NOBODY = Facts("192.0.2.9", sender="a@b", sender_domain="b", time=0.0)


def limit(name: str, event: Event = Event.MAIL, *, key: str | None = None, **terms: Any) -> Limit:
    """A limit for each {user} at MAIL and later, for each {net} before. kind follows from what is given.

    deny: Deny, or its arguments as a dict. Other terms are those of Limit.
    """
    if key is None:
        key = "{net}" if event in (Event.CONNECT, Event.AUTH_FAIL) else "{user}"
    kind = terms.pop("kind", Kind.RATE if "rate" in terms else Kind.CONCURRENCY)
    deny = terms.pop("deny", {})
    if isinstance(deny, dict):
        deny = Deny(**{"reply": SLOW, **deny})
    for template in ("distinct", "overflow_key"):
        if template in terms:
            terms[template] = compile_key(terms[template], event, Prefixes(), distinct=template == "distinct")
    return Limit(name, event, kind, f"p.yaml:{name}", compile_key(key, event, Prefixes()), deny, **terms)


def policy(*limits: Limit, limiter: Limiter | None = None) -> Policy:
    """These limits for everybody."""
    rules: dict[Event, tuple[Rule, ...]] = {}
    for one in limits:
        rules[one.event] = (*rules.get(one.event, ()), Rule(one))
    return Policy(limiter=limiter or Limiter(), rules=rules)
