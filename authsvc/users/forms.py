"""Which form the file of a source has."""

from __future__ import annotations

from authsvc.users import passwdfile, usersyaml
from authsvc.users.fileform import FileForm
from authsvc.users.sources import PasswdFile, YamlFile


def form_of(source: YamlFile | PasswdFile, *, plain: bool) -> FileForm:
    """plain: whether {PLAIN} passwords are taken (`plain_passwords`)."""
    make = usersyaml.form if isinstance(source, YamlFile) else passwdfile.form
    return make(plain=plain)
