from __future__ import annotations

from pathlib import Path

import pytest

from authsvc.users.forms import form_of
from authsvc.users.model import User
from authsvc.users.sources import PasswdFile, YamlFile
from smtpgate.document import DocumentError

CLEAR = User("test", ("{PLAIN}1234",))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (YamlFile(Path("users.yaml")), b'users: {test: {password: "{PLAIN}1234"}}'),
        (PasswdFile(Path("users")), b"test:{PLAIN}1234\n"),
    ],
)
def test_each_kind_of_file_has_its_form(source: YamlFile | PasswdFile, text: bytes) -> None:
    assert form_of(source, plain=True).parse(text, "x") == {"test": CLEAR}
    with pytest.raises(DocumentError, match=r"\{PLAIN\} passwords are not taken"):
        form_of(source, plain=False).parse(text, "x")
