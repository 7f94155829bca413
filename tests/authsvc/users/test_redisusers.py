from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import redis
from certificates import make_certificates
from peers.process import HOST, Process, free_port, require, wait_until
from peers.redis import Redis

from authsvc.users import redisusers
from authsvc.users.model import StoreDownError, User
from authsvc.users.redisusers import RedisUsers
from authsvc.users.sources import RedisSource
from authsvc.users.userrecord import RecordError

pytestmark = pytest.mark.peer("redis-server")

CRAM_MD5 = "{CRAM-MD5}fab7bd1b4b04fae0dcaacc5d57aa331864db11efe527e9f96ed6a0ce3e134302"
TEST = User("test", ("{SSHA}a", CRAM_MD5), "gold", "bulk", enabled=False)


@pytest.fixture
def client(redis_server: Redis):
    with redis.Redis.from_url(redis_server.uri, decode_responses=True) as client:
        yield client


@pytest.fixture
def users(redis_server: Redis) -> RedisUsers:
    return RedisUsers(RedisSource(redis_server.uri))


def test_a_hash_that_an_operator_wrote(users: RedisUsers, client: redis.Redis) -> None:
    fields = {"password": "{SSHA}a  {SSHA}b", "cram_md5": CRAM_MD5, "plan": "gold", "enabled": "no", "note": "x"}
    client.hset("smtpgate:user:jürgen", mapping=fields)
    assert users.find("jürgen") == User("jürgen", ("{SSHA}a", "{SSHA}b", CRAM_MD5), "gold", enabled=False)
    client.hset("smtpgate:user:a", mapping={"name": "b"})
    assert users.find("a") == User("a")
    assert [users.find(name) for name in ("Jürgen", "jürgen ", "*", "", "user:jürgen")] == [None] * 5


def test_the_hash_that_is_written(users: RedisUsers, client: redis.Redis) -> None:
    client.hset("smtpgate:user:test", mapping={"note": "kept", "plan": "old", "cram_md5": "old"})
    users.put(TEST)
    written = {"password": "{SSHA}a", "cram_md5": CRAM_MD5, "plan": "gold", "pool": "bulk", "enabled": "0"}
    assert client.hgetall("smtpgate:user:test") == {"note": "kept", **written}
    users.put(User("test"))
    assert client.hgetall("smtpgate:user:test") == {"note": "kept", "password": "", "enabled": "1"}


def test_a_user_is_removed(users: RedisUsers) -> None:
    users.put(TEST)
    assert users.remove("test")
    assert not users.remove("test")
    assert users.find("test") is None


def test_an_upgrade_takes_the_place_of_what_was_found_and_of_nothing_else(users: RedisUsers) -> None:
    users.put(TEST)
    after = replace(TEST, passwords=("{ARGON2ID}b", CRAM_MD5))
    assert not users.upgrade(replace(TEST, enabled=True), after)
    assert not users.upgrade(User("other"), User("other", ("{SSHA}a",)))
    assert users.find("test") == TEST
    assert users.find("other") is None
    assert users.upgrade(TEST, after)
    assert users.find("test") == after


def test_a_change_between_the_look_and_the_upgrade_wins(users: RedisUsers, client: redis.Redis, monkeypatch) -> None:
    users.put(TEST)
    write = users._write

    def interrupted(pipeline: object, user: User) -> None:
        client.hset("smtpgate:user:test", "plan", "new")
        write(pipeline, user)

    monkeypatch.setattr(users, "_write", interrupted)
    assert not users.upgrade(TEST, replace(TEST, passwords=("{ARGON2ID}b",)))
    assert users.find("test") == replace(TEST, plan="new")


def test_names_are_those_below_the_prefix_to_the_letter(redis_server: Redis, client: redis.Redis) -> None:
    users = RedisUsers(RedisSource(redis_server.uri, "a[b]*:"))
    many = {f"user{number}@example.com" for number in range(2500)}
    for name in many:
        users.put(User(name))
    client.hset("ab:other", mapping={"password": "x"})
    assert set(users.names()) == many
    assert users.find("user7@example.com") == User("user7@example.com")


def test_a_key_of_another_type_and_a_value_that_means_nothing(users: RedisUsers, client: redis.Redis) -> None:
    client.set("smtpgate:user:text", "x")
    with pytest.raises(StoreDownError, match="WRONGTYPE"):
        users.find("text")
    client.hset("smtpgate:user:test", mapping={"plan": "a b"})
    with pytest.raises(RecordError, match="plan is not a name"):
        users.find("test")


def test_the_password_of_a_source(redis_server: Redis, client: redis.Redis, users: RedisUsers) -> None:
    client.config_set("requirepass", "päss:@/ word")
    with pytest.raises(StoreDownError, match="Authentication required"):
        users.find("test")
    RedisUsers(RedisSource(redis_server.uri, password="päss:@/ word")).ping()
    client.config_set("requirepass", "")


def test_the_unix_socket(redis_server: Redis, users: RedisUsers) -> None:
    users.put(TEST)
    assert RedisUsers(RedisSource(redis_server.unix_uri)).find("test") == TEST


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_nobody_there(scheme: str) -> None:
    users = RedisUsers(RedisSource(f"{scheme}://127.0.0.1:{free_port()}/0"))
    for question in (users.ping, lambda: users.find("test"), lambda: users.put(TEST), lambda: list(users.names())):
        with pytest.raises(StoreDownError, match="ConnectionError"):
            question()


def test_a_redis_that_hangs_is_waited_for_for_a_bounded_time_and_used_again(redis_server: Redis) -> None:
    users = RedisUsers(RedisSource(redis_server.uri), timeout=0.2)
    users.put(TEST)
    redis_server.pause()
    with pytest.raises(StoreDownError, match="Timeout"):
        users.find("test")
    redis_server.resume()
    assert users.find("test") == TEST


def test_beyond_what_may_ask_at_once_one_waits_and_is_told(redis_server: Redis, monkeypatch) -> None:
    monkeypatch.setattr(redisusers, "MAX_ASKING", 1)
    users = RedisUsers(RedisSource(redis_server.uri), timeout=0.2)
    users.put(TEST)
    with (
        users._asking(),
        pytest.raises(StoreDownError, match=r"^1 questions are under way, and none ended in 0\.2 s$"),
    ):
        users.find("test")
    assert users.find("test") == TEST


def test_behind_sentinels_the_master_is_asked(redis_server: Redis, tmp_path: Path, users: RedisUsers) -> None:
    users.put(TEST)
    port = free_port()
    (tmp_path / "sentinel.conf").write_text(
        f"bind {HOST}\nport {port}\nprotected-mode no\nsentinel monitor mail {HOST} {redis_server.port} 1\n"
    )
    sentinel = Process("sentinel", [require("redis-server"), str(tmp_path / "sentinel.conf"), "--sentinel"], tmp_path)
    try:
        sentinel.wait_for_port(port)
        behind = RedisUsers(RedisSource(f"redis+sentinel://{HOST}:{free_port()},{HOST}:{port}/mail"))
        assert behind.find("test") == TEST
        behind.put(User("other"))
        behind.close()
        assert users.find("other") == User("other")
        unknown = RedisUsers(RedisSource(f"valkey+sentinel://{HOST}:{port}/other"))
        with pytest.raises(StoreDownError, match="MasterNotFoundError"):
            unknown.ping()
    finally:
        sentinel.stop()


def test_over_tls_with_a_certificate_of_our_own(tmp_path: Path) -> None:
    port, certificates = free_port(), make_certificates(tmp_path)
    cert, key = certificates.server
    options = {"tls-port": port, "tls-cert-file": cert, "tls-key-file": key, "tls-ca-cert-file": certificates.ca}
    options |= {"bind": HOST, "port": 0, "save": "", "dir": tmp_path, "protected-mode": "no"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    server = Process("redis", [require("redis-server"), *words], tmp_path)
    try:
        server.wait_for_port(port)
        uri = f"rediss://{HOST}:{port}/0?ssl_ca_certs={certificates.ca}"
        mine = f"&ssl_certfile={certificates.client[0]}&ssl_keyfile={certificates.client[1]}"
        users = RedisUsers(RedisSource(uri + mine))
        users.put(TEST)
        assert users.find("test") == TEST
        users.close()
        for refused in (uri, f"rediss://{HOST}:{port}/0?{mine[1:]}"):
            with pytest.raises(StoreDownError, match="ConnectionError"):
                RedisUsers(RedisSource(refused)).find("test")
    finally:
        server.stop()


def test_a_cluster(tmp_path: Path) -> None:
    """It may come up later: nothing is asked before the first look-up."""
    port = free_port()
    options = {"cluster-enabled": "yes", "cluster-port": free_port(), "save": "", "dir": tmp_path, "bind": HOST}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    node = Process(
        "cluster", [require("redis-server"), "--port", str(port), "--protected-mode", "no", *words], tmp_path
    )
    users = RedisUsers(RedisSource(f"redis+cluster://{HOST}:{port}"))
    try:
        node.wait_for_port(port)
        with redis.Redis(HOST, port) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
            wait_until(lambda: client.cluster("INFO")["cluster_state"] == "ok", "the cluster is up")
        users.put(TEST)
        users.put(User("{a}b"))
        assert users.find("test") == TEST
        after = replace(TEST, passwords=("{ARGON2ID}b", CRAM_MD5))
        assert not users.upgrade(replace(TEST, enabled=True), after)
        assert users.upgrade(TEST, after)
        assert (users.find("test"), users.remove("{a}b"), list(users.names())) == (after, True, ["test"])
        node.stop()
        with pytest.raises(StoreDownError):
            users.find("test")
    finally:
        users.close()
        node.stop()


@pytest.mark.parametrize(
    "uri",
    ["redis://h:x/0", "redis://h/0?hunter2=1", "redis://h/0?socket_timeout=hunter2", "redis+cluster://:hunter2@h"],
)
def test_a_uri_that_cannot_be_read(uri: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read; expected e\.g\. redis://") as caught:
        RedisUsers(RedisSource(uri))
    assert "hunter2" not in str(caught.value)
