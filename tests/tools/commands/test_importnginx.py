"""tools.{nginxconf,importnginx,importtls,proxyyaml}: each directive, inheritance, what is shared, the text that comes
out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.commands import nginxconf
from tools.commands.importnginx import Imported, NothingToImport, Remark, convert
from tools.commands.proxyyaml import render


def imported(folder: Path, text: str, **files: str) -> Imported:
    path = folder / "nginx.conf"
    path.write_text(text)
    for name, content in files.items():
        (folder / f"{name}.conf").write_text(content)
    return convert(nginxconf.read(path), folder=folder, hostname="host.example.com")


def server(
    folder: Path, directives: str, mail: str = "auth_http 127.0.0.1:9000/auth;"
) -> tuple[Imported, dict[str, Any]]:
    result = imported(folder, f"mail {{\n{mail}\nserver {{\nlisten 25;\n{directives}\n}}\n}}\n")
    return result, result.listeners[0]


def told(result: Imported) -> list[str]:
    return [remark.text for remark in result.remarks]


MINIMAL = {"name": "smtp-25", "bind": "0.0.0.0:25", "auth": ["plain", "login"], "capabilities": [], "tls": "off"}


def test_the_least_that_nginx_starts_with(tmp_path: Path) -> None:
    result, listener = server(tmp_path, "")
    assert listener == MINIMAL
    assert result.top == {
        "server_name": "host.example.com",
        "auth_http": {"url": "http://127.0.0.1:9000/auth", "timeout": "1m"},
        "backend": {"xclient": "on", "proxy_protocol": "off", "smtp_auth": "off", "pass_error_message": False},
    }
    assert result.remarks == []


@pytest.mark.parametrize(
    ("directives", "keys"),
    [
        ("timeout 30s;", {"timeout": "30s"}),
        ('proxy_timeout "1h 30m";', {"idle_timeout": "90m"}),
        ("max_errors 10;", {"max_errors": 10}),
        ("smtp_client_buffer 8k;", {"max_line": "8KiB"}),
        ("smtp_greeting_delay 1500ms;", {"greeting_delay": "1500ms"}),
        ("smtp_auth login plain cram-md5;", {"auth": ["plain", "login", "cram-md5"]}),
        ('smtp_capabilities "SIZE 10485760" DSN;', {"capabilities": ["SIZE 10485760", "DSN"]}),
        ("resolver 127.0.0.1 [::1];", {"resolver": ["127.0.0.1", "::1"], "resolver_timeout": "30s"}),
        ("resolver 127.0.0.1; resolver_timeout 5;", {"resolver": ["127.0.0.1"], "resolver_timeout": "5s"}),
        (
            "resolver 127.0.0.1:5353 [::1]:53;",
            {"resolver": ["127.0.0.1:5353", "[::1]:53"], "resolver_timeout": "30s"},
        ),
        ("resolver off;", {}),
    ],
)
def test_a_directive_of_a_listener(tmp_path: Path, directives: str, keys: dict[str, Any]) -> None:
    result, listener = server(tmp_path, directives)
    assert listener == MINIMAL | keys
    assert result.remarks == []


@pytest.mark.parametrize(
    ("directives", "key", "value"),
    [
        ("xclient off;", "xclient", "off"),
        ("proxy_protocol on;", "proxy_protocol", "v1"),
        ("proxy_protocol v2;", "proxy_protocol", "v2"),
        ("proxy_smtp_auth on;", "smtp_auth", "on"),
        ("proxy_pass_error_message on;", "pass_error_message", True),
    ],
)
def test_a_directive_about_the_backend(tmp_path: Path, directives: str, key: str, value: Any) -> None:
    result, _ = server(tmp_path, directives)
    assert result.top["backend"][key] == value


@pytest.mark.parametrize(
    ("directives", "keys"),
    [
        ("auth_http https.example.com/x;", {"url": "http://https.example.com/x"}),
        ("auth_http http://127.0.0.1/a;", {"url": "http://127.0.0.1/a"}),
        ("auth_http unix:/run/a.sock:/auth;", {"url": "unix:/run/a.sock:/auth"}),
        ("auth_http_timeout 5;", {"timeout": "5s"}),
        ("auth_http_header X-Key abc; auth_http_header X-Port 25;", {"headers": {"X-Key": "abc", "X-Port": "25"}}),
        ("auth_http_pass_client_cert on;", {"pass_client_cert": True}),
    ],
)
def test_a_directive_of_auth_http(tmp_path: Path, directives: str, keys: dict[str, Any]) -> None:
    result, _ = server(tmp_path, directives)
    assert result.top["auth_http"] == {"url": "http://127.0.0.1:9000/auth", "timeout": "1m"} | keys


TLS = "ssl_certificate a.crt; ssl_certificate_key a.key;"


def pair(folder: Path, name: str) -> dict[str, str]:
    return {"cert": f"{folder}/{name}.crt", "key": f"{folder}/{name}.key"}


@pytest.mark.parametrize(("starttls", "tls"), [("on", "starttls"), ("only", "required")])
def test_starttls(tmp_path: Path, starttls: str, tls: str) -> None:
    result, listener = server(tmp_path, f"starttls {starttls}; {TLS}")
    assert listener == MINIMAL | {"tls": tls, "certificate": [pair(tmp_path, "a")]}
    assert len(result.remarks) == (starttls == "only")


def test_every_word_about_tls(tmp_path: Path) -> None:
    more = """
        ssl_certificate /etc/b.crt; ssl_certificate_key /etc/b.key; ssl_password_file pass;
        ssl_protocols TLSv1 TLSv1.2; ssl_ciphers HIGH; ssl_ecdh_curve X25519:P-256; ssl_session_tickets off;
        ssl_verify_client on; ssl_client_certificate ca.crt; ssl_crl crl.pem; ssl_dhparam dh.pem;
        ssl_session_cache shared:x:1m; ssl_prefer_server_ciphers on;
    """
    result, listener = server(tmp_path, f"starttls on; {TLS} {more}")
    secret = {"password_file": f"{tmp_path}/pass"}
    assert listener == MINIMAL | {
        "tls": "starttls",
        "certificate": [pair(tmp_path, "a") | secret, {"cert": "/etc/b.crt", "key": "/etc/b.key"} | secret],
        "tls_options": {"versions": ["TLSv1.2"], "ciphers": "HIGH", "curve": "X25519", "tickets": False},
        "client_certificate": {"mode": "required", "ca": f"{tmp_path}/ca.crt", "crl": f"{tmp_path}/crl.pem"},
    }
    assert [text.partition(" ")[0].rstrip(":") for text in told(result)] == [
        "ssl_protocols",
        "ssl_ecdh_curve",
        "ssl_verify_client",
        "ssl_dhparam",
        "ssl_session_cache",
        "ssl_prefer_server_ciphers",
    ]


def test_certificates_that_nobody_shows_are_left_out(tmp_path: Path) -> None:
    _, listener = server(tmp_path, f"{TLS} ssl_ciphers HIGH;")
    assert listener == MINIMAL


def test_an_address_is_a_listener_where_its_options_differ(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        f"""mail {{
            server_name mx.example.com; auth_http x; set_real_ip_from 192.0.2.0/24; {TLS}
            server {{
                protocol smtp;
                listen 25 so_keepalive=on; listen [::]:25 ipv6only=on; listen 465 ssl; listen *:2525 proxy_protocol;
                listen unix:/run/mx.sock; listen 127.0.0.1:4650 ssl proxy_protocol;
            }}
        }}""",
    )
    shape = [
        (one["name"], one["bind"], one["tls"], one.get("proxy_protocol"), "certificate" in one)
        for one in result.listeners
    ]
    assert shape == [
        ("smtp-25", ["0.0.0.0:25", "[::]:25", "unix:/run/mx.sock"], "off", None, False),
        ("smtp-465", "0.0.0.0:465", "implicit", None, True),
        ("smtp-2525", "0.0.0.0:2525", "off", ["192.0.2.0/24"], False),
        ("smtp-4650", "127.0.0.1:4650", "implicit", ["192.0.2.0/24"], True),
    ]
    assert told(result) == [
        "set_real_ip_from: others may not connect here at all; nginx lets them, and does not believe them",
        "listen … so_keepalive=on: not needed here, left out",
    ]


def test_a_proxy_header_from_anybody_is_not_taken_over(tmp_path: Path) -> None:
    result = imported(tmp_path, "mail { auth_http x; server { listen 25 proxy_protocol; } }")
    assert result.listeners[0]["proxy_protocol"] == ["127.0.0.0/8", "::1/128"]
    assert "list what stands in front" in told(result)[0]


def test_a_server_inherits_what_it_does_not_say_itself(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        """mail {
            server_name all.example.com; auth_http 127.0.0.1:9000; auth_http_header X-A 1; auth_http_header X-B 2;
            smtp_capabilities A B; timeout 5s; smtp_auth plain login;
            server { listen 25; smtp_auth none; auth_http_header X-C 3; smtp_capabilities C; }
            server { listen 587; server_name own.example.com; timeout 7s; xclient off; }
        }""",
    )
    url = {"url": "http://127.0.0.1:9000", "timeout": "1m"}
    assert result.top["server_name"] == "all.example.com"
    assert result.top["auth_http"] == url | {"headers": {"X-C": "3"}}
    first, second = result.listeners
    assert (first["auth"], first["capabilities"], first["timeout"]) == (["none"], ["C"], "5s")
    assert not first.keys() & {"server_name", "auth_http", "backend"}
    assert (second["auth"], second["capabilities"], second["timeout"]) == (["plain", "login"], ["A", "B"], "7s")
    assert second["server_name"] == "own.example.com"
    assert second["auth_http"] == url | {"headers": {"X-A": "1", "X-B": "2"}}
    assert second["backend"] == result.top["backend"] | {"xclient": "off"}


def test_what_stays_with_nginx(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        "user mail;\nworker_processes 4;\nworker_shutdown_timeout 1m;\nhttp {}\nmail { auth_http x;\n"
        "server { listen 110; }\nserver { listen 2143; protocol imap; }\nserver { listen 587; } }\n",
    )
    assert [one["name"] for one in result.listeners] == ["smtp-587"]
    assert (result.top["workers"], result.top["graceful_timeout"]) == (4, "1m")
    assert [str(remark) for remark in result.remarks] == [
        f"{tmp_path}/nginx.conf:1: user mail: the service manager's matter (systemd: User=)",
        f"{tmp_path}/nginx.conf:4: http{{}} stays with nginx",
        f"{tmp_path}/nginx.conf:6: a server for pop3 stays with nginx",
        f"{tmp_path}/nginx.conf:7: a server for imap stays with nginx",
    ]


@pytest.mark.parametrize(
    ("directive", "remark"),
    [
        ("bogus 1;", "bogus: unknown to smtpgate, left out"),
        ("proxy_buffer 8k;", "proxy_buffer: replies have bounds of their own"),
        (
            "smtp_auth none;",
            "smtp_auth: nginx takes PLAIN and LOGIN also where they are not listed, smtpgate does not",
        ),
        ('smtp_capabilities "AUTH PLAIN";', "smtp_capabilities AUTH: said by itself when true"),
        ("smtp_capabilities BINARYMIME;", "smtp_capabilities BINARYMIME: cannot be kept, left out"),
        ("smtp_capabilities AUTH=LOGIN;", 'smtp_capabilities "AUTH=LOGIN": is no line of EHLO\'s reply, left out'),
        ("imap_auth plain;", "imap_auth: concerns pop3 or imap, which stay with nginx"),
        ('smtp_capabilities "SIZE 1" size;', "smtp_capabilities SIZE: there twice, the first one is taken"),
        (
            "smtp_auth plain login external;",
            "smtp_auth external without ssl_verify_client: nobody has proven who he is; left out",
        ),
        (
            "auth_http_header Auth-Key x;",
            "auth_http_header Auth-Key: a header of the protocol; left out, give it a name like X-Auth-Key",
        ),
        ("max_errors 5000;", "max_errors 5000: 1 to 1000 is supported; 1000 is taken"),
        ("smtp_client_buffer 128;", "smtp_client_buffer 128: 512 to 65536 is supported; 512 is taken"),
        ("smtp_greeting_delay 3m;", "smtp_greeting_delay 3m: at most 2m is supported, and taken"),
        ("resolver ns.example.com;", "resolver ns.example.com: a host name; left out, list its addresses"),
        ("auth_http_header A 1; auth_http_header A 2;", "auth_http_header A: there twice, the last one is taken"),
        ("ssl_verify_client optional_no_ca;", "ssl_verify_client optional_no_ca: not supported, left out"),
        ("resolver 127.0.0.1 valid=30s;", "resolver … valid=30s: not needed, answers are kept for their TTL"),
    ],
)
def test_a_remark_has_its_line(tmp_path: Path, directive: str, remark: str) -> None:
    result, _ = server(tmp_path, directive)
    assert result.remarks == [Remark(f"{tmp_path}/nginx.conf:5", remark)]


def test_what_stands_in_front_by_name_and_with_host_bits(tmp_path: Path) -> None:
    result = imported(
        tmp_path,
        "mail { auth_http x; set_real_ip_from lb.example.com;\n"
        "set_real_ip_from 192.0.2.7/24; set_real_ip_from unix:;\n"
        "server { listen 25 proxy_protocol; } }",
    )
    assert result.listeners[0]["proxy_protocol"] == ["192.0.2.0/24"]
    assert told(result)[0].startswith("set_real_ip_from lb.example.com: a host name; left out")


def test_external_alone_and_without_certificates_is_not_nothing(tmp_path: Path) -> None:
    _, listener = server(tmp_path, "smtp_auth external;")
    assert listener["auth"] == ["plain"]


def test_too_many_workers(tmp_path: Path) -> None:
    result = imported(tmp_path, "worker_processes 100; mail { auth_http x; server { listen 25; } }")
    assert (result.top["workers"], len(result.remarks)) == (64, 1)


def test_includes_keep_their_own_places(tmp_path: Path) -> None:
    result = imported(
        tmp_path, "mail {\ninclude a.conf;\n bogus 1; }\n", a="auth_http x;\nserver {\n listen 25;\n odd 1;\n}\n"
    )
    assert [remark.place for remark in result.remarks] == [f"{tmp_path}/a.conf:4", f"{tmp_path}/nginx.conf:3"]


@pytest.mark.parametrize("text", ["http {}", "mail { auth_http x; server { listen 143; } }", "mail {}"])
def test_nothing_to_import(tmp_path: Path, text: str) -> None:
    with pytest.raises(NothingToImport):
        imported(tmp_path, text)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        nginxconf.NginxSyntaxError, match=r'nginx.conf:2: directive "timeout" is not terminated by ";"'
    ):
        imported(tmp_path, "mail {\n max_errors 1; timeout 5 }")
    with pytest.raises(OSError, match="No such file"):
        nginxconf.read(tmp_path / "none.conf")


def test_the_text_says_what_was_imported(tmp_path: Path) -> None:
    headers = 'auth_http_header X-A "a: b # c"; auth_http_header X-B "${c}\\\\"; auth_http_header X-C on;'
    result, listener = server(tmp_path, f"{headers} bogus 1; starttls on; {TLS} smtp_greeting_delay 3s;")
    text = render(result, "nginx.conf")
    assert text.splitlines()[:3] == [
        "# Imported from nginx.conf. `python proxy.py -c THIS_FILE --check` tells whether it can be used.",
        "# What to know, and what to do:",
        f"#   {tmp_path}/nginx.conf:5: bogus: unknown to smtpgate, left out",
    ]
    read = yaml.load(text.replace("$${", "${"), yaml.BaseLoader)  # noqa: TID251 - text for text, as written
    assert read["listeners"] == [listener]
    assert read["auth_http"]["headers"] == {"X-A": "a: b # c", "X-B": "${c}\\", "X-C": "on"}
