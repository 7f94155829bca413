"""Python's traps for whoever reads a wire (reference/security.md section I), looked for in the syntax of the source.

A rule must be precise, or it is switched off: it complains only where the octets of a stranger may reach the trap, as
far as `syntax` can tell. What it cannot tell and a reader can is argued in test_traps.py, site by site.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Final

from syntax import Finding, Module, Package, assigned, dollars, ends_in_newline, fold, is_number_type

# They know all of Unicode: "QU\u0131T".upper() is QUIT, "a\x85b" has two lines, "\u0663".isdigit() is true.
# fmt: off
CASE_METHODS: Final = frozenset((
    "upper", "lower", "casefold", "title", "capitalize", "swapcase", "splitlines",
    "isdigit", "isdecimal", "isnumeric", "isalpha", "isalnum", "isspace",
))
# fmt: on
# Without an argument they take U+0085, U+2028 and the like for spaces.
SPACE_METHODS: Final = frozenset(("strip", "lstrip", "rstrip", "split"))

Rule = Callable[[Package, Module], Iterator[Finding]]


def text_methods(package: Package, module: Module) -> Iterator[Finding]:
    """str's methods of case, space, lines and digits, on anything but octets and ASCII."""
    for node in module.walk(ast.Call):
        if not isinstance(node.func, ast.Attribute):
            continue
        method, owner = node.func.attr, node.func.value
        trapped = method in CASE_METHODS or (method in SPACE_METHODS and not node.args)
        trapped = trapped and not (
            isinstance(owner, ast.Name) and "isascii" in _asked(module.function_of(node), owner.id)
        )
        if trapped and not package.is_octets(module, owner) and not package.is_ascii(module, owner):
            yield module.finding(node)


def unchecked_int(package: Package, module: Module) -> Iterator[Finding]:
    """int() of text that no fullmatch in the same function has seen: it takes "+5", " 5 ", "1_0" and U+0663."""
    for node in module.walk(ast.Call):
        match node:
            case ast.Call(func=ast.Name(id="int"), args=[argument, *_]):
                if not _is_checked(package, module, argument, frozenset()):
                    yield module.finding(node)


def _is_checked(package: Package, module: Module, node: ast.expr, seen: frozenset[str]) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.Subscript(value=owner):
            return bool(package.pattern_behind(module, owner))
        case ast.BoolOp(values=values):
            return all(_is_checked(package, module, value, seen) for value in values)
        case ast.Call(func=ast.Attribute(value=owner, attr="strip" | "lstrip" | "rstrip"), args=[_]):
            return _is_checked(package, module, owner, seen)
        case ast.Name(id=name):
            scope = module.function_of(node)
            if _is_number(scope, name) or _is_matched(scope, name):
                return True
            values = [] if name in seen else assigned(scope, name)
            return bool(values) and all(_is_checked(package, module, value, seen | {name}) for value in values)
    return False


def _is_number(scope: ast.AST, name: str) -> bool:
    """A parameter that is one already."""
    if not isinstance(scope, ast.FunctionDef):
        return False
    arguments = (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs)
    return any(one.arg == name and one.annotation and is_number_type(one.annotation) for one in arguments)


def _is_matched(scope: ast.AST, name: str) -> bool:
    """`PATTERN.fullmatch(name)` in the same function, or both of isascii() and isdecimal()."""
    for node in ast.walk(scope):
        match node:
            case ast.Call(func=ast.Attribute(attr="fullmatch"), args=[ast.Name(id=given)]) if given == name:
                return True
    return _asked(scope, name) >= {"isascii", "isdecimal"}


def _asked(scope: ast.AST, name: str) -> set[str]:
    """The methods of a local name that a function calls."""
    return {
        node.func.attr
        for node in ast.walk(scope)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == name
    }


def dollar_ends(package: Package, module: Module) -> Iterator[Finding]:
    """`$` in a pattern, wherever it stands: `a$` matches "a\\n". fullmatch and \\Z say what is meant."""
    known = fold(module.tree)
    for name, value in known.items():
        if isinstance(value, re.Pattern) and dollars(value):
            yield Finding(module.name, 0, f"{name} = {value.pattern!r}")
    for node in module.walk(ast.Call):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="re"), attr=function),
                args=[ast.Constant(value=str() | bytes() as text), *_],
            ) if function != "escape" and isinstance(module.function_of(node), ast.FunctionDef):
                if dollars(re.compile(text)):
                    yield module.finding(node)


def half_matches(package: Package, module: Module) -> Iterator[Finding]:
    """match() where what is behind the match is lost: not from a position, not to an end() that is looked at, and not
    with a pattern that takes its line's end.
    """
    for node in module.walk(ast.Call):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr="match")):
                yield module.finding(node)
            case ast.Call(func=ast.Attribute(value=owner, attr="match"), args=[_]):
                patterns = package.pattern_of(owner)
                if patterns and not all(map(ends_in_newline, patterns)) and not _end_is_used(module, node):
                    yield module.finding(node)


def _end_is_used(module: Module, call: ast.Call) -> bool:
    scope = module.function_of(call)
    names = {
        target.id
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign | ast.NamedExpr) and node.value is call
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    return any(
        isinstance(node, ast.Attribute) and node.attr == "end" and ast.unparse(node.value) in names
        for node in ast.walk(scope)
    )


_BASE64: Final = frozenset(("b64decode", "a2b_base64", "urlsafe_b64decode", "standard_b64decode", "decodebytes"))
_ENCODERS: Final = frozenset(("b64encode", "b2a_base64", "urlsafe_b64encode", "standard_b64encode"))


def lenient_base64(package: Package, module: Module) -> Iterator[Finding]:
    """Decoding that drops what is no base64, and is not compared with the one right spelling."""
    for node in module.walk(ast.Call):
        name = _called(node)
        if name not in _BASE64:
            continue
        strict = any(
            word.arg in ("validate", "strict_mode") and ast.unparse(word.value) == "True" for word in node.keywords
        )
        spelt_again = any(
            isinstance(other, ast.Call) and _called(other) in _ENCODERS
            for other in ast.walk(module.function_of(node))
        )
        if not strict and not spelt_again:
            yield module.finding(node)


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def loose_yaml(package: Package, module: Module) -> Iterator[Finding]:
    """yaml's own loaders: duplicate keys, aliases without bound, `no` for false (security.md F11)."""
    for node in module.walk(ast.Attribute):
        if ast.unparse(node.value) == "yaml" and "load" in node.attr.lower() and not node.attr.endswith("Loader"):
            yield module.finding(node)


def lenient_http(package: Package, module: Module) -> Iterator[Finding]:
    """http.client's putheader() folds a value with line ends into the header instead of refusing it."""
    for node in module.walk(ast.Import, ast.ImportFrom):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            if name in ("http.client", "urllib.request"):
                yield Finding(module.name, node.lineno, ast.unparse(node))


def pasted_lines(package: Package, module: Module) -> Iterator[Finding]:
    """A line with its end made by %, +, format() or an f-string, and octets shown by an f-string as b'...'."""
    for node in module.walk(ast.BinOp, ast.JoinedStr, ast.Call):
        match node:
            case ast.BinOp(left=ast.Constant(value=str() | bytes() as text), op=ast.Mod()):
                pasted = _has_newline(text)
            case ast.BinOp(op=ast.Add()):
                parts = [] if isinstance(module.parents[node], ast.BinOp) else _summands(node)
                pasted = any(
                    isinstance(part, ast.Constant) and _has_newline(part.value) for part in parts
                ) and not all(isinstance(part, ast.Constant) or ast.unparse(part).isupper() for part in parts)
            case ast.JoinedStr(values=values):
                pasted = any(isinstance(part, ast.Constant) and _has_newline(part.value) for part in values) or any(
                    isinstance(part, ast.FormattedValue)
                    and part.conversion == -1
                    and package.is_octets(module, part.value)
                    for part in values
                )
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str() as text), attr="format")):
                pasted = _has_newline(text)
            case _:
                pasted = False
        if pasted:
            yield module.finding(node)


def _summands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _summands(node.left) + _summands(node.right)
    return [node]


def _has_newline(text: object) -> bool:
    return (isinstance(text, bytes) and b"\r\n" in text) or (isinstance(text, str) and "\r\n" in text)


def naked_greenlets(package: Package, module: Module) -> Iterator[Finding]:
    """Whoever runs sessions catches everything, says so to the client, and closes: an uncaught error in a greenlet is
    a client that waits for ever.
    """
    for node in module.walk(ast.Call):
        if ast.unparse(node.func) != "flow.run":
            continue
        around: ast.AST = node
        while around in module.parents and not _catches_all(around):
            around = module.parents[around]
        if not _catches_all(around):
            yield module.finding(node)


def _catches_all(node: ast.AST) -> bool:
    if not isinstance(node, ast.Try):
        return False
    said = [
        _called(call)
        for handler in node.handlers
        if handler.type is not None and ast.unparse(handler.type) == "Exception"
        for call in ast.walk(handler)
        if isinstance(call, ast.Call)
    ]
    closed = [_called(call) for end in node.finalbody for call in ast.walk(end) if isinstance(call, ast.Call)]
    return "_last_words" in said and "close" in closed
