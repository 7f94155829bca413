"""What the fields take and say; test_sources and test_config show them in their files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError

from authsvc.fields import MAX_SECRET, VISIBLE, duration_field, path_field, secret_file_field, text_field
from smtpgate.units import InvalidValue


class Keys(BaseModel):
    there: Annotated[Path | None, path_field(Path.is_file, "is not there", "a file")] = None
    text: Annotated[str | None, text_field(re.compile("[a-z]+"), "is no word", "letters")] = None
    secret: Annotated[str | None, secret_file_field(VISIBLE, "holds no secret", "visible ASCII")] = None
    time: Annotated[float | None, duration_field(60.0)] = None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "word").write_text("hunter2\n")
    (tmp_path / "windows").write_bytes(b"hunter2\r\n")
    (tmp_path / "two").write_text("hunter2\nhunter3\n")
    (tmp_path / "latin1").write_bytes(b"hunter\xfc\n")
    (tmp_path / "long").write_bytes(b"x" * (MAX_SECRET + 1))
    return tmp_path


def read(folder: Path, key: str, value: Any) -> Any:
    return getattr(Keys.model_validate({key: value}, context={"folder": folder}), key)


def test_paths_start_from_the_folder_of_the_file(folder: Path) -> None:
    assert read(folder, "there", "word") == folder / "word"
    assert read(Path("/no/such"), "there", str(folder / "word")) == folder / "word"


@pytest.mark.parametrize("name", ["word", "windows"])
def test_a_secret_is_the_only_line_of_its_file(folder: Path, name: str) -> None:
    assert read(folder, "secret", name) == "hunter2"


def test_text_and_durations(folder: Path) -> None:
    assert read(folder, "text", "abc") == "abc"
    assert read(folder, "time", "1m") == 60.0


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("there", "none", '"none" is not there; expected a file'),
        ("there", "", '"" is not a path; expected a file'),
        ("there", 7, "7 is not a path; expected a file"),
        ("there", "a\0b", r'"a\x00b" is not a path; expected a file'),
        ("text", "hunter2", "is no word; expected letters"),
        ("text", 7, "is no word; expected letters"),
        ("secret", "none", '"none" is not a file that is there; expected a file with one line, the secret'),
        ("secret", "two", "its file holds no secret; expected visible ASCII"),
        ("secret", "latin1", "its file holds no secret; expected visible ASCII"),
        ("secret", "long", "its file holds no secret; expected visible ASCII"),
        ("time", "61s", '"61s" is too long; expected at most 1m'),
        ("time", 61, "61 is not a duration; expected e.g. 500ms, 10s, 5m, 1h, 1d"),
    ],
)
def test_what_does_not_fit(folder: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read(folder, key, value)
    fault = caught.value.errors()[0]["ctx"]["error"]
    assert isinstance(fault, InvalidValue)
    assert str(fault) == message
