"""The real peers that other tests lean on: each starts, speaks, stops, and leaves no process behind."""

from __future__ import annotations

import imaplib
import os
import poplib
import signal
import smtplib
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from peers.dovecot import Dovecot
from peers.fixtures import StartHAProxy, StartNginx, StartPostfix, StartSink
from peers.process import HOST, Process, answers, free_port, require
from peers.redis import Redis
from peers.smtptools import smtp_source


def alone(process: Process) -> bool:
    """Nothing of the process is left, and nothing answers for it."""
    return not process.running and process.members() == []


# --- what all share ----------------------------------------------------------------------------------------


def test_ports_are_ours_and_never_given_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert HOST.startswith("127.")
    assert not any(answers(port) for port in ports[:3])


def test_stop_ends_children_that_do_not_listen(tmp_path: Path) -> None:
    """A child that ignores TERM, and a grandchild that its parent forgot, are gone after kill()."""
    script = "trap '' TERM; sleep 600 & echo ready; while :; do sleep 600; done"
    process = Process("stubborn", ["sh", "-c", script], tmp_path)
    while "ready" not in process.output():
        assert process.running
    assert len(process.members()) >= 2
    assert process.kill() == -signal.SIGKILL
    assert alone(process)


def test_a_program_that_fails_to_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    process = Process("broken", ["sh", "-c", "echo no such option >&2; exit 3"], tmp_path)
    with pytest.raises(pytest.fail.Exception, match="broken ended with status 3:\nno such option"):
        process.wait_for_port(free_port())


@pytest.mark.parametrize(("ci", "outcome"), [("true", "Failed"), ("", "Skipped")])
def test_a_missing_peer_skips_and_fails_in_ci(
    ci: str, outcome: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr("peers.process.PROGRAMS", {"some-package": "no-such-program"})
    with pytest.raises(BaseException) as caught:
        require("some-package")
    assert type(caught.value).__name__ == outcome
    assert "needs no-such-program of the Debian package some-package" in str(caught.value)


# --- each of them ------------------------------------------------------------------------------------------


def test_redis(redis_server: Redis) -> None:
    with socket.create_connection((HOST, redis_server.port), timeout=5) as client:
        client.sendall(b"SET a 1\r\nGET a\r\nDBSIZE\r\n")
        answer = b""
        while answer.count(b"\r\n") < 4:
            answer += client.recv(100)
    assert answer == b"+OK\r\n$1\r\n1\r\n:1\r\n"
    assert Path(redis_server.unix_uri.removeprefix("redis+unix://")).is_socket()
    assert redis_server.stop() == 0
    assert alone(redis_server)


def test_postfix_delivers_octet_by_octet(postfix: StartPostfix) -> None:
    [mta] = postfix()
    message = "Subject: näh\r\nX-Id: 1\r\n\r\n..dots\r\n.\r\n\ttab  \r\n" + "x" * 990 + "\r\n\r\nlast\r\n"
    with smtplib.SMTP(HOST, mta.port, timeout=10) as client:
        code, _ = client.ehlo("client.example")
        assert code == 250
        assert client.has_extn("xclient")
        client.sendmail("a@example.com", ["b@example.com", "c@example.org"], message.encode())
    delivered = mta.wait_for(2)
    assert [d.content for d in delivered] == [message.replace("\r\n", "\n").encode()] * 2
    assert {d.trace["delivered-to"] for d in delivered} == {"b@example.com", "c@example.org"}
    assert {d.trace["return-path"] for d in delivered} == {"<a@example.com>"}
    assert "from client.example (unknown [127.0.0.1])" in delivered[0].trace["received"]


def test_postfix_believes_xclient(postfix: StartPostfix) -> None:
    [mta] = postfix()
    with smtplib.SMTP(HOST, mta.port, timeout=10) as client:
        client.ehlo("proxy.example")
        assert client.docmd("XCLIENT", "ADDR=192.0.2.9 LOGIN=ann NAME=client.example")[0] == 220
        client.ehlo("client.example")
        client.sendmail("a@example.com", ["b@example.com"], b"Subject: x\r\n\r\nx\r\n")
    mta.wait_for(1)
    assert "client=client.example[192.0.2.9], sasl_method=XCLIENT, sasl_username=ann" in mta.log()


def test_postfix_twice_at_once_with_a_thousand_messages(postfix: StartPostfix) -> None:
    first, second = postfix(2)
    for mta in (first, second):
        done = smtp_source(mta.port, messages=500, sessions=20)
        assert (done.returncode, done.stderr) == (0, "")
    for mta in (first, second):
        assert len(mta.wait_for(500)) == 500
    assert "warning" not in first.log()
    masters = [first.master, second.master]
    first.stop()
    assert not answers(first.port)
    assert answers(second.port)
    second.stop()
    assert all(alone(master) for master in masters)
    assert first.count() == 500
    first.remove()
    assert not first.folder.exists()


def test_postfix_hangs_dies_and_comes_back(postfix: StartPostfix) -> None:
    [mta] = postfix()
    mta.master.pause()
    with socket.create_connection((HOST, mta.port), timeout=0.3) as client, pytest.raises(TimeoutError):
        client.recv(100)
    mta.master.resume()
    master = mta.master
    with socket.create_connection((HOST, mta.port), timeout=10) as client:
        assert client.recv(100) == b"220 mta1.example.net ESMTP Postfix\r\n"
        mta.kill()
        assert client.recv(100) == b""
    assert alone(master)
    assert not answers(mta.port)
    mta.start()
    assert smtp_source(mta.port, messages=1, sessions=1).returncode == 0
    mta.wait_for(1)


def test_postfix_takes_options(postfix: StartPostfix) -> None:
    refused = "inline:{{no@example.com=550 5.1.1 nobody}}"
    [mta] = postfix(main={"smtpd_recipient_restrictions": f"check_recipient_access {refused}, permit"})
    assert mta.postconf("mynetworks") == "127.0.0.0/8"
    with smtplib.SMTP(HOST, mta.port, timeout=10) as client:
        client.ehlo()
        client.mail("a@example.com")
        assert client.rcpt("no@example.com") == (
            550,
            b"5.1.1 <no@example.com>: Recipient address rejected: nobody",
        )
        assert client.rcpt("yes@example.com") == (250, b"2.1.5 Ok")


def test_nginx_mail(nginx_mail: StartNginx, smtp_sink: StartSink) -> None:
    """The whole of nginx's mail proxy: auth_http answers from the same nginx, the backend is smtp-sink."""
    backend = smtp_sink()
    port, http = free_port(), free_port()
    answer = f'add_header Auth-Status OK; add_header Auth-Server {HOST}; add_header Auth-Port "{backend.port}";'
    server = nginx_mail(
        f"""
        server_name mx.example.com;
        auth_http {HOST}:{http}/auth;
        server {{
            listen {HOST}:{port};
            protocol smtp;
            smtp_auth plain login;
            xclient off;
        }}
        """,
        port,
        f"server {{ listen {HOST}:{http}; location /auth {{ {answer} return 200; }} }}",
    )
    with urllib.request.urlopen(f"http://{HOST}:{http}/auth", timeout=5) as response:
        assert response.headers["Auth-Port"] == str(backend.port)
    with smtplib.SMTP(HOST, port, timeout=10) as client:
        client.login("test", "1234")
        assert client.sendmail("a@example.com", ["b@example.com"], b"Subject: x\r\n\r\nx\r\n") == {}
    assert "client logged in, client: 127.0.0.1" in server.log()
    assert server.stop() == 0
    assert alone(server)


def test_dovecot(dovecot: Dovecot) -> None:
    for user, password in (("test", "1234"), ("test2", "password")):
        pop3 = poplib.POP3(HOST, dovecot.pop3, timeout=10)
        pop3.user(user)
        assert pop3.pass_(password) == b"+OK Logged in."
        assert f"Subject: mail of {user}".encode() in pop3.retr(1)[1]
        pop3.quit()
        with imaplib.IMAP4(HOST, dovecot.imap, timeout=10) as imap:
            assert imap.login(user, password)[0] == "OK"
            assert imap.select() == ("OK", [b"1"])
    with imaplib.IMAP4(HOST, dovecot.imap, timeout=10) as imap, pytest.raises(imaplib.IMAP4.error, match="AUTHENT"):
        imap.login("test", "password")
    dovecot.remove()
    assert alone(dovecot.process)
    assert not dovecot.folder.exists()


def test_haproxy(haproxy: StartHAProxy, smtp_sink: StartSink) -> None:
    backend = smtp_sink()
    port = free_port()
    server = haproxy(f"listen smtp\n    bind {HOST}:{port}\n    server sink {HOST}:{backend.port}", port)
    with smtplib.SMTP(HOST, port, timeout=10) as client:
        assert client.noop() == (250, b"2.0.0 Ok")
    server.stop()
    assert alone(server)


def test_smtp_source_and_sink(smtp_sink: StartSink) -> None:
    sink = smtp_sink()
    assert smtp_source(sink.port, messages=200).returncode == 0
    refusing = smtp_sink("-f", "RCPT")
    refused = smtp_source(refusing.port, messages=1, sessions=1)
    assert refused.returncode != 0
    assert "recipient rejected: 500 5.3.0" in refused.stderr
    for server in (sink, refusing):
        server.stop()
        assert alone(server)


@pytest.mark.peer("swaks")
def test_swaks(smtp_sink: StartSink) -> None:
    sink = smtp_sink()
    argv = [
        require("swaks"),
        "--server",
        f"{HOST}:{sink.port}",
        "--from",
        "a@example.com",
        "--to",
        "b@example.com",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode == 0
    assert "\n<-  250 2.0.0 Ok\n" in done.stdout
