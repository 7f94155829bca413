"""nginx.conf as a tree of directives with their places. Owns the includes; crossplane owns the syntax."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import crossplane

_UNTERMINATED: Final = "is not terminated by"
_ESCAPES: Final = {'"': '"', "'": "'", "\\": "\\", "t": "\t", "r": "\r", "n": "\n"}
_ESCAPE = re.compile(r"""\\(["'\\trn])""")


class NginxSyntaxError(ValueError):
    """The file, or one that it includes, is not nginx configuration. `str()` is "file:line: what is wrong"."""


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive. block: of `server { … }` what stands inside, None where there is no block."""

    name: str
    args: tuple[str, ...]
    file: str
    line: int
    block: tuple[Directive, ...] | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def inside(self, name: str) -> tuple[Directive, ...]:
        """All directives of that name directly inside."""
        return tuple(one for one in self.block or () if one.name == name)


def read(path: Path) -> tuple[Directive, ...]:
    """What stands at the top level, includes put in their places. Raises NginxSyntaxError, OSError."""
    with path.open("rb"):
        pass  # crossplane would tell of a missing file in its own words
    # crossplane knows the arguments of an older nginx, but looks at line ends only where it looks at arguments.
    strict = crossplane.parse(str(path), comments=False, check_ctx=False)
    payload = crossplane.parse(str(path), comments=False, check_ctx=False, check_args=False)
    for error in [one for one in strict["errors"] if _UNTERMINATED in one["error"]] + payload["errors"]:
        # crossplane ends with the place again.
        text = str(error["error"]).partition(f" in {error['file']}")[0]
        raise NginxSyntaxError(f"{error['file']}:{error['line'] or 1}: {text}")
    configs = payload["config"]
    return tuple(_directives(configs, configs[0]["parsed"], configs[0]["file"]))


def _directives(configs: Sequence[Any], parsed: Sequence[Any], file: str) -> Iterator[Directive]:
    for one in parsed:
        if one["directive"] == "include":
            for index in one["includes"]:
                yield from _directives(configs, configs[index]["parsed"], configs[index]["file"])
            continue
        block = tuple(_directives(configs, one["block"], file)) if "block" in one else None
        yield Directive(one["directive"], tuple(map(_unescape, one["args"])), file, one["line"], block)


def _unescape(word: str) -> str:
    """As ngx_conf_read_token does, which crossplane leaves to its user."""
    return _ESCAPE.sub(lambda found: _ESCAPES[found[1]], word)
