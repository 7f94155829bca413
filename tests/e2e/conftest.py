"""What the end-to-end tests share: the stack as a fixture, and its output beside a failure."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from stack import Backend, Stack

_running: list[Stack] = []


class StartStack(Protocol):
    def __call__(self, backends: Sequence[Backend], **settings: Any) -> Stack: ...


@contextmanager
def _stacks(folder: Path) -> Iterator[StartStack]:
    """Starts stacks in folders below `folder`, and ends them all."""
    stacks: list[Stack] = []

    def start(backends: Sequence[Backend], **settings: Any) -> Stack:
        own = folder / f"stack{len(stacks) + 1}"
        own.mkdir()
        stack = Stack(own, backends, **settings)
        stacks.append(stack)
        _running.append(stack)
        return stack

    try:
        yield start
    finally:
        for stack in stacks:
            stack.stop()
            _running.remove(stack)


@pytest.fixture
def start_stack(tmp_path: Path) -> Iterator[StartStack]:
    """`start_stack([(host, port)], workers=2)`: proxy and auth service, up; ended with the test."""
    with _stacks(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_module_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStack]:
    """As `start_stack`, for a stack that the tests of a module share."""
    with _stacks(tmp_path_factory.mktemp("stacks")) as start:
        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the programs printed."""
    report = yield
    if report.failed:
        for stack in _running:
            report.sections.append((f"programs in {stack.folder}", stack.show()))
    return report
