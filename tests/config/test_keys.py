"""Every mistake of tests/bad/config, with its exact message.

A fixture is named after its fault. Its last lines, `# => …`, are what an operator is told, without the file's
name; {folder} stands for the fixtures' folder.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpgate import config
from smtpgate.document import DocumentError

BAD = Path(__file__).parents[1] / "bad" / "config"
FIXTURES = sorted(BAD.glob("*.yaml"))


def test_the_fixtures_are_there():
    assert len(FIXTURES) > 100


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_mistake(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    expected = [line.removeprefix("# => ") for line in lines if line.startswith("# => ")]
    assert expected
    with pytest.raises(DocumentError) as caught:
        config.load(path, {})
    told = [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems]
    assert told == [line.replace("{folder}", str(BAD)) for line in expected]
    assert "hunter2" not in str(caught.value)


def test_secrets_in_variables_are_not_told(tmp_path):
    path = tmp_path / "proxy.yaml"
    path.write_text(
        "server_name: ${S}\n"
        "store: sqlite://${S}\n"
        "auth_http: {url: 'http://${S} /', timeout: '${S}', headers: {X-Auth-Key: '${S}é'}}\n"
        "listeners: [{name: mx, bind: '${S}'}]\n"
    )
    with pytest.raises(DocumentError) as caught:
        config.load(path, {"S": "hunter 2"})
    assert [str(problem).removeprefix(f"{path}:") for problem in caught.value.problems] == [
        '1:1: server_name: "${S}" is not a host name; expected e.g. mail.example.com',
        "2:1: store: is not the URI of a store; expected e.g. memory://, redis://127.0.0.1:6379/0",
        "3:13: auth_http.url: is not the URL of an auth_http service; expected e.g. "
        "http://127.0.0.1:18080/auth, https://auth.example.com/, unix:/run/auth.sock:/auth",
        '3:35: auth_http.timeout: "${S}" is not a duration; expected e.g. 500ms, 10s, 5m, 1h, 1d',
        "3:62: auth_http.headers.X-Auth-Key: is not a header's value; expected at most 4096 printable ASCII "
        "characters, in quotes if they look like a number",
        '4:24: listeners[0].bind: "${S}" is not an address with a port; expected e.g. 127.0.0.1:25, '
        "[::1]:25, unix:/run/smtpgate.sock",
    ]
