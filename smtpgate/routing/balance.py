"""Which of several backends that may all be used: the four ways of `balance`.

Owns the arithmetic: nginx's smooth weighted round robin, least connections by weight, two random choices, and a
consistent hash with bounded load. Each takes the loads that stand for election and returns one of them. Refuses to
know who may stand (health, max_conns and what was tried are the pool's matter); chance is an argument.

The hash is weighted rendezvous (highest random weight) and not a ring: it keeps no state that an edit would have to
rebuild, its shares are those of the weights without virtual nodes, and a backend that goes moves its own keys and no
others. It asks each backend once for each choice, which is nothing for the tens of backends that a pool has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from smtpgate.routing.model import Balance

# Steps of one unit of weight, so that a backend of weight 1 can start slowly too: HAProxy's BE_WEIGHT_SCALE.
WEIGHT_SCALE: Final = 16
# Percent of its fair share that a backend may have before the hash passes it over: HAProxy's hash-balance-factor, in
# the middle of the 125 to 200 that its manual suggests for it.
HASH_BALANCE_FACTOR: Final = 125


@dataclass(slots=True)
class Load:
    """A backend as balancing sees it. conns: sessions now. weight: its weight now, in 1 / WEIGHT_SCALE, at least 1.
    current: nginx's current_weight.
    """

    name: str
    conns: int = 0
    weight: int = WEIGHT_SCALE
    current: int = 0


def choose(balance: Balance, loads: Sequence[Load], hash_key: str | None, chance: float) -> Load:
    """One of `loads`, of which there is at least one.

    hash_key: for Balance.HASH; a session that has none (nobody logged in) goes by round robin. chance: drawn evenly
    from [0, 1), for Balance.RANDOM2.
    """
    if len(loads) == 1:
        return loads[0]
    if balance is Balance.LEAST_CONN:
        return smooth_round_robin(least_loaded(loads))
    if balance is Balance.RANDOM2:
        return better_of_two(loads, chance)
    if balance is Balance.HASH and hash_key is not None:
        return bounded_rendezvous(loads, hash_key)
    return smooth_round_robin(loads)


def smooth_round_robin(loads: Sequence[Load]) -> Load:
    """One step of nginx's smooth weighted round robin (ngx_http_upstream_get_peer).

    Every candidate gains its weight, the richest wins (the first of equals) and pays what all gained
    together. Over any run as long as the sum of weights each is chosen exactly weight times, and 10/10/2
    alternates instead of sending ten in a row.
    """
    for load in loads:
        load.current += load.weight
    winner = max(loads, key=lambda load: load.current)
    winner.current -= sum(load.weight for load in loads)
    return winner


def least_loaded(loads: Sequence[Load]) -> list[Load]:
    """All that share the lowest conns / weight. Compared by cross products: equal loads are exactly equal."""
    best = [loads[0]]
    for load in loads[1:]:
        this, lowest = load.conns * best[0].weight, best[0].conns * load.weight
        if this < lowest:
            best = [load]
        elif this == lowest:
            best.append(load)
    return best


def better_of_two(loads: Sequence[Load], chance: float) -> Load:
    """Two different ones at random, by weight; of them the one with the lower conns / weight, the first if level.

    nginx's `random two least_conn` (ngx_http_upstream_get_random2_peer). Many proxies that each see only their own
    sessions do not rush to the same idle backend, as with least_conn they would.
    """
    first, rest = _draw(loads, chance)
    second, _ = _draw([load for load in loads if load is not first], rest)
    return second if second.conns * first.weight < first.conns * second.weight else first


def _draw(loads: Sequence[Load], chance: float) -> tuple[Load, float]:
    """One of `loads` by weight, and what is left of the chance: again even in [0, 1), and independent."""
    left = chance * sum(load.weight for load in loads)
    for load in loads:
        if left < load.weight:
            return load, left / load.weight
        left -= load.weight
    return loads[-1], 0.0  # the product was rounded up to the whole sum


def bounded_rendezvous(loads: Sequence[Load], key: str) -> Load:
    """The backend that `key` prefers, of those that hold less than HASH_BALANCE_FACTOR percent of their fair share.

    "Consistent hashing with bounded loads" (Mirrokni, Thorup, Zadimoghaddam, 2016). While nobody is overloaded a key
    keeps its backend, whoever else comes or goes. At least one is always below its bound, since the bounds add up
    to more sessions than there are.
    """
    conns = sum(load.conns for load in loads) + 1  # with the one that is placed now
    weight = sum(load.weight for load in loads)
    bound = HASH_BALANCE_FACTOR * conns
    room = [load for load in loads if 100 * load.conns * weight < bound * load.weight]
    return max(room, key=lambda load: _score(load, key))


def _score(load: Load, key: str) -> float:
    """-weight / ln(h) with h even in (0, 1): the highest wins with a probability of weight / sum of weights
    (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005).
    """
    text = f"{load.name}\0{key}".encode("utf-8", "surrogateescape")
    digest = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    # 52 of 64 bits and a half: what a float holds exactly, never 0 and never 1.
    return -load.weight / math.log(((digest >> 12) + 0.5) / (1 << 52))
