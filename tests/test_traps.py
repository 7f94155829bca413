"""No trap of Python's is in reach of a stranger's octets (reference/security.md section I); each would be found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest
import traps
from syntax import Finding, Module, Package

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = Package.read(ROOT, "smtpgate", "authsvc", "tools")

# Where a client's or a backend's octets become text.
WIRE: Final = ("smtpgate/smtp/", "smtpgate/session/", "smtpgate/drivers/authwire.py")
EVERYWHERE: Final = ("smtpgate/", "authsvc/", "tools/")

RULES: Final[dict[traps.Rule, tuple[str, ...]]] = {
    traps.text_methods: WIRE,
    traps.unchecked_int: WIRE,
    traps.dollar_ends: EVERYWHERE,
    traps.half_matches: EVERYWHERE,
    traps.lenient_base64: EVERYWHERE,
    traps.loose_yaml: EVERYWHERE,
    traps.lenient_http: ("smtpgate/",),
    traps.pasted_lines: ("smtpgate/",),
    traps.naked_greenlets: ("smtpgate/",),
}

_VALUE = "esmtp-value is decoded as ASCII by _parameters"
_OWN = "our own or the operator's words"
_ENCODER = "an encoder's own line, its parts numbers, base64 or text that the last gate has seen"

ARGUED: Final[dict[tuple[str, str], str]] = {
    ("smtpgate/smtp/command.py", "value.upper()"): _VALUE,
    ("smtpgate/smtp/command.py", "mechanism.upper()"): "octets, of which bytes.upper() knows ASCII's letters alone",
    ("smtpgate/smtp/grammar.py", "literal[:5].upper()"): "decoded as ASCII by its caller",
    (
        "smtpgate/smtp/extensions.py",
        "name.upper()",
    ): "a backend's EHLO line matched as [!-~]; a backend is not a stranger",
    ("smtpgate/smtp/settings.py", "line.partition(' ')[0].upper()"): _OWN,
    ("smtpgate/smtp/settings.py", "line.partition(' ')[2].strip()"): _OWN,
    ("smtpgate/smtp/lineends.py", "int(numpy.count_nonzero(dot))"): "numpy's own integer, of no text",
    ("smtpgate/smtp/forwarded.py", "name.lower()"): "one of our own attributes' names by then",
    ("smtpgate/drivers/authwire.py", "name.lower()"): _OWN,
    (
        "smtpgate/drivers/proxyheader.py",
        "f'PROXY {family} {source} {destination} {port} {local_port}\\r\\n'",
    ): "addresses as the kernel or a parser wrote them",
    ("smtpgate/drivers/authwire.py", "header.decode().title()"): _OWN,
    ("smtpgate/smtp/replyparser.py", "re.match(b'[2-5][0-9]{2}', text)"): "chooses the words of an error",
    ("authsvc/proof/schemes.py", "base64.b64decode(value.removeprefix('{SHA}'))"): "a hash that the operator stored",
    ("smtpgate/smtp/encode.py", "line.encode('utf-8') + b'\\r\\n'"): "the last gate itself",
    (
        "smtpgate/smtp/encode.py",
        "b'AUTH PLAIN ' + base64.b64encode(b'\\x00' + user + b'\\x00' + password) + b'\\r\\n'",
    ): _ENCODER,
    (
        "smtpgate/smtp/encode.py",
        "b'BDAT %d%b\\r\\n' % (_number('BDAT size', size), b' LAST' if last else b'')",
    ): _ENCODER,
    ("smtpgate/smtp/client.py", "b'%b\\r\\n' % word"): "one of our own verbs, to know it by",
    ("smtpgate/smtp/server.py", "b'334 %b\\r\\n' % b64encode(data)"): _ENCODER,
    (
        "smtpgate/smtp/replies.py",
        "f'{self.code} {last}\\r\\n'",
    ): "a reply's encoder; its texts come from parsers of lines",
    ("smtpgate/smtp/replies.py", "f'{self.code}-{line}\\r\\n'"): "as above",
}
"""(file, expression) -> why it is no trap there. An entry that fits nothing any more does no harm, and should go."""


def found(rule: traps.Rule, modules: Iterable[Module], package: Package) -> list[Finding]:
    return [finding for module in modules for finding in rule(package, module)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_has_none(rule: traps.Rule) -> None:
    modules = [module for module in PACKAGE.modules if module.name.startswith(RULES[rule])]
    assert modules
    traps_found = found(rule, modules, PACKAGE)
    assert [str(one) for one in traps_found if (one.file, one.site) not in ARGUED] == []


PLANTED: Final = [
    (traps.text_methods, "def f(line: bytes):\n    return line.decode('utf-8').upper()"),
    (traps.text_methods, "def f(line: str):\n    return line.splitlines()"),
    (traps.text_methods, "def f(line: bytes):\n    word = line.decode('latin-1')\n    return word.strip()"),
    (traps.text_methods, "def f(text: str):\n    return int(text) if text.isdigit() else 0"),
    (
        traps.text_methods,
        "P = re.compile(r'(\\w+)')\ndef f(text):\n    m = P.fullmatch(text)\n    return m[1].lower()",
    ),
    (
        traps.text_methods,
        "P = re.compile(r'([^ ]+)')\ndef f(text):\n    m = P.fullmatch(text)\n    return m[1].lower()",
    ),
    (traps.text_methods, "def f(line: bytes):\n    line = line.decode()\n    return line.upper()"),
    (traps.unchecked_int, "def f(size: bytes):\n    return int(size)"),
    (traps.unchecked_int, "def f(size: str):\n    return int(size) if size.isdigit() else 0"),
    (traps.unchecked_int, "def f(words: list[bytes]):\n    return int(words[1])"),
    (traps.unchecked_int, "def f(size, other):\n    assert P.fullmatch(other)\n    return int(size)"),
    (traps.dollar_ends, "P = re.compile(r'[a-z]+$')"),
    (traps.dollar_ends, "N = 3\nP = re.compile(rb'(?:a|b{%d}$)?' % N)"),
    (traps.dollar_ends, "def f(text):\n    return re.match('^[a-z]*$', text)"),
    (traps.half_matches, "P = re.compile(r'[a-z]+')\ndef f(text):\n    return P.match(text) is not None"),
    (traps.half_matches, "def f(text):\n    if re.match('[a-z]+', text):\n        return text"),
    (traps.lenient_base64, "def f(text):\n    return base64.b64decode(text)"),
    (traps.lenient_base64, "def f(text):\n    return b64decode(text, validate=False)"),
    (traps.lenient_base64, "def f(text):\n    return binascii.a2b_base64(text)"),
    (traps.loose_yaml, "def f(text):\n    return yaml.safe_load(text)"),
    (traps.loose_yaml, "load = yaml.load"),
    (traps.lenient_http, "import http.client"),
    (traps.lenient_http, "from urllib.request import urlopen"),
    (traps.pasted_lines, "def f(name: bytes):\n    return b'EHLO %b\\r\\n' % name"),
    (traps.pasted_lines, "def f(name: str):\n    return f'EHLO {name}\\r\\n'"),
    (traps.pasted_lines, "def f(name: str):\n    return 'EHLO {}\\r\\n'.format(name)"),
    (traps.pasted_lines, "def f(line: bytes):\n    return b'RCPT ' + line + b'\\r\\n'"),
    (traps.pasted_lines, "def f(line: bytes):\n    return f'unknown command {line}'"),
    (traps.naked_greenlets, "def f(stream):\n    flow.run(stream)"),
    (
        traps.naked_greenlets,
        "def f(stream):\n    try:\n        flow.run(stream)\n    except OSError:\n        _last_words()\n"
        "    finally:\n        stream.close()",
    ),
    (
        traps.naked_greenlets,
        "def f(stream):\n    try:\n        flow.run(stream)\n    except Exception:\n        log()\n"
        "    finally:\n        stream.close()",
    ),
]


@pytest.mark.parametrize(("rule", "source"), PLANTED)
def test_a_trap_would_be_found(rule: traps.Rule, source: str) -> None:
    module = Module("planted.py", source)
    assert found(rule, [module], Package([module]))


INNOCENT: Final = [
    (traps.text_methods, "def f(line: bytes):\n    word, _, rest = line.partition(b' ')\n    return word.upper()"),
    (traps.text_methods, "def f(line: bytes):\n    return line.decode('ascii').upper()"),
    (
        traps.text_methods,
        "P = re.compile(r'([A-Z]+)')\ndef f(text):\n    m = P.fullmatch(text)\n    return m[1].lower()",
    ),
    (
        traps.text_methods,
        "P = re.compile(rb'(.+)')\ndef f(text):\n    if m := P.fullmatch(text):\n        m[1].strip()",
    ),
    (traps.text_methods, "def f(text: str):\n    return text.strip(' ')"),
    (traps.text_methods, "class A:\n    line: bytes\ndef f(a):\n    return a.line.lower()"),
    (
        traps.text_methods,
        "def f(line: bytes):\n    line = line.strip()\n    line = line.upper()\n    return line.lower()",
    ),
    (traps.unchecked_int, "def f(size: str):\n    if P.fullmatch(size):\n        return int(size)"),
    (
        traps.unchecked_int,
        "P = re.compile(rb'([0-9]+)')\ndef f(text):\n    m = P.fullmatch(text)\n    return int(m[1])",
    ),
    (traps.unchecked_int, "def f(now: float):\n    return int(now)"),
    (traps.dollar_ends, "P = re.compile(r'[a-z$]+\\$\\Z')"),
    (traps.half_matches, "P = re.compile(rb'[a-z]+\\r\\n')\ndef f(text):\n    return P.match(text)"),
    (traps.half_matches, "P = re.compile(rb'[a-z]')\ndef f(text):\n    m = P.match(text)\n    return text[m.end():]"),
    (traps.half_matches, "P = re.compile(rb'[a-z]')\ndef f(text, at):\n    return P.match(text, at)"),
    (traps.half_matches, "def f(limit, facts):\n    return limit.match(facts)"),
    (traps.lenient_base64, "def f(text):\n    return base64.b64decode(text, validate=True)"),
    (
        traps.lenient_base64,
        "def f(text):\n    made = a2b_base64(text)\n    return made if b2a_base64(made) == text else None",
    ),
    (traps.loose_yaml, "def f(text):\n    return yaml.parse(text, Loader=yaml.CSafeLoader)"),
    (traps.pasted_lines, "def f():\n    return b'\\r\\n' + FINAL_DOT"),
    (traps.pasted_lines, "def f(octets: bytes):\n    return f'{octets!r} and 0x{octets[0]:02x}'"),
    (
        traps.naked_greenlets,
        "def f(stream):\n    try:\n        flow.run(stream)\n    except Exception:\n        _last_words()\n"
        "    finally:\n        stream.close()",
    ),
]


@pytest.mark.parametrize(("rule", "source"), INNOCENT)
def test_what_is_no_trap_is_let_be(rule: traps.Rule, source: str) -> None:
    module = Module("innocent.py", source)
    assert found(rule, [module], Package([module])) == []
