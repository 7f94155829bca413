"""What is kept comes back as it was, from memory and from a file; and what bounds it."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from smtpgate.drivers import spool
from smtpgate.drivers.spool import TemporarySpool

PIECES = [b"one\r\n", b"x" * 100_000, b"\0\xff" * 3, b"end\r\n"]


@pytest.mark.parametrize("memory", [0, 1, 4096, 100_010, 1 << 20])
def test_all_of_it_comes_back_again_and_again(memory):
    kept = TemporarySpool(memory)
    whole = b""
    for piece in PIECES:
        kept.write(piece)
        whole += piece
        assert b"".join(kept.chunks()) == whole
        assert b"".join(kept.chunks()) == whole
    assert max(map(len, kept.chunks())) == spool.READ_SIZE
    kept.close()
    kept.close()


def open_files():
    return [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path)]


def test_a_file_is_made_for_what_memory_does_not_hold_and_it_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = TemporarySpool(10)
    kept.write(b"0123456789")
    assert [name for name in open_files() if str(tmp_path) in name] == []
    kept.write(b"x")
    assert len([name for name in open_files() if str(tmp_path) in name]) == 1
    assert list(tmp_path.iterdir()) == []
    kept.close()
    assert [name for name in open_files() if str(tmp_path) in name] == []


def test_an_endless_message_is_bounded(monkeypatch):
    monkeypatch.setattr(spool, "MAX_OCTETS", 20)
    kept = TemporarySpool(100)
    kept.write(b"x" * 20)
    with pytest.raises(OSError) as fault:
        kept.write(b"x")
    assert fault.value.errno == errno.EFBIG
    kept.close()


def test_a_disk_that_is_full():
    """/dev/full takes nothing; the file's own buffer gives its octets to it late, at the latest when it is read."""
    kept = TemporarySpool(1)
    kept.write(b"xx")
    kept._file._file.close()
    kept._file._file = Path("/dev/full").open("w+b")  # noqa: SIM115, close() does
    kept.write(b"xx")
    with pytest.raises(OSError) as fault:
        list(kept.chunks())
    assert fault.value.errno == errno.ENOSPC
    with pytest.raises(OSError):
        kept.write(b"x" * 100_000)
    kept.close()


def test_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    kept = TemporarySpool(1)
    with pytest.raises(OSError):
        kept.write(b"xx")
    kept.close()
