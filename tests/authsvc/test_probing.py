"""authsvc.probing: a stock nginx is given the address of a mail server that answers."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any

import pytest
from peers.process import HOST, free_port, wait_until
from peers.smtptools import SmtpSink
from recorder import Recorder
from stack import Stack

pytestmark = [pytest.mark.peer("postfix")]


def ports_given(stack: Stack) -> set[str]:
    """Of some answers, as many as there are turns."""
    given = set()
    for _ in range(4):
        connection = http.client.HTTPConnection(*stack.auth, timeout=5)
        headers = {
            "Auth-Method": "plain",
            "Auth-User": "test",
            "Auth-Pass": "1234",
            "Auth-Protocol": "smtp",
            "Auth-Login-Attempt": "1",
            "Client-IP": "192.0.2.1",
        }
        connection.request("GET", "/auth", headers=headers)
        answer = connection.getresponse()
        given.add(answer.headers["Auth-Port"])
        connection.close()
    return given


@pytest.fixture
def start_stack(tmp_path: Any) -> Any:
    stacks: list[Stack] = []

    def start(*args: Any, **keys: Any) -> Stack:
        stacks.append(Stack(tmp_path, *args, **keys))
        return stacks[-1]

    yield start
    for stack in stacks:
        stack.stop()


def test_nobody_is_sent_where_nobody_answers(
    start_stack: Callable[..., Stack], smtp_sink: Callable[..., SmtpSink]
) -> None:
    alive, dead = smtp_sink(), free_port()
    pool = {"health": {"probe": "ehlo", "every": "200ms", "timeout": "1s", "rise": 1, "fall": 1}}
    stack = start_stack([(HOST, alive.port), (HOST, dead)], pool=pool, authsvc={"probe": True})
    wait_until(lambda: bool(stack.auth_log_events("backend_down", backend="b2")), "b2 is found dead")
    assert ports_given(stack) == {str(alive.port)}
    with Recorder(HOST, dead):
        wait_until(lambda: bool(stack.auth_log_events("backend_up", backend="b2")), "b2 is back")
        assert ports_given(stack) == {str(alive.port), str(dead)}
