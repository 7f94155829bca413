"""The policies folder as real files: edits of every kind, and what never happens, an empty or a torn
policy.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpgate.document import DocumentError
from smtpgate.document.reader import MAX_TEXT
from smtpgate.drivers.policyfile import MAX_FILES, POLL_INTERVAL, PolicyFolder
from smtpgate.policy.model import Event
from smtpgate.routing.model import BackendSettings
from smtpgate.snapshot import Snapshot


def limits(burst: int) -> str:
    deny = '{reply: "450 4.7.1 slow down"}'
    limit = f'{{event: mail, rate: 1/1s, burst: {burst}, key: "{{user}}", deny: {deny}}}'
    return f"version: 1\nlimits: {{x: {limit}}}\n"


class Watched:
    """A folder and all that was told of it, as lines: "apply 5", "loaded 5", "failed <first problem>"."""

    def __init__(self, path: Path, environ: dict[str, str] | None = None) -> None:
        self.path = path
        self.told: list[str] = []
        self.folder = PolicyFolder(
            path,
            lambda snapshot: self.told.append(f"apply {_burst(snapshot)}"),
            lambda snapshot: self.told.append(f"loaded {_burst(snapshot)}"),
            lambda error: self.told.append(f"failed {str(error.problems[0]).removeprefix(f'{path}/')}"),
            environ=environ or {},
        )

    def write(self, text: str, name: str = "a.yaml") -> None:
        (self.path / name).write_text(text)

    def looks(self, count: int) -> list[str]:
        """What is told by `count` polls."""
        self.told.clear()
        for _ in range(count):
            self.folder.poll()
        return self.told.copy()


def _burst(snapshot: Snapshot) -> int:
    return int(sum(limit.burst for limit in snapshot.policy.limits.get(Event.MAIL, ())))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A folder that was loaded with burst 5 and has come to rest."""
    path = tmp_path / "policies"
    path.mkdir()
    watched = Watched(path)
    watched.write(limits(5))
    watched.folder.load()
    assert watched.told == ["apply 5", "loaded 5"]
    assert watched.looks(3) == []
    return watched


NEW = ["apply 7", "loaded 7"]


# --- at start -----------------------------------------------------------------------------------------------


def _empty(path: Path) -> None:
    path.mkdir()


def _hidden_only(path: Path) -> None:
    path.mkdir()
    (path / ".a.yaml").write_text(limits(1))
    (path / "notes.txt").write_text("hello")


def _file(path: Path) -> None:
    path.write_text(limits(1))


def _broken(path: Path) -> None:
    path.mkdir()
    (path / "a.yaml").write_text("version: 1\nlimits: []\n")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, ":1:1: cannot be read: No such file or directory"),
        (_file, ":1:1: cannot be read: Not a directory"),
        (_empty, ":1:1: the folder holds no policies; expected at least one *.yaml file"),
        (_hidden_only, ":1:1: the folder holds no policies; expected at least one *.yaml file"),
        (_broken, "/a.yaml:2:1: limits: is not a mapping"),
    ],
)
def test_a_folder_that_is_no_policy_is_refused_at_start(
    tmp_path: Path, prepare: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "policies"
    prepare(path)
    watched = Watched(path)
    with pytest.raises(DocumentError) as caught:
        watched.folder.load()
    assert str(caught.value).startswith(f"{path}{message}")
    assert watched.told == []


def test_check_applies_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(limits(9))
    assert _burst(PolicyFolder.check(tmp_path)) == 9
    (tmp_path / "b.yaml").write_text(limits(9))
    with pytest.raises(DocumentError, match="defined a second time"):
        PolicyFolder.check(tmp_path)


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    pools = 'pools: {p: {backends: [{name: m, addr: "m:25"}]}}\n'
    (tmp_path / "20.yaml").write_text("routes: [{name: last, match: {}, pool: p}]\n")
    (tmp_path / "10.yaml").write_text("routes: [{name: first, match: {user: a}, pool: p}]\n")
    (tmp_path / "30.yaml").write_text("version: 1\n" + pools)
    settings = BackendSettings(xclient="on")
    snapshot = PolicyFolder.check(tmp_path, backend=settings)
    assert [route.name for route in snapshot.routes] == ["first", "last"]
    assert snapshot.pools["p"].settings == settings


def test_variables_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nlimiter:\n  local_share: ${SHARE}\n")
    assert PolicyFolder.check(tmp_path, environ={"SHARE": "0.25"}).policy.local_share == 0.25


# --- edits --------------------------------------------------------------------------------------------------


def _in_place(watched: Watched) -> None:
    watched.write(limits(7))


def _renamed_into_place(watched: Watched) -> None:
    watched.write(limits(7), ".a.yaml.swp")
    os.replace(watched.path / ".a.yaml.swp", watched.path / "a.yaml")


def _same_size_and_mtime(watched: Watched) -> None:
    before = os.stat(watched.path / "a.yaml")
    watched.write(limits(7))
    os.utime(watched.path / "a.yaml", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(watched.path / "a.yaml")
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)


def _another_file(watched: Watched) -> None:
    watched.write(limits(2).replace("{x:", "{y:"), "b.yaml")


@pytest.mark.parametrize("edit", [_in_place, _renamed_into_place, _same_size_and_mtime, _another_file])
def test_an_edit_takes_effect_at_the_second_look(watched: Watched, edit: Callable[[Watched], None]) -> None:
    edit(watched)
    assert watched.looks(1) == []
    assert watched.looks(1) == NEW
    assert watched.looks(5) == []


def test_a_file_is_removed(watched: Watched) -> None:
    _another_file(watched)
    assert watched.looks(2) == NEW
    os.remove(watched.path / "b.yaml")
    assert watched.looks(2) == ["apply 5", "loaded 5"]


def test_a_symlink_swap(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap: a.yaml -> ..data/a.yaml, ..data -> ..1, swapped by a rename."""
    for name, burst in (("..1", 5), ("..2", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(limits(burst))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    watched = Watched(tmp_path)
    watched.folder.load()
    assert watched.looks(2) == []
    (tmp_path / "..new").symlink_to("..2")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    assert watched.looks(2) == NEW


def test_a_half_written_file_is_not_taken_for_the_whole(watched: Watched) -> None:
    """Its first half is a valid policy without limits; its middle is no policy at all."""
    whole = limits(7)
    watched.write(whole[:11])
    assert watched.looks(1) == []
    watched.write(whole[:30])
    assert watched.looks(1) == []
    watched.write(whole)
    assert watched.looks(1) == NEW
    assert watched.looks(5) == []


def test_a_storm_of_writes_does_not_starve_the_reader(watched: Watched) -> None:
    applied = []
    for burst in range(10, 22):
        watched.write(limits(burst))
        applied += watched.looks(1)
    assert applied[::2] == ["apply 12", "apply 15", "apply 18", "apply 21"]
    assert watched.looks(5) == []


def test_a_write_in_the_last_looks_tick_is_found(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system's clock is coarse: a second write may leave all that stat tells as it was."""
    fresh = Watched(watched.path)
    look = fresh.folder._look()
    monkeypatch.setattr(fresh.folder, "_look", lambda: look)
    fresh.folder.load()
    watched.write(limits(7))
    assert fresh.looks(1) == NEW
    assert fresh.looks(3) == []


def test_a_folder_that_moves_while_it_is_read(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    read = watched.folder._read
    writes = [limits(6), limits(7)]

    def read_and_write() -> list[tuple[str, bytes]]:
        files = read()
        if writes:
            watched.write(writes.pop(0))
        return files

    monkeypatch.setattr(watched.folder, "_read", read_and_write)
    watched.write(limits(10))
    told = watched.looks(10)
    assert told == NEW


# --- mistakes -----------------------------------------------------------------------------------------------


def test_a_mistake_changes_nothing_and_is_told_once(watched: Watched) -> None:
    watched.write(limits(7).replace("burst", "brust"))
    assert watched.looks(1) == []
    (told,) = watched.looks(1)
    assert told.startswith("failed a.yaml:2:39: limits.x.brust: unknown key")
    assert watched.looks(5) == []
    watched.write("version: 3\n")
    (told,) = watched.looks(5)
    assert told == "failed a.yaml:1:1: version: 3 is not a version of the policy language; expected 1"
    watched.write(limits(7))
    assert watched.looks(5) == NEW


def test_taking_a_mistake_back_is_told_too(watched: Watched) -> None:
    watched.write("version: 3\n")
    assert len(watched.looks(5)) == 1
    watched.write(limits(5))
    assert watched.looks(5) == ["loaded 5"]  # in force all the time
    watched.write("version: 3\n")
    assert len(watched.looks(5)) == 1


def test_a_deleted_folder_changes_nothing(watched: Watched) -> None:
    away = watched.path.with_name("away")
    watched.path.rename(away)
    told = watched.looks(5)
    assert told == [f"failed {watched.path}:1:1: cannot be read: No such file or directory"]
    away.rename(watched.path)
    assert watched.looks(5) == ["loaded 5"]
    os.remove(watched.path / "a.yaml")
    (told,) = watched.looks(5)
    assert told.endswith(": the folder holds no policies; expected at least one *.yaml file")
    watched.write(limits(7))
    assert watched.looks(2) == NEW


def test_a_dangling_symlink(watched: Watched) -> None:
    (watched.path / "b.yaml").symlink_to("nowhere")
    assert watched.looks(5) == ["failed b.yaml:1:1: cannot be read: No such file or directory"]
    watched.write(limits(2).replace("{x:", "{y:"), "nowhere")
    assert watched.looks(2) == NEW


def test_a_fifo_does_not_keep_us_waiting(watched: Watched) -> None:
    os.mkfifo(watched.path / "b.yaml")
    assert watched.looks(5) == ["failed b.yaml:1:1: this is not a regular file"]


def test_a_directory_with_a_files_name_costs_no_descriptors(watched: Watched) -> None:
    (watched.path / "b.yaml").mkdir()
    assert watched.looks(2) == ["failed b.yaml:1:1: cannot be read: Is a directory"]
    before = len(os.listdir("/proc/self/fd"))
    assert watched.looks(20) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_too_long(watched: Watched) -> None:
    watched.write("#" * (MAX_TEXT * 3))
    (told,) = watched.looks(2)
    assert told == f"failed a.yaml:1:1: the file has {MAX_TEXT + 1} octets; expected at most {MAX_TEXT}"


def test_too_many_files(watched: Watched) -> None:
    for i in range(MAX_FILES):
        watched.write("{}\n", f"b{i}.yaml")
    (told,) = watched.looks(2)
    assert told.endswith(f": the folder holds {MAX_FILES + 1} files; expected at most {MAX_FILES}")


def test_what_could_not_be_read_is_read_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process out of descriptors learns nothing of the files, though they do not change any more."""
    read = watched.folder._read

    def out_of_descriptors() -> list[tuple[str, bytes]]:
        raise OSError(24, "Too many open files", str(watched.path / "a.yaml"))

    monkeypatch.setattr(watched.folder, "_read", out_of_descriptors)
    watched.write(limits(7))
    assert watched.looks(5) == ["failed a.yaml:1:1: cannot be read: Too many open files"]
    monkeypatch.setattr(watched.folder, "_read", read)
    assert watched.looks(1) == NEW


# --- the loop -----------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


class CountingClock:
    """Sleeps are counted; the fourth ends the loop."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == 4:
            raise Stopped


def test_run_polls_for_ever(watched: Watched) -> None:
    clock = CountingClock()
    watched.write(limits(7))
    watched.told.clear()
    with pytest.raises(Stopped):
        watched.folder.run(clock)
    assert clock.slept == [POLL_INTERVAL] * 4
    assert watched.told == NEW
