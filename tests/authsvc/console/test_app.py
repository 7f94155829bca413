"""gate, entry, pages, actions and app through Flask's test client: what operators get, and what strangers do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from authsvc.console.edits import Edits
from authsvc.console.gate import HEADERS, REFRESH
from authsvc.console.opening import in_turn
from authsvc.proof.bulkhead import Bulkhead, OverloadError

GETS = ["/", "/sessions", "/limits", "/denials", "/quotas?subject=ann", "/pools", "/policies"]
GETS += ["/quotas/subject?limit=msgs&subject=ann%40example.com", "/explain?ip=192.0.2.7&user=ann%40example.com"]
POSTS = {
    "/quotas/reset": {"limit": "msgs", "subject": "ann@example.com"},
    "/quotas/grant": {"limit": "msgs", "subject": "ann@example.com", "tokens": "3"},
    "/quotas/unban": {"limit": "msgs", "subject": "ann@example.com"},
    "/pools/drain": {"pool": "core", "backend": "mta1"},
    "/pools/undrain": {"pool": "core", "backend": "mta1"},
    "/logout": {},
}


def token(client: FlaskClient, path: str = "/login") -> str:
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def log_in(client: FlaskClient, password: str = "right", operator: str = "anna", **more):
    data = {"operator": operator, "password": password, "csrf_token": token(client)}
    return client.post("/login", data=data, **more)


@pytest.fixture
def inside(room) -> FlaskClient:
    client = room.client()
    assert log_in(client).status_code == 303
    return client


def post(client: FlaskClient, path: str, **data: str):
    return client.post(path, data={**data, "csrf_token": token(client, "/")})


# --- strangers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*GETS, "/nowhere", "/auth", "/healthz"])
def test_who_is_not_logged_in_is_sent_to_the_login(room, path: str) -> None:
    response = room.client().get(path)
    assert (response.status_code, response.headers["Location"]) == (302, "/login")
    assert room.quotas.asked == []


@pytest.mark.parametrize("path", POSTS)
def test_who_is_not_logged_in_changes_nothing(room, path: str) -> None:
    client = room.client()
    response = client.post(path, data={**POSTS[path], "csrf_token": token(client)})
    assert (response.status_code, response.headers["Location"]) == (302, "/login")
    assert (room.quotas.asked, room.board.orders()) == ([], [])


@pytest.mark.parametrize(
    "host", ["evil.example", "", "127.0.0.1.evil.example", "localhost.evil.example", "[", "10.0.0.1"]
)
@pytest.mark.parametrize("path", ["/login", "/", "/static/console.css"])
def test_a_foreign_name_is_forbidden(room, inside, journal, path: str, host: str) -> None:
    for client in (room.client(), inside):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == 403
        assert "Set-Cookie" not in response.headers
        assert "csrf_token" not in response.text
    assert journal.lines[-1] == (
        "warning",
        "console_forbidden",
        {"peer": "127.0.0.1", "reason": "the Host header is not among hosts"},
    )


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:18081", "127.0.0.1:9", "127.3.2.1", "[::1]:18081", "console.example.com", "LOCALHOST"],
)
def test_names_of_this_machine_and_those_of_the_configuration(room, host: str) -> None:
    assert room.client().get("/login", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("peer", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "10.0.0.1", "0.0.0.0", ""])
def test_a_foreign_address_is_forbidden(room, inside, peer: str) -> None:
    for client in (room.client(), inside):
        response = client.get("/login", environ_base={"REMOTE_ADDR": peer}, headers={"X-Forwarded-For": "127.0.0.1"})
        assert response.status_code == 403


# --- the login -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operator", "password"), [("anna", "guess"), ("nobody", "right"), ("Anna", "right")])
def test_a_wrong_login_says_no_more_than_that(room, journal, operator: str, password: str) -> None:
    response = log_in(room.client(), password, operator)
    assert response.status_code == 403
    assert "Name or password is wrong." in response.text
    assert password not in response.text
    named = operator if operator == "anna" else None
    assert journal.lines[-1] == ("warning", "console_login_failed", {"peer": "127.0.0.1", "operator": named})


@pytest.mark.parametrize("data", [{}, {"operator": "anna"}, {"operator": "a" * 65, "password": "right"}])
def test_a_login_that_is_none_costs_no_try(room, data: dict[str, str]) -> None:
    client = room.client()
    for _ in range(20):
        assert client.post("/login", data={**data, "csrf_token": token(client)}).status_code == 400
    assert log_in(client).status_code == 303


def test_logins_are_few(room, clock, journal) -> None:
    client = room.client()
    for _ in range(5):
        assert log_in(client, "wrong").status_code == 403
    response = log_in(client)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "12")
    assert journal.lines[-1] == ("warning", "console_login_throttled", {"peer": "127.0.0.1"})
    clock.sleep(12.0)
    assert log_in(client).status_code == 303


def test_the_cookie(room) -> None:
    response = log_in(room.client())
    cookie = response.headers["Set-Cookie"]
    assert cookie.startswith("smtpgate_console=")
    assert cookie.endswith("; HttpOnly; Path=/; SameSite=Strict")
    for referer, status in (("https://localhost/login", 303), ("https://evil.example/", 400), ("", 400)):
        secure = log_in(room.client(), base_url="https://localhost", headers={"Referer": referer})
        assert secure.status_code == status
        assert status == 400 or "; Secure; HttpOnly; " in secure.headers["Set-Cookie"]


def test_a_login_does_not_go_on_with_the_cookie_that_it_came_with(room) -> None:
    client = room.client()
    before = client.get("/login").headers["Set-Cookie"].partition(";")[0]
    after = log_in(client).headers["Set-Cookie"].partition(";")[0]
    assert before != after
    thief = room.client()
    thief.set_cookie("smtpgate_console", before.partition("=")[2])
    assert thief.get("/").status_code == 302


def test_logout_is_final(room, inside) -> None:
    stolen = inside.get_cookie("smtpgate_console").value
    assert post(inside, "/logout").headers["Location"] == "/login"
    assert inside.get("/").status_code == 302
    thief = room.client()
    thief.set_cookie("smtpgate_console", stolen)
    assert thief.get("/").status_code == 302


def test_a_login_ends_by_itself(inside, clock) -> None:
    for _ in range(15):
        assert inside.get("/").status_code == 200
        clock.sleep(29 * 60.0)
    assert inside.get("/").status_code == 200
    for _ in range(4):
        clock.sleep(29 * 60.0)
        last = inside.get("/").status_code
    assert last == 302  # eight hours are over


def test_a_page_that_renews_itself_keeps_nobody_logged_in(inside, clock) -> None:
    for _ in range(3):
        clock.sleep(9 * 60.0)
        assert inside.get("/", headers={REFRESH: "1"}).status_code == 200
    clock.sleep(9 * 60.0)
    assert inside.get("/", headers={REFRESH: "1"}).status_code == 302


# --- every page ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*GETS, "/login", "/nowhere", "/static/console.css"])
def test_headers_of_every_answer(inside, path: str) -> None:
    response = inside.get(path)
    response.close()
    assert {name: response.headers[name] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("path", GETS)
def test_a_get_changes_nothing(room, inside, journal, path: str) -> None:
    before = len(journal.lines)
    response = inside.get(path)
    assert response.status_code == 200
    assert {asked[0] for asked in room.quotas.asked} <= {"find", "of"}
    assert room.board.orders() == []
    assert len(journal.lines) == before


@pytest.mark.parametrize("path", GETS)
def test_pages_hold_no_secret_and_nothing_inline(inside, stored, path: str) -> None:
    text = inside.get(path).text
    assert stored["anna"] not in text
    assert "argon2" not in text
    assert re.findall(r"<script(?! src=\"/static/)|<style| style=| on[a-z]+=|https?://", text) == []


@pytest.mark.parametrize("path", POSTS)
def test_get_of_an_action_is_no_page(room, inside, path: str) -> None:
    assert inside.get(path, query_string=POSTS[path]).status_code == 405
    assert (room.quotas.asked, room.board.orders()) == ([], [])


@pytest.mark.parametrize("path", [*POSTS, "/login", "/theme"])
@pytest.mark.parametrize("forged", [None, "", "forged"])
def test_a_form_of_another_site_does_nothing(room, inside, journal, path: str, forged: str | None) -> None:
    data = {**POSTS.get(path, {}), **({} if forged is None else {"csrf_token": forged})}
    assert inside.post(path, data=data).status_code == 400
    assert (room.quotas.asked, room.board.orders()) == ([], [])
    assert journal.lines[-1][1] == "console_forged"
    assert inside.get("/").status_code == 200


def test_a_body_without_an_end_is_refused(inside) -> None:
    assert inside.post("/quotas/reset", data={"limit": "x" * 20_000}).status_code == 413


def test_comparisons_are_bounded(room, inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes while as many as may be wait is told so, and does not wait for ever in front of the threads."""
    bulkhead = Bulkhead(at_once=1, waiting=0)
    compared: list[str] = []

    in_turn(bulkhead)(lambda: compared.append("alone"))
    with bulkhead.attempt(""):
        with pytest.raises(OverloadError):
            in_turn(bulkhead)(lambda: compared.append("too many"))
        monkeypatch.setattr(Edits, "pending", lambda self: in_turn(bulkhead)(lambda: None))
        answer = inside.get("/policies")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert "Try again." in answer.text
    assert compared == ["alone"]
    bulkhead.close()


# --- actions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "asked", "told"),
    [
        ("/quotas/reset", ("reset", "msgs", "ann@example.com"), "Reset msgs of ann@example.com."),
        ("/quotas/grant", ("grant", "msgs", "ann@example.com", 3.0), "msgs of ann@example.com: 2 -&gt; 5 of 10."),
        ("/quotas/unban", ("unban", "ann@example.com"), "ann@example.com is not banned."),
    ],
)
def test_quotas_are_changed_and_it_is_logged(room, inside, journal, path: str, asked: tuple, told: str) -> None:
    response = post(inside, path, **POSTS[path])
    assert (response.status_code, room.quotas.asked) == (303, [asked])
    level, event, fields = journal.lines[-1]
    assert (level, event) == ("info", "console_action")
    assert (fields["operator"], fields["peer"]) == ("anna", "127.0.0.1")
    assert (fields["limit"], fields["subject"]) == ("msgs", "ann@example.com")
    assert told in inside.get(response.headers["Location"]).text


@pytest.mark.parametrize("tokens", ["", "0", "-1", "nan", "inf", "x", "1e999"])
def test_a_grant_of_nothing(room, inside, tokens: str) -> None:
    response = post(inside, "/quotas/grant", **{**POSTS["/quotas/grant"], "tokens": tokens})
    assert (response.status_code, room.quotas.asked) == (303, [])
    assert "above 0" in inside.get(response.headers["Location"]).text


def test_a_backend_is_drained_and_undrained(room, inside, journal) -> None:
    assert post(inside, "/pools/drain", pool="core", backend="mta1").status_code == 303
    assert [(one.pool, one.backend, one.by) for one in room.board.orders()] == [("core", "mta1", "anna (console)")]
    assert "drained by anna (console), 1970-" in inside.get("/pools").text
    looked = inside.get("/").text
    assert "core/mta1 takes no sessions: drained by anna (console), 1970-" in looked  # gatectl's words
    assert "Trouble:" not in looked
    assert post(inside, "/pools/undrain", pool="core", backend="mta1").status_code == 303
    assert room.board.orders() == []
    assert [line[2]["action"] for line in journal.lines if line[1] == "console_action"] == ["drain", "undrain"]


@pytest.mark.parametrize("data", [{"pool": "core", "backend": "nobody"}, {"pool": "x", "backend": "mta1"}])
def test_what_nobody_reports_is_not_drained(room, inside, data: dict[str, str]) -> None:
    assert post(inside, "/pools/drain", **data).status_code == 404
    assert room.board.orders() == []


@pytest.mark.parametrize("path", [path for path in POSTS if path != "/logout"])
def test_a_form_without_its_fields(room, inside, path: str) -> None:
    assert post(inside, path).status_code == 400
    assert room.quotas.asked == []


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_a_store_that_is_away_is_told_and_logged(room, inside, journal) -> None:
    room.quotas.away = True
    response = inside.get("/quotas?subject=ann")
    assert response.status_code == 503
    assert "ConnectionError: refused" in response.text
    assert journal.lines[-1] == ("warning", "console_store_away", {"reason": "ConnectionError: refused"})


def test_a_bug_is_logged_by_its_place(room, inside, journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(limit: str, subject: str) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(room.quotas, "of", broken)
    response = inside.get("/quotas/subject?limit=msgs&subject=ann")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert journal.lines[-1][1] == "internal_error"
    assert "secret" not in repr(journal.lines)


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "actions.reset", "pages.quota", ""])
def test_a_change_of_colours_leads_nowhere_else(inside, back: str) -> None:
    response = post(inside, "/theme", theme="dark", back=back)
    assert (response.status_code, response.headers["Location"]) == (303, "/")
    assert 'data-theme="dark"' in inside.get("/").text


def test_colours_that_there_are_not(inside) -> None:
    post(inside, "/theme", theme='"><script>', back="pages.pools")
    inside.set_cookie("smtpgate_theme", '"><script>')
    assert 'data-theme="auto"' in inside.get("/").text


def test_no_file_but_those_of_the_page(inside) -> None:
    for path in ("/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/settings.py", "/static//etc/passwd"):
        assert inside.get(path).status_code in {302, 308, 404}, path
    assert {one.name for one in (Path(__file__).parents[3] / "authsvc/console/static").iterdir()} == {
        "console.css",
        "console.js",
        "icon.svg",
    }
