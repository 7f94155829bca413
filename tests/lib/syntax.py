"""The source as syntax trees, and what can be known of an expression without running it.

Owns a small inference over a whole package, by annotations, literals, patterns and return types: is this octets, is
it ASCII, which pattern does this match come from. It answers only where it is sure. Refuses to know what is a fault.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from re import _constants as sre  # type: ignore[attr-defined] # the only reader of patterns that agrees with re
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

# fmt: off
_SAME_KIND: Final = frozenset((
    "upper", "lower", "strip", "lstrip", "rstrip", "replace", "removeprefix", "removesuffix", "translate", "join",
    "ljust", "rjust", "partition", "rpartition", "split", "rsplit", "splitlines",
))
# fmt: on
_OCTET_TYPES: Final = frozenset(("bytes", "bytearray", "memoryview"))
_ASCII_TYPES: Final = frozenset(("int", "float", "bool"))
_CONTAINERS: Final = frozenset(("None", "Final", "list", "tuple", "Sequence", "Iterator"))
_CYCLE: Final = "?"


@dataclass(frozen=True, slots=True)
class Finding:
    """A place that looks like a trap. site: the expression, as Python writes it: it survives moved lines."""

    file: str
    line: int
    site: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.site}"


class Module:
    """One file's syntax."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.tree = ast.parse(text)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def walk(self, *kinds: type[ast.AST]) -> Iterator[Any]:
        return (node for node in ast.walk(self.tree) if isinstance(node, kinds))

    def function_of(self, node: ast.AST) -> ast.AST:
        """The innermost function around a node, or the module."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                return node
        return self.tree

    def finding(self, node: ast.expr) -> Finding:
        return Finding(self.name, node.lineno, ast.unparse(node))


class Package:
    """All modules, and what can be known of their names."""

    def __init__(self, modules: Sequence[Module]) -> None:
        self.modules = modules

    @classmethod
    def read(cls, root: Path, *folders: str) -> Package:
        paths = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
        return cls([Module(str(path.relative_to(root)), path.read_text("utf-8")) for path in paths])

    @cached_property
    def patterns(self) -> Mapping[str, list[re.Pattern[Any]]]:
        """Module-level name -> the patterns that it has, in any module."""
        found = defaultdict(list)
        for module in self.modules:
            for name, value in fold(module.tree).items():
                if isinstance(value, re.Pattern):
                    found[name].append(value)
        return found

    @cached_property
    def returns(self) -> Mapping[str, set[str]]:
        """Function or method name, a method's also behind its class ("Head.last") -> what those functions return."""
        found = defaultdict(set)
        for module in self.modules:
            for node in module.walk(ast.FunctionDef):
                names, owner = [node.name], module.parents[node]
                if isinstance(owner, ast.ClassDef):
                    names.append(f"{owner.name}.{node.name}")
                for name in names:
                    found[name].add(ast.unparse(node.returns) if node.returns else "")
        return found

    @cached_property
    def attributes(self) -> Mapping[str, set[str]]:
        """Attribute name -> the types of all attributes of that name."""
        found = defaultdict(set)
        for module in self.modules:
            for node in module.walk(ast.ClassDef):
                for field in node.body:
                    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                        found[field.target.id].add(ast.unparse(field.annotation))
            for node in module.walk(ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Attribute):
                        found[target.attr].add(_literal_type(node.value))
        return found

    def is_octets(self, module: Module, node: ast.expr) -> bool:
        """Whether an expression is known to be octets, not text."""
        return self._kind(module, node, frozenset()) == "octets"

    def is_ascii(self, module: Module, node: ast.expr) -> bool:
        """Whether an expression is known to be ASCII text, or a number."""
        return self._kind(module, node, frozenset()) == "ascii"

    def _kind(self, module: Module, node: ast.expr, seen: frozenset[ast.AST]) -> str:
        if node in seen:
            return _CYCLE
        seen |= {node}
        match node:
            case ast.Constant(value=bytes()):
                return "octets"
            case ast.Constant(value=str(text)):
                return "ascii" if text.isascii() else ""
            case ast.Constant(value=int() | float()):
                return "ascii"
            case ast.Name(id=name):
                return self._kind_of_name(module, node, name, seen)
            case ast.Attribute(attr=attr):
                return _kind_of_types(self.attributes.get(attr, set()))
            case ast.Call(func=ast.Attribute(attr="encode")):
                return "octets"
            case ast.Call(func=ast.Attribute(attr="decode"), args=[ast.Constant(value="ascii"), *_]):
                return "ascii"
            case ast.Call(func=ast.Attribute(value=owner, attr="group")):
                return self._kind_of_group(module, owner, seen)
            case ast.Call(func=ast.Attribute(value=owner, attr=method), args=args) if method in _SAME_KIND:
                if any(isinstance(one, ast.Constant) and isinstance(one.value, bytes) for one in args):
                    return "octets"  # or the call would raise
                return self._kind(module, owner, seen)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                if name in _OCTET_TYPES | _ASCII_TYPES:
                    return _kind_of_types({name})
                return _kind_of_types(
                    self.returns.get(_owner_class(module, node) + name) or self.returns.get(name, set())
                )
            case ast.Subscript(value=owner, slice=index):
                kind = self._kind(module, owner, seen)
                is_one_octet = kind == "octets" and isinstance(owner, ast.Name) and not isinstance(index, ast.Slice)
                return "ascii" if is_one_octet else kind or self._kind_of_group(module, owner, seen)
            case ast.List(elts=parts) | ast.Tuple(elts=parts) if parts:
                return _agreed({self._kind(module, part, seen) for part in parts})
            case ast.BoolOp(values=values):
                return _agreed({self._kind(module, value, seen) for value in values})
            case ast.BinOp(left=left, right=right):
                return _agreed({self._kind(module, left, seen), self._kind(module, right, seen)})
            case ast.IfExp(body=body, orelse=orelse):
                return _agreed({self._kind(module, body, seen), self._kind(module, orelse, seen)})
        return ""

    def _kind_of_name(self, module: Module, node: ast.expr, name: str, seen: frozenset[ast.AST]) -> str:
        scope = module.function_of(node)
        if isinstance(scope, ast.FunctionDef):
            for argument in (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs):
                if argument.arg == name:
                    kind = _kind_of_types({ast.unparse(argument.annotation)} if argument.annotation else set())
                    return _agreed({kind, *(self._kind(module, value, seen) for value in assigned(scope, name))})
        values = assigned(scope, name) or assigned(module.tree, name)
        return _agreed({self._kind(module, value, seen) for value in values})

    def _kind_of_group(self, module: Module, owner: ast.expr, seen: frozenset[ast.AST]) -> str:
        """A group of a match: octets where the pattern is, ASCII where it can match nothing else."""
        matched = self.pattern_behind(module, owner, seen)
        if not matched:
            return ""
        return _agreed({_kind_of_pattern(pattern) for pattern in matched})

    def pattern_behind(
        self, module: Module, node: ast.expr, seen: frozenset[ast.AST] = frozenset()
    ) -> list[re.Pattern[Any]]:
        """The patterns that a match object may come from."""
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="fullmatch" | "match" | "search")):
                return self.pattern_of(owner)
            case ast.Name(id=name):
                values = assigned(module.function_of(node), name)
                found = [self.pattern_behind(module, value, seen | {node}) for value in values if value not in seen]
                return [pattern for patterns in found for pattern in patterns]
            case ast.NamedExpr(value=value) | ast.IfExp(body=value):
                return self.pattern_behind(module, value, seen)
        return []

    def pattern_of(self, node: ast.expr) -> list[re.Pattern[Any]]:
        """What a name of a pattern stands for, `_LINE` or `grammar.LINE`."""
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return self.patterns.get(name, [])
        return []


def _owner_class(module: Module, call: ast.Call) -> str:
    """ "Head." of a method call on a parameter that is a Head."""
    scope = module.function_of(call)
    if (
        isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and isinstance(scope, ast.FunctionDef)
    ):
        for argument in scope.args.args:
            if argument.arg == call.func.value.id and argument.annotation is not None:
                return ast.unparse(argument.annotation) + "."
    return ""


def _agreed(kinds: set[str]) -> str:
    """One kind for all, leaving out what depends on itself."""
    kinds = kinds - {_CYCLE}
    return next(iter(kinds)) if len(kinds) == 1 else ""


def _kind_of_types(types: set[str]) -> str:
    """A container is of the kind of its elements."""
    names = {name for one in types for name in re.findall(r"[A-Za-z_]+", one)} - _CONTAINERS
    if names and names <= _OCTET_TYPES:
        return "octets"
    return "ascii" if names and names <= _ASCII_TYPES else ""


def is_number_type(annotation: ast.expr) -> bool:
    return _kind_of_types({ast.unparse(annotation)}) == "ascii"


def _literal_type(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=value):
            return type(value).__name__
        case ast.Call(func=ast.Name(id=name)):
            return name
    return "?"


def assigned(scope: ast.AST, name: str) -> list[ast.expr]:
    """Everything that a local name is bound to; of an unpacking the whole that is unpacked."""
    found: list[ast.expr] = []
    for node in ast.walk(scope):
        match node:
            case ast.Assign(targets=targets, value=value):
                if any(_binds(target, name) for target in targets):
                    found.append(_element(targets[0], value, name))
            case ast.AnnAssign(target=ast.Name(id=bound), value=ast.expr() as value) if bound == name:
                found.append(value)
            case ast.NamedExpr(target=ast.Name(id=bound), value=value) if bound == name:
                found.append(value)
            case ast.AugAssign(target=ast.Name(id=bound), value=value) if bound == name:
                found.append(value)
            case ast.For() | ast.comprehension() if _binds(node.target, name):
                found.append(node.iter)
    return found


def _binds(target: ast.AST, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(target))


def _element(target: ast.expr, value: ast.expr, name: str) -> ast.expr:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        return next(one for place, one in zip(target.elts, value.elts, strict=True) if _binds(place, name))
    return value


# --- patterns ------------------------------------------------------------------------------------------------

# fmt: off
_FOLDABLE: Final = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.Mod, ast.Add, ast.Sub, ast.Mult, ast.Pow,
    ast.Tuple, ast.JoinedStr, ast.FormattedValue, ast.Attribute, ast.Call, ast.keyword, ast.BitOr,
)
# fmt: on


def fold(tree: ast.Module) -> dict[str, Any]:
    """The module's constants that follow from its text alone, patterns among them."""
    known: dict[str, Any] = {"re": re}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if not isinstance(target, ast.Name) or not isinstance(value, ast.expr):
            continue
        expression = ast.Expression(value)
        calls = [one.func for one in ast.walk(expression) if isinstance(one, ast.Call)]
        if all(isinstance(one, _FOLDABLE) for one in ast.walk(expression)) and all(
            ast.unparse(call) == "re.compile" for call in calls
        ):
            try:
                known[target.id] = eval(compile(expression, "<fold>", "eval"), {"__builtins__": {}}, known)
            except (NameError, AttributeError, TypeError):
                pass
    return {name: value for name, value in known.items() if name != "re"}


def _tokens(pattern: re.Pattern[Any]) -> Iterator[tuple[Any, Any]]:
    """Every (operation, argument) of a pattern, at any depth."""

    def inside(items: Any) -> Iterator[tuple[Any, Any]]:
        for operation, argument in items:
            yield operation, argument
            stack = [argument]
            while stack:
                one = stack.pop()
                if isinstance(one, _parser.SubPattern):
                    yield from inside(one)
                elif isinstance(one, list | tuple):
                    if len(one) == 2 and isinstance(one[0], sre._NamedIntConstant):
                        yield one[0], one[1]
                    stack.extend(part for part in one if isinstance(part, list | tuple | _parser.SubPattern))

    yield from inside(_parser.parse(pattern.pattern, pattern.flags))


def dollars(pattern: re.Pattern[Any]) -> int:
    """How often `$` stands in it for the end: it also matches before a last LF."""
    return sum(operation is sre.AT and argument is sre.AT_END for operation, argument in _tokens(pattern))


def ends_in_newline(pattern: re.Pattern[Any]) -> bool:
    """Whether whatever it matches ends in LF, so that nothing of the line is left behind it."""
    items = _parser.parse(pattern.pattern, pattern.flags)
    return len(items) > 0 and items[-1] == (sre.LITERAL, 0x0A)


def _kind_of_pattern(pattern: re.Pattern[Any]) -> str:
    if isinstance(pattern.pattern, bytes):
        return "octets"
    for operation, argument in _tokens(pattern):
        if operation in (sre.ANY, sre.NEGATE, sre.NOT_LITERAL):
            return ""
        if operation is sre.CATEGORY and not pattern.flags & re.ASCII:
            return ""
        if operation is sre.LITERAL and argument > 0x7F:
            return ""
        if operation is sre.RANGE and argument[1] > 0x7F:
            return ""
    return "ascii"
