"""What counts as the same question, for how long, and how many."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes import ManualClock

from smtpgate.drivers.authcache import GrantCache
from smtpgate.session.ports import AuthGranted, AuthQuery
from smtpgate.session.streams import ClientCertificate, Peer, TlsInfo

QUERY = AuthQuery(
    method="plain",
    attempt=1,
    peer=Peer("192.0.2.7", 40000, "192.0.2.1", 25),
    client_host="[UNAVAILABLE]",
    user=b"ann",
    password=b"hunter2",
    tls=TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", certificate=ClientCertificate("SUCCESS", "CN=a", pem=b"PEM")),
    proxied=Peer("192.0.2.7", 40000, "192.0.2.1", 25),
)
GRANTED = AuthGranted(user="ann", pool="core")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(clock: ManualClock) -> GrantCache:
    cache = GrantCache(clock, 30.0, b"k" * 32)
    cache.keep(QUERY, GRANTED, 60.0, cache.epoch)
    return cache


@pytest.mark.parametrize(
    "query",
    [
        QUERY,
        replace(QUERY, attempt=7),
        replace(QUERY, peer=Peer("192.0.2.7", 41000, "192.0.2.1", 25)),
        replace(QUERY, proxied=Peer("192.0.2.7", 41000, "192.0.2.1", 25)),
    ],
    ids=["same", "attempt", "port", "port behind PROXY"],
)
def test_the_same_question(cache: GrantCache, query: AuthQuery) -> None:
    assert cache.find(query) == GRANTED


@pytest.mark.parametrize(
    "query",
    [
        replace(QUERY, user=b"Ann"),
        replace(QUERY, password=b"hunter"),
        replace(QUERY, user=b"annhunter2", password=b""),
        replace(QUERY, peer=Peer("192.0.2.8", 40000, "192.0.2.1", 25)),
        replace(QUERY, client_host="mail.client.example"),
        replace(QUERY, tls=None),
        replace(QUERY, tls=TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
        replace(QUERY, tls=replace(QUERY.tls, certificate=ClientCertificate("SUCCESS", "CN=a", pem=b"OTHER"))),
        replace(QUERY, proxied=None),
        replace(QUERY, proxied=Peer("192.0.2.9", 40000, "192.0.2.1", 25)),
        replace(QUERY, proxied=Peer("192.0.2.7", 40000, "192.0.2.2", 25)),
    ],
    ids=[
        *("user", "password", "split elsewhere", "address", "host name", "no TLS", "no certificate"),
        *("another certificate", "no PROXY header", "address behind PROXY", "server behind PROXY"),
    ],
)
def test_another_question(cache: GrantCache, query: AuthQuery) -> None:
    assert cache.find(query) is None


@pytest.mark.parametrize("method", ["cram-md5", "xoauth2", "oauthbearer", "external", "none"])
def test_methods_whose_grants_are_not_kept(cache: GrantCache, method: str) -> None:
    query = replace(QUERY, method=method)
    cache.keep(query, GRANTED, 60.0, cache.epoch)
    assert (cache.find(query), len(cache)) == (None, 1)


@pytest.mark.parametrize(("lifetime", "kept"), [(60.0, 30.0), (30.0, 30.0), (5.0, 5.0)])
def test_the_shorter_of_two_times_counts(clock: ManualClock, lifetime: float, kept: float) -> None:
    cache = GrantCache(clock, 30.0, b"k" * 32)
    cache.keep(QUERY, GRANTED, lifetime, cache.epoch)
    clock.sleep(kept - 0.001)
    assert cache.find(QUERY) == GRANTED
    clock.sleep(0.001)
    assert (cache.find(QUERY), len(cache)) == (None, 0)


@pytest.mark.parametrize(("longest", "lifetime"), [(0.0, 60.0), (30.0, 0.0)])
def test_nothing_is_kept_that_both_sides_do_not_want(clock: ManualClock, longest: float, lifetime: float) -> None:
    cache = GrantCache(clock, longest, b"k" * 32)
    cache.keep(QUERY, GRANTED, lifetime, cache.epoch)
    assert (cache.find(QUERY), len(cache)) == (None, 0)


def test_the_oldest_makes_room(clock: ManualClock) -> None:
    cache = GrantCache(clock, 30.0, b"k" * 32, size=3)
    queries = [replace(QUERY, user=b"%d" % n) for n in range(4)]
    for query in (*queries[:3], queries[0], queries[3]):  # the first one twice: it is younger than the second
        cache.keep(query, GRANTED, 60.0, cache.epoch)
    assert [cache.find(query) is not None for query in queries] == [True, False, True, True]
    assert len(cache) == 3


def test_what_is_forgotten_is_asked_for_again(cache: GrantCache) -> None:
    epoch = cache.epoch
    cache.forget()
    assert cache.find(QUERY) is None
    cache.keep(QUERY, GRANTED, 60.0, epoch)  # asked before, answered after
    assert cache.find(QUERY) is None
    cache.keep(QUERY, GRANTED, 60.0, cache.epoch)
    assert cache.find(QUERY) == GRANTED


def test_no_password_is_kept(cache: GrantCache) -> None:
    assert b"hunter2" not in b"".join(cache._grants)
    assert {len(key) for key in cache._grants} == {32}
    other = GrantCache(ManualClock(), 30.0, b"K" * 32)
    other.keep(QUERY, GRANTED, 60.0, other.epoch)
    assert set(cache._grants).isdisjoint(other._grants)


def test_after_a_refusal_the_service_is_asked_about_that_user_at_that_address(
    cache: GrantCache, clock: ManualClock
) -> None:
    """Else a throttled client would find the right password by its being let in, as often as it likes to guess."""
    elsewhere = replace(QUERY, peer=replace(QUERY.peer, host="192.0.2.8"))
    somebody = replace(QUERY, user=b"bob")
    for query in (elsewhere, somebody):
        cache.keep(query, GRANTED, 60.0, cache.epoch)
    cache.refuse(replace(QUERY, password=b"guess", peer=replace(QUERY.peer, port=41000), tls=None))
    assert [cache.find(query) for query in (QUERY, elsewhere, somebody)] == [None, GRANTED, GRANTED]
    # A grant that is kept now was asked for while the service counted.
    clock.sleep(10.0)
    cache.keep(QUERY, GRANTED, 60.0, cache.epoch)
    assert cache.find(QUERY) is None
    clock.sleep(20.0)
    assert cache.find(QUERY) == GRANTED


def test_refusals_are_remembered_within_bounds(clock: ManualClock) -> None:
    cache = GrantCache(clock, 30.0, b"k" * 32, size=2)
    queries = [replace(QUERY, user=b"%d" % n) for n in range(3)]
    for query in queries:
        cache.refuse(query)
    cache.keep(queries[0], GRANTED, 60.0, cache.epoch)
    cache.keep(queries[2], GRANTED, 60.0, cache.epoch)
    assert [cache.find(query) for query in (queries[0], queries[2])] == [GRANTED, None]
    assert len(cache._refused) == 2
