"""A session is freed with the last reference to it, also one that has met every fault that there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from circles import nothing_left_to_the_collector
from fakes import FakeAuthenticator, ScriptedBackend
from sessions import AUTH, DATA, ENVELOPE, LOGIN, MAIL, MESSAGE, RCPT, TAKEN, TEXT, Session, Step, backend, greeted

from smtpgate.session.ports import AuthUnavailable
from smtpgate.session.streams import StreamLost, StreamTimeout

DEAD: Step = (ENVELOPE, None)
SILENT: Step = (ENVELOPE, b"")
SHIFTED: Step = (ENVELOPE, b"250 ok\r\n250 ok\r\n250 who asked?\r\n")
GARBLED: Step = (ENVELOPE, b"what?\r\n")
LEAVES: Step = (ENVELOPE, b"421 4.3.2 going down\r\n")


@pytest.mark.parametrize(
    "backends",
    [
        pytest.param(lambda: [backend(DATA, TAKEN)], id="nothing"),
        pytest.param(lambda: ["refused"], id="refused"),
        pytest.param(lambda: ["refused", backend(DATA, TAKEN)], id="refused, and then another"),
        pytest.param(lambda: [ScriptedBackend([(b"", b"554 not you\r\n")])], id="a greeting that refuses"),
        pytest.param(lambda: [ScriptedBackend([(b"", None)])], id="no greeting"),
        pytest.param(lambda: [greeted(DEAD)], id="EOF behind MAIL"),
        pytest.param(lambda: [greeted(SILENT)], id="silence behind MAIL"),
        pytest.param(lambda: [greeted(SHIFTED)], id="a reply too many"),
        pytest.param(lambda: [greeted(GARBLED)], id="no reply"),
        pytest.param(lambda: [greeted(LEAVES)], id="421"),
        pytest.param(lambda: [backend((b"DATA\r\n", None))], id="EOF behind DATA"),
        pytest.param(lambda: [backend(DATA, (TEXT[:-5], None))], id="EOF in the text"),
        pytest.param(lambda: [backend(DATA, (TEXT, None))], id="EOF behind the text"),
        pytest.param(lambda: [backend(DATA, (TEXT, b"nonsense\r\n"))], id="nonsense behind the text"),
    ],
)
@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([MESSAGE + b"QUIT\r\n"], id="a client that pipelines"),
        pytest.param([MAIL, None, RCPT, None, b"DATA\r\n", None, TEXT, None, b"QUIT\r\n"], id="one that waits"),
        pytest.param([ENVELOPE, StreamLost("ECONNRESET")], id="one that is lost"),
        pytest.param([ENVELOPE, StreamTimeout()], id="one that falls silent"),
    ],
)
def test_nothing_of_a_session_is_left_to_the_collector(
    pieces: list[bytes | BaseException | None], backends: Callable[[], list[ScriptedBackend | str]]
) -> None:
    with nothing_left_to_the_collector():
        kept = _played(Session(list(pieces), *backends()))
    assert kept.told.sessions != []


def test_nor_of_one_whose_login_could_not_be_looked_at() -> None:
    with nothing_left_to_the_collector():
        asked = FakeAuthenticator(AuthUnavailable("refused"))
        kept = _played(Session([LOGIN + b"QUIT\r\n"], protocol=AUTH, authenticator=asked))
    assert kept.told.logins != []


def _played(session: Session) -> Session:
    """The world of one that has ended. It is a circle itself, and has to outlive the look at what is left."""
    session.run()
    session.told.live = None
    session.backends.leases.clear()
    return session
