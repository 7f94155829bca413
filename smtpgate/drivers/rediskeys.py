"""The names of all that is kept in Redis, in one place for those who write it and those who read it.

`redisstore` and take.lua write the keys of limits; `quotas` shows, empties and removes them for an operator, who may
also read them with redis-cli. `liveredis` writes and reads those of the live board. The prefix in front (KEY_PREFIX
and a colon) is the `limits` storage's. Owns the spelling alone: what is counted, and how long a key lives, is theirs.

    smtpgate:tb:{rl}:<limit>:<subject>        hash   a token bucket: FIELDS, plain decimals
    smtpgate:tb:{rl}:<limit>/after:<subject>  hash   the same, counting the denials of an escalation
    smtpgate:cc:{rl}:<limit>:<subject>        zset   places taken: holder -> its deadline, Unix seconds
    smtpgate:ds:{rl}:<limit>:<subject>        zset   values seen of `distinct`: value -> until when, Unix seconds
    smtpgate:ban:{rl}:<subject>               string "<limit> <source>" of what banned; the TTL is the ban
    smtpgate:net:{rl}:<login>                 zset   networks that a login has come from

    smtpgate:report:{live}:<worker>           string JSON: what a worker says of itself (live.Report)
    smtpgate:workers:{live}                   zset   whose reports there are: worker -> Unix seconds
    smtpgate:orders:{live}                    hash   an operator's orders: <pool>/<backend> -> JSON (live.Order)

A worker is <node>/<pid>-<when it began>.
`{rl}` keeps all of them in one slot of a cluster, because one script decides over several at once. A limit's name
has neither ":" nor "/", and a subject's parts have no "{" and no "}" (policy.keys): no client can write another key.
`{live}` is another slot, so that reports need not go where decisions are made. All of it ends by itself, but orders.
"""

from __future__ import annotations

from typing import Final

KEY_PREFIX: Final = "smtpgate"

BUCKETS: Final = "tb:{rl}:"
SLOTS: Final = "cc:{rl}:"
DISTINCT: Final = "ds:{rl}:"
BANS: Final = "ban:{rl}:"
NETWORKS: Final = "net:{rl}:"

REPORTS: Final = "report:{live}:"
WORKERS: Final = "workers:{live}"
ORDERS: Final = "orders:{live}"

# Of a bucket's hash. tokens at the time ts (Unix seconds); rate (tokens a second) and cap of the last decision that
# wrote it; denied, the refusals since the key was made.
FIELDS: Final = ("tokens", "ts", "rate", "cap", "denied")


def name(limit: str, subject: str) -> str:
    """What stands behind BUCKETS, SLOTS and DISTINCT: a key as policy.store names it, without a prefix."""
    return f"{limit}:{subject}"


def split(text: str) -> tuple[str, str]:
    """The reverse of `name`: limit (with store.AFTER, if it has that) and subject."""
    limit, _, subject = text.partition(":")
    return limit, subject
