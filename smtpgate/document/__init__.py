"""A YAML text -> plain values with marks -> a validated model; every fault as file:line:column.

The one way in which this program reads configuration (reference/security.md F11). tree (a document as a value,
its faults), reader (YAML to a tree), validation (a tree to a pydantic model), files (a path to bytes), account (the
system's users that two files name). All but the last two are PURE and work on bytes. What the keys mean is not known
here.

    document = load(text, source="conf/proxy.yaml", environ=os.environ)
    settings = validate(document, SettingsModel)

`read` does both, and tells the faults of both at once.
"""

from smtpgate.document.files import read_file
from smtpgate.document.reader import load, parse
from smtpgate.document.tree import Document, DocumentError, Mark, Path, Problem, render
from smtpgate.document.validation import check, read, validate

__all__ = [
    "Document",
    "DocumentError",
    "Mark",
    "Path",
    "Problem",
    "check",
    "load",
    "parse",
    "read",
    "read_file",
    "render",
    "validate",
]
