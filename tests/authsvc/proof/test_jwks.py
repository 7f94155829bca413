from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from authsvc.proof import jwks
from authsvc.proof.jwks import FetchError, Jwks, KeysUnavailableError, fetch_url, open_jwks, read_keys

EC = ECKey.generate_key("P-256", {"kid": "ec"})
OTHER = ECKey.generate_key("P-256", {"kid": "other"})
WEAK_MODULUS = (
    "wN2aaxucsL3F_-3Ebco1MCNvc4v8NOSJvvsqKa97L90HcMKvbGchS_4p7GgzjtOo6SF4jx_pAmDudzaU8YoVKKDLfd"
    "vzQdfzYJ2PkBcunFPmAGwChtr_E5ooefVWfm3nltnIvnWTwL3H9qhweL47kLhEWi9akjpD-UwnXYkVock"
)


def text_of(*keys: object) -> bytes:
    return json.dumps(
        {"keys": [key if isinstance(key, dict) else key.as_dict(private=False) for key in keys]}
    ).encode()


def names(text: bytes) -> list[str | None]:
    return [key.kid for key in read_keys(text).keys]


# --- which keys -----------------------------------------------------------------------------------------------


def test_public_keys_for_signatures_are_taken() -> None:
    rsa = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
    okp = OKPKey.generate_key("Ed25519", {"kid": "ed"})
    assert names(text_of(rsa, EC, okp)) == ["rsa", "ec", "ed"]


@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param(OctKey.generate_key(256, {"kid": "x"}).as_dict(private=True), id="symmetric"),
        # openssl genrsa 1024, its modulus
        pytest.param({"kty": "RSA", "kid": "x", "e": "AQAB", "n": WEAK_MODULUS}, id="RSA below 2048"),
        pytest.param(ECKey.generate_key("P-256", {"kid": "x", "use": "enc"}), id="for encryption"),
        pytest.param({"kty": "AKP", "kid": "x", "alg": "ML-DSA-44", "pub": "AAAA"}, id="type of tomorrow"),
        pytest.param({"kty": "EC", "kid": "x", "crv": "P-256", "x": "AAAA", "y": "AAAA"}, id="not on the curve"),
        pytest.param({"kty": "RSA", "kid": "x"}, id="without numbers"),
        pytest.param({"kid": "x"}, id="without a type"),
        pytest.param({"kty": ["EC"], "kid": "x"}, id="type that is a list"),
    ],
)
def test_other_keys_are_left_out(left_out: object) -> None:
    assert names(text_of(left_out, EC)) == ["ec"]
    with pytest.raises(FetchError, match="no key for signatures among the keys"):
        read_keys(text_of(left_out))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r'not a JWKS; expected {"keys": \[...\]}'),
        (b"<html>", "not a JWKS"),
        (b"[]", "not a JWKS"),
        (b"\xff", "not a JWKS"),
        (b"[" * 100_000, "not a JWKS"),
        (b'{"keys": {}}', "expected a list of at most 64 keys"),
        (b'{"keys": [1]}', "no key for signatures"),
        (b'{"keys": [' + b"1," * 64 + b"1]}", "expected a list of at most 64 keys"),
        (b" " * (jwks.MAX_TEXT + 1), "more than 262144 octets"),
    ],
)
def test_what_is_no_jwks(text: bytes, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        read_keys(text)


# --- when it is fetched ---------------------------------------------------------------------------------------


class Source:
    """What a fetch gives: a text or a fault. Counts fetches."""

    def __init__(self, now: bytes | FetchError) -> None:
        self.now = now
        self.fetches = 0

    def __call__(self) -> bytes:
        self.fetches += 1
        gevent.sleep(0)
        if isinstance(self.now, FetchError):
            raise self.now
        return self.now


@pytest.fixture
def source() -> Source:
    return Source(text_of(EC))


@pytest.fixture
def keys(source: Source, clock, journal) -> Jwks:
    return Jwks(source, clock, journal, source="https://a.example/jwks", lifetime=300.0)


def kids(keys: Jwks) -> list[str | None]:
    return [key.kid for key in keys.keys().keys]


def test_one_fetch_in_a_lifetime(keys: Jwks, source: Source, clock) -> None:
    assert source.fetches == 0
    assert kids(keys) == kids(keys) == ["ec"]
    clock.sleep(299)
    source.now = text_of(OTHER)
    assert (kids(keys), source.fetches) == (["ec"], 1)
    clock.sleep(1)
    assert (kids(keys), source.fetches) == (["other"], 2)


def test_many_who_ask_at_once_wait_for_one_fetch(keys: Jwks, source: Source) -> None:
    asking = [gevent.spawn(kids, keys) for _ in range(20)]
    gevent.joinall(asking, timeout=10, raise_error=True)
    assert [one.value for one in asking] == [["ec"]] * 20
    assert source.fetches == 1


def test_who_asks_while_old_keys_are_renewed_takes_these(keys: Jwks, source: Source, clock) -> None:
    kids(keys)
    clock.sleep(300)
    source.now = text_of(OTHER)
    first, second = gevent.spawn(kids, keys), gevent.spawn(kids, keys)
    gevent.joinall([first, second], timeout=10, raise_error=True)
    assert (first.value, second.value, source.fetches) == (["other"], ["ec"], 2)


def test_an_issuers_bad_day_is_not_ours(keys: Jwks, source: Source, clock, journal) -> None:
    kids(keys)
    source.now = FetchError("no answer in 3 s")
    for _ in range(20):
        clock.sleep(300)
        assert kids(keys) == ["ec"]
    assert not keys.valid
    events = [(level, event) for level, event, _ in journal.lines]
    assert events == [("info", "oauth_keys_loaded"), ("error", "oauth_keys_rejected")]
    assert journal.lines[1][2] == {"source": "https://a.example/jwks", "reason": "no answer in 3 s"}
    clock.sleep(jwks.MAX_STALE)
    with pytest.raises(KeysUnavailableError, match=r"no keys from https://a.example/jwks: no answer in 3 s"):
        keys.keys()
    source.now = text_of(OTHER)
    clock.sleep(jwks.MIN_INTERVAL)
    assert kids(keys) == ["other"]
    assert keys.valid


def test_without_any_keys_a_failure_is_not_repeated_for_each_token(keys: Jwks, source: Source, clock) -> None:
    source.now = FetchError("cannot be fetched: refused")
    for _ in range(3):
        with pytest.raises(KeysUnavailableError, match="cannot be fetched: refused"):
            keys.keys()
    assert source.fetches == 1
    clock.sleep(10)
    source.now = text_of(EC)
    assert kids(keys) == ["ec"]


def test_who_asks_while_the_first_fetch_fails_hears_of_it(keys: Jwks, source: Source) -> None:
    source.now = FetchError("cannot be fetched: refused")
    heard: list[str] = []

    def ask() -> None:
        with pytest.raises(KeysUnavailableError) as caught:
            keys.keys()
        heard.append(str(caught.value))

    gevent.joinall([gevent.spawn(ask) for _ in range(3)], timeout=10, raise_error=True)
    assert heard == ["no keys from https://a.example/jwks: cannot be fetched: refused"] * 3
    assert source.fetches == 1


def test_an_unknown_key_makes_them_be_fetched_but_not_by_every_token(keys: Jwks, source: Source, clock) -> None:
    kids(keys)
    source.now = text_of(EC, OTHER)
    assert not keys.renew()
    clock.sleep(10)
    assert keys.renew()
    assert kids(keys) == ["ec", "other"]
    assert [keys.renew() for _ in range(5)] == [False] * 5
    assert source.fetches == 2


# --- files and URLs -------------------------------------------------------------------------------------------


def test_a_file_is_read_anew_when_it_changes(tmp_path: Path, clock, journal) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(text_of(EC))
    keys = open_jwks(path, clock, journal)
    assert kids(keys) == ["ec"]
    path.write_bytes(text_of(OTHER))
    clock.sleep(1)
    assert kids(keys) == ["other"]
    path.write_text("{")
    clock.sleep(1)
    assert kids(keys) == ["other"]
    path.unlink()
    clock.sleep(1)
    assert kids(keys) == ["other"]
    assert [fields.get("reason") for _, _, fields in journal.lines[2:]] == [
        'not a JWKS; expected {"keys": [...]}',
        "cannot be read: No such file or directory",
    ]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = {"/jwks?a=b": 200, "/big": 200, "/moved": 302}.get(self.path, 404)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/jwks?a=b")
        self.end_headers()
        self.wfile.write(b"x" * (jwks.MAX_TEXT + 10) if self.path == "/big" else text_of(EC))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_keys_from_a_url(server: str, clock, journal) -> None:
    assert kids(open_jwks(f"{server}/jwks?a=b", clock, journal)) == ["ec"]
    assert journal.lines == [("info", "oauth_keys_loaded", {"source": f"{server}/jwks", "keys": 1})]


@pytest.mark.parametrize(
    ("path", "message"), [("/moved", "answered with status 302; expected 200"), ("/gone", "answered with status 404")]
)
def test_a_url_that_gives_none(server: str, path: str, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        fetch_url(server + path)


def test_of_a_big_answer_no_more_is_read_than_is_refused(server: str) -> None:
    assert len(fetch_url(server + "/big")) == jwks.MAX_TEXT + 1


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(FetchError, match=r"cannot be fetched: .*refused"):
        fetch_url("http://127.0.0.1:1/jwks")


def test_a_server_without_a_good_certificate(server: str) -> None:
    with pytest.raises(FetchError, match="cannot be fetched: "):
        fetch_url(server.replace("http:", "https:") + "/jwks")


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(FetchError, match=r"timed out|no answer in"):
            fetch_url(f"http://127.0.0.1:{silent.getsockname()[1]}/jwks")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"cannot be read: Is a directory"):
        jwks.read_file(tmp_path)
