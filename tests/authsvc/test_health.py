"""/readyz asks at each request, not once. What the two answer is in test_app.py."""

from __future__ import annotations

from flask import Flask

from authsvc.health import health_blueprint


def test_checks_are_asked_at_each_request() -> None:
    asked: list[str] = []
    valid = [False, True]

    def users() -> bool:
        asked.append("users")
        return valid[len(asked) - 1]

    app = Flask("test", static_folder=None)
    app.register_blueprint(health_blueprint({"users": users}))
    client = app.test_client()
    assert client.get("/healthz").status_code == 200
    assert asked == []
    assert [client.get("/readyz").status_code for _ in range(2)] == [503, 200]


def test_nothing_to_check_is_ready() -> None:
    app = Flask("test", static_folder=None)
    app.register_blueprint(health_blueprint({}))
    response = app.test_client().get("/readyz")
    assert (response.status_code, response.data) == (200, b"{}\n")
