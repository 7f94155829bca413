"""The policies folder as real files: edits of every kind, and what never happens, an empty or a torn
policy.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import ManualClock

from smtpgate.document import DocumentError
from smtpgate.document.reader import MAX_TEXT
from smtpgate.drivers.lastgood import LastGood
from smtpgate.drivers.policyfile import POLL_INTERVAL, FolderStatus, PolicyFolder, load_or_last_good
from smtpgate.drivers.policytext import MAX_FILES, FolderText
from smtpgate.drivers.sidefiles import FilesOnDisk
from smtpgate.policy.model import Event, Facts
from smtpgate.policy.select import select
from smtpgate.routing.model import BackendAuth, BackendSettings
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
    """Of all limits at MAIL, with those that only the user ann@vip.example has."""
    facts = Facts("192.0.2.1", listener="mx", tls=False, user="ann@vip.example", sender="", sender_domain="")
    return int(sum(limit.burst for limit in select(snapshot.policy, Event.MAIL, facts)))


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
    assert PolicyFolder.check(tmp_path, environ={"SHARE": "0.25"}).policy.limiter.local_share == 0.25


def test_the_files_that_a_pool_names_are_looked_into(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "version: 1\n"
        "routes: [{name: all, match: {}, pool: p}]\n"
        'pools: {p: {backends: [{name: m, addr: "m:25"}], smtp_auth: {user: u, password_file: pw.txt}}}\n'
    )
    assert PolicyFolder.check(tmp_path).pools["p"].settings.auth == BackendAuth(user="u")
    with pytest.raises(DocumentError, match=r"a.yaml:3:.*password_file: is not a file that is there .*/pw.txt"):
        PolicyFolder.check(tmp_path, side=FilesOnDisk())
    (tmp_path / "pw.txt").write_text("secret\n")
    found: list[Snapshot] = []
    PolicyFolder(tmp_path, found.append, side=FilesOnDisk()).load()
    assert found[0].pools["p"].settings.auth == BackendAuth(user="u", password="secret")


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


VIP = "version: 1\nsets: {vip: {file: vip.txt, type: user}}\n"


def vip_limits(burst: int) -> str:
    deny = '{reply: "450 4.7.1 slow down"}'
    match = 'match: {user: "@vip"}'
    return (
        f'{VIP}limits: {{v: {{event: mail, rate: 1/1s, burst: {burst}, key: "{{user}}", {match}, deny: {deny}}}}}\n'
    )


def test_a_set_file_is_watched_like_a_policy(tmp_path: Path) -> None:
    (tmp_path / "vip.txt").write_text("bob@vip.example\n")
    watched = Watched(tmp_path)
    watched.write(vip_limits(5))
    watched.folder.load()
    assert watched.told == ["apply 0", "loaded 0"]
    assert watched.looks(3) == []
    watched.write("bob@vip.example\nann@vip.example\n", "vip.txt")
    assert watched.looks(1) == []
    assert watched.looks(1) == ["apply 5", "loaded 5"]
    assert watched.looks(5) == []
    os.remove(tmp_path / "vip.txt")
    (told,) = watched.looks(5)
    assert told.startswith("failed a.yaml:2:")
    watched.write("bob@vip.example\nann@vip.example\n", "vip.txt")
    assert watched.looks(5) == ["loaded 5"]


def test_a_set_file_that_is_half_written(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.write("".join(f"u{i}@vip.example\n" for i in range(1000)) + "ann@vip.example\n", "vip.txt")
    watched.write(vip_limits(5))
    watched.folder.load()
    whole = (tmp_path / "vip.txt").read_text()
    watched.told.clear()
    for end in (0, 100, 5000, len(whole)):
        watched.write(whole[:end] + "# \n", "vip.txt")
        assert watched.looks(1) == [] or end == 5000  # a storm: read at the third look, with what was there
    assert watched.looks(5)[-2:] == ["apply 5", "loaded 5"]


def test_a_symlink_swap_takes_policies_and_sets_together(tmp_path: Path) -> None:
    """Kubernetes again: one rename changes the limit and the set that it names."""
    for name, burst, user in (("..1", 5, "bob"), ("..2", 7, "ann")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.yaml").write_text(vip_limits(burst))
        (tmp_path / name / "vip.txt").write_text(f"{user}@vip.example\n")
    (tmp_path / "..data").symlink_to("..1")
    for name in ("a.yaml", "vip.txt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    watched = Watched(tmp_path)
    watched.folder.load()
    assert watched.told == ["apply 0", "loaded 0"]
    assert watched.looks(2) == []
    (tmp_path / "..new").symlink_to("..2")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    assert watched.looks(2) == NEW
    # It removes the old folder afterwards.
    for name in ("a.yaml", "vip.txt"):
        os.remove(tmp_path / "..1" / name)
    (tmp_path / "..1").rmdir()
    assert watched.looks(5) == []


def test_a_whole_folder_is_renamed_into_place(watched: Watched) -> None:
    fresh = watched.path.with_name("fresh")
    fresh.mkdir()
    (fresh / "a.yaml").write_text(limits(7))
    watched.path.rename(watched.path.with_name("old"))
    told = watched.looks(1)
    fresh.rename(watched.path)
    assert told == []
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

    def read_and_write() -> FolderText:
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

    def out_of_descriptors() -> FolderText:
        raise OSError(24, "Too many open files", str(watched.path / "a.yaml"))

    monkeypatch.setattr(watched.folder, "_read", out_of_descriptors)
    watched.write(limits(7))
    assert watched.looks(5) == ["failed a.yaml:1:1: cannot be read: Too many open files"]
    monkeypatch.setattr(watched.folder, "_read", read)
    assert watched.looks(1) == NEW


# --- how things stand ---------------------------------------------------------------------------------------


def test_the_status_follows_the_folder(tmp_path: Path) -> None:
    clock = ManualClock()
    watched = Watched(tmp_path)
    watched.folder = PolicyFolder(tmp_path, lambda snapshot: None, environ={}, clock=clock)
    assert watched.folder.status == FolderStatus("", 0.0, False, ())
    watched.write("version: 3\n")
    with pytest.raises(DocumentError) as caught:
        watched.folder.load()
    assert watched.folder.status == FolderStatus("", 0.0, False, caught.value.problems)
    watched.write(limits(5))
    watched.looks(3)
    first = watched.folder.status
    assert (len(first.version), first.loaded, first.valid, first.problems) == (16, clock.time, True, ())
    clock.time += 60
    watched.write(limits(5).replace("burst", "brust"))
    watched.looks(3)
    broken = watched.folder.status
    assert (broken.version, broken.loaded, broken.valid) == (first.version, first.loaded, False)
    assert [str(problem) for problem in broken.problems] == [
        f"{tmp_path}/a.yaml:2:39: limits.x.brust: unknown key, did you mean burst?; expected one of "
        + str(broken.problems[0]).partition("expected one of ")[2]
    ]
    watched.write(limits(5))
    watched.looks(3)
    assert watched.folder.status == first
    clock.time += 60
    watched.write(limits(6))
    watched.looks(3)
    assert (watched.folder.status.loaded, watched.folder.status.valid) == (clock.time, True)
    assert watched.folder.status.version != first.version


def test_a_snapshot_that_is_in_force_already_is_not_applied_again(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(limits(5))
    snapshot = PolicyFolder.check(tmp_path)
    (tmp_path / "a.yaml").write_text("version: 3\n")
    told: list[str] = []
    folder = PolicyFolder(
        tmp_path,
        lambda snapshot: told.append("apply"),
        lambda snapshot: told.append("loaded"),
        lambda error: told.append("failed"),
        environ={},
        current=snapshot,
        clock=ManualClock(),
    )
    assert folder.status == FolderStatus(snapshot.version_hash, ManualClock().time, False, ())
    with pytest.raises(DocumentError):
        folder.load()
    for _ in range(5):
        folder.poll()
    assert told == []  # whoever called load() knows
    assert folder.status.version == snapshot.version_hash
    (tmp_path / "a.yaml").write_text(limits(5))
    for _ in range(5):
        folder.poll()
    assert told == ["loaded"]
    assert folder.status.valid


# --- last known good ----------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_what_is_in_force_is_what_a_broken_folder_starts_from(watched: Watched, state: Path) -> None:
    folder = PolicyFolder(watched.path, lambda snapshot: None, environ={}, keep=LastGood(state, watched.path))
    folder.load()
    snapshot, broken = load_or_last_good(watched.path, state, environ={})
    assert (_burst(snapshot), broken) == (5, None)
    watched.write(limits(7))
    for _ in range(3):
        folder.poll()
    watched.write(limits(8).replace("burst", "brust"))
    for _ in range(3):
        folder.poll()
    snapshot, broken = load_or_last_good(watched.path, state, environ={})
    assert _burst(snapshot) == 7
    assert snapshot.version_hash == folder.status.version
    assert broken is not None
    assert str(broken).startswith(f"{watched.path}/a.yaml:2:39: limits.x.brust: unknown key")
    # Its rules are told with the names and lines of the files that they came from.
    facts = Facts("192.0.2.1", listener="mx", tls=False, user="ann", sender="", sender_domain="")
    assert [one.source for one in select(snapshot.policy, Event.MAIL, facts)] == [f"{watched.path}/a.yaml:2"]


def test_a_set_file_is_kept_too(tmp_path: Path, state: Path) -> None:
    path = tmp_path / "policies"
    path.mkdir()
    (path / "a.yaml").write_text(vip_limits(5))
    (path / "vip.txt").write_text("ann@vip.example\n")
    PolicyFolder(path, lambda snapshot: None, environ={}, keep=LastGood(state, path)).load()
    os.remove(path / "vip.txt")
    snapshot, broken = load_or_last_good(path, state, environ={})
    assert _burst(snapshot) == 5
    assert broken is not None


def test_a_folder_that_is_gone(watched: Watched, state: Path) -> None:
    PolicyFolder(watched.path, lambda snapshot: None, environ={}, keep=LastGood(state, watched.path)).load()
    watched.path.rename(watched.path.with_name("away"))
    snapshot, broken = load_or_last_good(watched.path, state, environ={})
    assert _burst(snapshot) == 5
    assert str(broken) == f"{watched.path}:1:1: cannot be read: No such file or directory"


def test_no_last_good(watched: Watched, state: Path) -> None:
    watched.write("version: 3\n")
    for state_dir in (None, state):
        with pytest.raises(DocumentError) as caught:
            load_or_last_good(watched.path, state_dir, environ={})
        assert str(caught.value).startswith(f"{watched.path}/a.yaml:1:1: version: 3 is not a version")


def test_a_last_good_that_is_of_no_use_is_told_too(watched: Watched, state: Path) -> None:
    watched.write(limits(5).replace("rate: 1/1s", 'rate: "1/${PERIOD}"'))
    folder = PolicyFolder(
        watched.path, lambda snapshot: None, environ={"PERIOD": "1s"}, keep=LastGood(state, watched.path)
    )
    folder.load()
    watched.write("version: 3\n")
    with pytest.raises(DocumentError) as caught:
        load_or_last_good(watched.path, state, environ={})
    first, second = sorted(map(str, caught.value.problems))
    assert first.startswith(f"{watched.path}/a.yaml:1:1: version: 3 is not a version")
    assert second.startswith(
        f"{state}/policies.last-good.json:1:1: cannot be used in their place: {watched.path}/a.yaml:2:"
    )
    (state / "policies.last-good.json").write_text("{}")
    with pytest.raises(DocumentError, match=r"last-good\.json:1:1: is not a file of last good policies"):
        load_or_last_good(watched.path, state, environ={})


def test_a_disk_that_takes_nothing_is_told_once_in_a_row(watched: Watched, state: Path) -> None:
    state.write_text("in the way")
    told: list[str] = []
    folder = PolicyFolder(
        watched.path,
        lambda snapshot: None,
        environ={},
        keep=LastGood(state, watched.path),
        not_kept=told.append,
    )
    folder.load()
    fault = f"{state}/policies.last-good.json: cannot be written: File exists"
    assert told == [fault]
    for burst in (6, 7):
        watched.write(limits(burst))
        for _ in range(3):
            folder.poll()
    assert told == [fault]
    state.unlink()
    watched.write(limits(8))
    for _ in range(3):
        folder.poll()
    assert told == [fault]
    assert _burst(load_or_last_good(watched.path, state, environ={})[0]) == 8


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
