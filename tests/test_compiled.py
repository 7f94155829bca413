"""The extension modules that tools/compile makes do what the plain Python does.

Fast: rules about the source, each for something that mypyc compiles to another behaviour, or to a crash. Slow, only
with a C compiler and SMTPGATE_LONG=1: the build itself, and against it the suites of the pure rooms, the sessions
with their golden dialogues, the drivers, and a real delivery.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import compiled
from tools.compile import build, copy_sources

ROOT = Path(__file__).parents[1]

SUITES = ("tests/smtp", "tests/policy", "tests/routing", "tests/session", "tests/drivers", "tests/test_clock.py")

PATCHED = "replaces a constant or a name of the module, which a compiled one has built in"
APPROX = "puts a pytest.approx() into a field that is a float"
ANNOTATIONS = "reads annotations, which are other objects in a compiled class"
CANNOT = {
    "tests/smtp/test_content.py::test_a_refused_text_is_not_read_for_ever": PATCHED,
    "tests/smtp/test_server.py::test_a_refused_message_that_does_not_end_is_cut_off": PATCHED,
    "tests/policy/test_bills.py::test_memory_is_bounded_and_the_busy_stay": PATCHED,
    "tests/policy/test_newkeys.py::test_memory_is_bounded_and_the_busy_stay": PATCHED,
    "tests/policy/test_sets.py::test_a_file_of_too_many": PATCHED,
    "tests/policy/test_index.py::test_equal_matches_that_follow_each_other_are_tried_once": "counts Python's calls",
    "tests/policy/test_index.py::test_it_finds_what_asking_each_finds": ANNOTATIONS,
    "tests/policy/test_record.py::test_every_fact_comes_back": ANNOTATIONS,
    "tests/session/test_budgets.py::test_the_rest_of_a_lost_text_is_not_read_for_ever": PATCHED,
    "tests/session/test_budgets.py::test_chunks_that_nobody_will_have_are_bounded_too": PATCHED,
    "tests/drivers/test_healthwatch.py::test_those_who_wait_find_the_place_that_came_up": PATCHED,
    "tests/drivers/test_idle.py::test_bounds": PATCHED,
    "tests/drivers/test_idle.py::test_a_sweep_looks_at_each_connection_by_itself": PATCHED,
    "tests/drivers/test_records.py::test_all_readers_are_told_of_everything": "hands on texts, not records",
    "tests/drivers/test_idle.py::test_what_rests_too_long_is_left_politely_in_the_background": PATCHED,
    "tests/drivers/test_listener.py::test_whoever_drips_is_ended": PATCHED,
    "tests/drivers/test_listener.py::test_whoever_may_not_send_one_or_sends_none_gets_no_session": PATCHED,
    "tests/drivers/test_redisstore.py::test_a_ban_names_the_limit_and_ends_with_its_key": APPROX,
}
"""Tests that a compiled module cannot pass, and why."""


def recipe() -> ModuleType:
    """setup.py, not run."""
    spec = importlib.util.spec_from_file_location("recipe", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES: list[str] = recipe().compiled_modules()
TREES = {path: ast.parse((ROOT / path).read_text()) for path in MODULES}


def test_what_is_compiled() -> None:
    assert "smtpgate/session/flow.py" in MODULES
    assert not [path for path in recipe().NOT_COMPILED if not (ROOT / path).is_file()]


# --- rules about the source -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES)
def test_a_name_of_an_except_clause_has_one_type_in_a_function(path: str) -> None:
    """mypyc gives a name one type in a function: the second clause raises a TypeError."""
    assert list(names_of_two_types(TREES[path])) == []


def names_of_two_types(tree: ast.AST) -> Iterator[str]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            types: dict[str, set[str]] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
                    types.setdefault(node.name, set()).add(ast.unparse(node.type))
            yield from (f"{function.name}: {name}" for name, found in types.items() if len(found) > 1)


@pytest.mark.parametrize("path", MODULES)
def test_no_call_within_a_slice(path: str) -> None:
    """mypyc evaluates a slice's bounds twice, but for a list, tuple, str or bytes: what was sent is sent again."""
    assert list(calls_within_slices(TREES[path])) == []


def calls_within_slices(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Slice):
            yield from (
                f"line {node.lower.lineno if node.lower else found.lineno}: {ast.unparse(found)}"
                for found in ast.walk(node)
                if isinstance(found, ast.NamedExpr | ast.Yield)
                or (isinstance(found, ast.Call) and ast.unparse(found.func) not in HARMLESS)
            )


HARMLESS = {"len", "max", "min"}
"""What may be called twice."""


@pytest.mark.parametrize("path", MODULES)
def test_a_class_extends_nothing_of_a_library(path: str) -> None:
    """A compiled class that extends a plain one has a dictionary that its base class does not find."""
    assert list(classes_of_libraries(TREES[path])) == []


def classes_of_libraries(tree: ast.Module) -> Iterator[str]:
    own = {name for path in MODULES for name in classes_of(TREES[path])} | {
        "Protocol",
        "Generic",
        "NamedTuple",
        "ABC",
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                name = ast.unparse(base).partition("[")[0]
                if name not in own and not name.endswith(("Exception", "Error", "Enum")):
                    yield f"{node.name}({name})"


def classes_of(tree: ast.AST) -> Iterator[str]:
    return (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (names_of_two_types, "def f():\n try: g()\n except A as e: h(e)\n except B as e: h(e)\n"),
        (calls_within_slices, "rest = rest[sock.send(rest):]"),
        (classes_of_libraries, "class Handler(logging.Handler): pass"),
    ],
)
def test_the_rules_find_what_they_are_for(rule, source) -> None:
    assert len(list(rule(ast.parse(source)))) == 1


# --- constructors -----------------------------------------------------------------------------------------------


def test_a_constructor_takes_the_place_of_a_docstring() -> None:
    source = (
        "@dataclass(frozen=True, slots=True)\n"
        "class Reply:\n"
        '    """One.\n'
        '    """\n'
        "    code: int\n"
        "    lines: list[str] = field(default_factory=list)\n"
        "    close: bool = False\n"
        '    _wire: bytes = field(default=b"", init=False, repr=False)\n'
    )
    made = (
        "    def __init__(self, code: int, lines: list[str] | None = None, close: bool = False) -> None: "
        "self.code = code; self.lines = (list)() if lines is None else lines; self.close = close; self._wire = b''"
        "  # type: ignore[misc, unused-ignore] # a frozen field is read-only"
    )
    lines = source.splitlines()
    assert recipe().with_constructors(source).splitlines() == [*lines[:2], made, "", *lines[4:]]


@pytest.mark.parametrize(
    "source",
    [
        'class A:\n    "words"\n    a: int\n',
        "@dataclass(frozen=True, slots=True)\nclass A:\n    a: int\n",
        '@dataclass(frozen=True, slots=True)\nclass A(B):\n    "words"\n    a: int\n',
        '@dataclass(frozen=True, slots=True)\nclass A:\n    "words"\n',
        '@dataclass(slots=True)\nclass A:\n    "words"\n    a: int\n    def __post_init__(self): pass\n',
        '@dataclass(slots=True, kw_only=True)\nclass A:\n    "words"\n    a: int\n',
    ],
)
def test_other_classes_stay_as_they_are(source: str) -> None:
    assert recipe().with_constructors(source) == source


@pytest.mark.parametrize("path", MODULES)
def test_a_constructor_takes_what_that_of_dataclasses_takes(path: str) -> None:
    source = (ROOT / path).read_text()
    made = recipe().with_constructors(source)
    assert len(made.splitlines()) == len(source.splitlines())
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    for node in ast.walk(ast.parse(made)):
        if isinstance(node, ast.ClassDef) and recipe().is_plain_dataclass(classes_by_name(path)[node.name]):
            (init,) = (one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
            fields = dataclasses.fields(getattr(module, node.name))
            assert [one.arg for one in init.args.args] == ["self", *(one.name for one in fields if one.init)]
            assert len(init.args.defaults) == len([one for one in fields if one.init and defaults(one)])
            assert [ast.unparse(one).partition(" = ")[0] for one in init.body] == [
                f"self.{one.name}" for one in fields
            ]


def classes_by_name(path: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.walk(TREES[path]) if isinstance(node, ast.ClassDef)}


def defaults(field: dataclasses.Field[object]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


# --- which smtpgate runs ----------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of their own, never compiled."""
    (tmp_path / "smtpgate").mkdir()
    (tmp_path / "smtpgate/units.py").write_text("A = 1\n")
    for name in compiled.RECIPE:
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    monkeypatch.setattr(compiled, "BUILDS", tmp_path / "build")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(compiled.VARIABLE, "1")
    return tmp_path


def test_a_build_is_of_one_state_of_the_sources(checkout: Path) -> None:
    before = compiled.folder()
    assert compiled.folder() == before
    for path in ("smtpgate/units.py", "smtpgate/new.py", "setup.py"):
        (checkout / path).write_text("A = 2\n")
        assert compiled.folder() != before
        before = compiled.folder()


def test_the_build_of_these_sources_is_found_first(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled.folder().mkdir(parents=True)
    compiled.use_if_wanted()
    assert sys.path[0] == str(compiled.folder())
    assert capsys.readouterr().err == ""


def test_without_one_the_sources_run_and_a_line_says_so(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = [*sys.path]
    (checkout / "build" / "0123456789abcdef").mkdir(parents=True)  # of other sources
    compiled.use_if_wanted()
    assert sys.path == path
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("SMTPGATE_COMPILED=1: no build of these sources in ")


def test_nothing_is_looked_for_where_nobody_wants_it(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled.folder().mkdir(parents=True)
    monkeypatch.delenv(compiled.VARIABLE)
    path = [*sys.path]
    compiled.use_if_wanted()
    assert sys.path == path


def test_what_is_built_from_has_every_package(tmp_path: Path) -> None:
    """setup.py asks for the folders of all that pyproject.toml names, and not of what is compiled alone."""
    copy_sources(tmp_path / "sources")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "lib")],
        cwd=tmp_path / "sources",
        env={**os.environ, "SMTPGATE_USE_MYPYC": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "lib/smtpgate_commands/gatectl.py").is_file()


def test_no_greenlet_runs_a_compiled_function_whose_arguments_only_it_has() -> None:
    """gevent drops them when it kills a greenlet, and a compiled function has only borrowed its own: a session that
    was cut crashed the worker. `spawn(lambda: f(argument))` keeps them.
    """
    found = []
    for path in sorted((ROOT / "smtpgate/drivers").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sessions.spawn", "Greenlet.spawn"):
                found += [f"{path.name}:{node.lineno}"] if len(node.args) > 1 else []
    assert found == []


# --- the real thing ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> Path:
    if os.environ.get("SMTPGATE_LONG") != "1":
        pytest.skip("compiles for a minute or two: SMTPGATE_LONG=1")
    if shutil.which("cc") is None or not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        pytest.skip("needs a C compiler and Python's headers")
    return build()


@pytest.mark.timeout(1200)
def test_the_suites_pass_against_it(built: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-o", f"pythonpath={built} . tests tests/lib"]
    skipped = [option for test in CANNOT for option in ("--deselect", test)]
    assert run(["-m", "pytest", *options, *skipped, *SUITES]) == ""


@pytest.mark.timeout(600)
def test_a_proxy_runs_it(built: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "proxy.py", "--version"], cwd=ROOT, env=WITH_IT, capture_output=True, text=True
    )
    assert shown.stdout.endswith(", compiled\n")
    delivery = ["tests/e2e/test_delivery.py", "tests/e2e/test_backend_starttls.py", "tests/e2e/test_redis.py"]
    assert run(["-m", "pytest", "-q", "-p", "no:cacheprovider", *delivery]) == ""


WITH_IT = {**os.environ, compiled.VARIABLE: "1"}


def run(command: list[str]) -> str:
    """The end of what it said, "" where it succeeded."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=WITH_IT, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-1000:]}"
