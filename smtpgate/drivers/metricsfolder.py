"""The metrics of all workers of one program: prometheus_client's multi-process files, one set a worker.

The first process makes a folder before it forks. Each worker takes a slot in it, by a lock that the kernel gives back
when the worker dies, however it dies. Counters and histograms of a slot are sums that its next owner goes on with: so
nothing that was counted is lost with a killed worker but its last second, no counter goes back, and there are never
more files than workers at once (uWSGI's worker ids do the same for the library). Gauges are those of workers that
live. Whoever is asked reads the files of all and lets the library put them together.

The files are taken from the disk in full when they are made: a map that has no page behind it, on a file system that
is full, would end the worker with SIGBUS. So a slot has room for FILE_SIZE of each kind, and what does not fit is not
told.

A program that is upgraded (USR2) hands the folder on in its environment. A folder that nobody holds any more, as a
crash of the first process leaves it, is removed by the next one that starts. Refuses to know what is counted.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from smtpgate.drivers.metricsvalues import Families, Family, Gauge, Labels
from smtpgate.units import MAX_WORKERS

# systemd's RuntimeDirectory= (systemd.exec(5)): on a tmpfs, and gone with the service.
RUNTIME_DIRECTORY: Final = "RUNTIME_DIRECTORY"
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - a folder of our own, for us alone, is made there
# Before the program's name: where its folder is, for the program that it is upgraded to.
VARIABLE: Final = "SMTPGATE_METRICS_"
# While the proxy reloads, the old workers drain beside the new ones.
MAX_SLOTS: Final = 2 * MAX_WORKERS
# Of each of a slot's five files: some 2000 series.
FILE_SIZE: Final = 1 << 19
# Octets that an entry has beside its key: two numbers, its length, padding, and as many again to be sure.
ENTRY: Final = 64

_HOLD: Final = "held"
# The library has no types here.
_MmapedDict: Final[Any] = MmapedDict
_merge: Final[Any] = MultiProcessCollector.merge


class MetricsFolder:
    """The folder. Made or taken over by the first process. Raises OSError.

    program: part of its name. environ: says where it may be, or where the one is that the program before an upgrade
    has handed over; where this one is, is written there.
    """

    def __init__(self, program: str, environ: MutableMapping[str, str]) -> None:
        variable, prefix = f"{VARIABLE}{program.upper()}", f"smtpgate-{program}-metrics-"
        self._maker = os.getpid()
        handed = environ.get(variable, "")
        if handed and os.path.isdir(handed):
            self.path = Path(handed)
        else:
            parent = _parent(environ)
            _sweep(parent, prefix)
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._held = _hold(self.path / _HOLD)
        environ[variable] = str(self.path)

    def close(self) -> None:
        """Remove it, unless another program goes on with it. For the first process's end: in a worker, which has
        inherited whatever was registered for that, it does nothing.
        """
        if os.getpid() == self._maker and _locked(self._held):
            shutil.rmtree(self.path, ignore_errors=True)

    def claim(self) -> Slot:
        """A slot for this process. Raises OSError: none is free, or there is no room on the disk."""
        for number in range(MAX_SLOTS):
            lock = os.open(self._lock_of(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if _locked(lock):
                    return Slot(self, number, lock)
            except OSError:
                os.close(lock)
                raise
            os.close(lock)
        raise OSError(f"{self.path}: all {MAX_SLOTS} slots are taken")

    def slots(self) -> Iterator[tuple[int, bool]]:
        """Number of each slot that ever had an owner, and whether it has one that lives."""
        for number in range(MAX_SLOTS):
            try:
                lock = os.open(self._lock_of(number), os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                yield number, not _locked(lock, fcntl.LOCK_SH)
            finally:
                os.close(lock)

    def file(self, kind: str, slot: int) -> Path:
        """kind: "counter", "histogram", "gauge_sum", "gauge_max" or "gauge_min"; the library reads it from there."""
        return self.path / f"{kind}_{slot}.db"

    def _lock_of(self, slot: int) -> Path:
        return self.path / f"slot_{slot}"


class Slot:
    """What one process tells. Its owner alone writes it."""

    def __init__(self, folder: MetricsFolder, number: int, lock: int) -> None:
        self.folder = folder
        self.number = number
        self._lock = lock
        self._released = False
        self._counters = _Sums(folder.file("counter", number))
        self._histograms = _Sums(folder.file("histogram", number))
        self._gauges = [_Levels(folder.file(f"gauge_{merge}", number)) for merge in ("sum", "max", "min")]
        self._files: list[_Sums | _Levels] = [self._counters, self._histograms, *self._gauges]

    @property
    def room(self) -> bool:
        """Whether all that was to be told has found room."""
        return not any(one.full for one in self._files)

    def write(self, families: Families) -> None:
        """Everything as it is now. Costs most where something has changed."""
        for counter in families.counters:
            name = counter.family.name.removesuffix("_total")
            for labels, value in counter.values.items():
                self._counters.put(counter.family, name, "_total", labels, value)
        for histogram in families.histograms:
            family, ends = histogram.family, (*map(floatToGoString, histogram.bounds), "+Inf")
            with_end = Family(family.name, family.help, (*family.labels, "le"))
            for labels, cell in histogram.cells.items():
                for end, count in zip(ends, cell.counts, strict=True):
                    self._histograms.put(with_end, family.name, "_bucket", (*labels, end), count)
                self._histograms.put(family, family.name, "_sum", labels, cell.sum)
        for merge, levels in zip(("sum", "max", "min"), self._gauges, strict=True):
            levels.write([gauge for gauge in families.gauges if gauge.merge == merge])

    def release(self) -> None:
        """For who lives longer than what is counted: the slot's next owner goes on. May be called twice."""
        if not self._released:
            self._released = True
            for one in self._files:
                one.close()
            os.close(self._lock)


class _Sums:
    """A file of sums: this owner's part is added to what the earlier ones have left."""

    def __init__(self, path: Path) -> None:
        self._file = _first_sums(path) if not path.exists() else _MmapedDict(str(path))
        self._left = FILE_SIZE - sum(len(key) + ENTRY for key, *_ in self._file.read_all_values())
        # By sample: its key in the file, what the earlier owners have left, our part as it was last written.
        self._cells: dict[tuple[str, str, Labels], list[float]] = {}
        self._keys: dict[tuple[str, str, Labels], str] = {}
        self._known = {key for key, *_ in self._file.read_all_values()}
        self.full = False

    def put(self, family: Family, name: str, suffix: str, labels: Labels, value: float) -> None:
        sample = (name, suffix, labels)
        cell = self._cells.get(sample)
        if cell is None:
            key = mmap_key(name, name + suffix, list(family.labels), list(labels), family.help)
            if key not in self._known:
                if len(key) + ENTRY > self._left:
                    self.full = True
                    return
                self._left -= len(key) + ENTRY
            self._keys[sample] = key
            cell = self._cells[sample] = [self._file.read_value(key)[0], 0.0]
        if value != cell[1]:
            cell[1] = value
            self._file.write_value(self._keys[sample], cell[0] + value, 0.0)

    def close(self) -> None:
        self._file.close()


class _Levels:
    """A file of gauges that are merged in one way. It is made anew where a series is no longer told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = path.with_suffix(".new")
        self._file: Any = None
        self._written: dict[tuple[str, Labels], float] = {}
        self._keys: dict[tuple[str, Labels], str] = {}
        self._left = 0
        self.full = False
        self._begin([])

    def write(self, gauges: list[Gauge]) -> None:
        told = {(one.family.name, labels) for one in gauges for labels in one.values}
        if self._written.keys() <= told:
            self._put(gauges)
        else:
            self._begin(gauges)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _begin(self, gauges: list[Gauge]) -> None:
        """Whoever reads meanwhile sees the file of before."""
        self.close()
        self._new.unlink(missing_ok=True)
        _make_room(self._new)
        self._file = _MmapedDict(str(self._new))
        self._written, self._keys, self._left, self.full = {}, {}, FILE_SIZE, False
        self._put(gauges)
        self._new.rename(self._path)

    def _put(self, gauges: list[Gauge]) -> None:
        for gauge in gauges:
            family = gauge.family
            for labels, value in gauge.values.items():
                sample = (family.name, labels)
                if sample not in self._keys:
                    key = mmap_key(family.name, family.name, list(family.labels), list(labels), family.help)
                    if len(key) + ENTRY > self._left:
                        self.full = True
                        continue
                    self._left -= len(key) + ENTRY
                    self._keys[sample] = key
                if self._written.get(sample) != value:
                    self._written[sample] = value
                    self._file.write_value(self._keys[sample], value, 0.0)


class FolderCollector(Collector):
    """What all workers tell, put together, for prometheus_client's registries and encoders."""

    def __init__(self, folder: MetricsFolder) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        files: list[str] = []
        live = 0
        for number, lives in self._folder.slots():
            kinds = ["counter", "histogram"]
            if lives:
                live += 1
                kinds += ["gauge_sum", "gauge_max", "gauge_min"]
            # A slot that is being taken for the first time may not have all of them yet.
            files += [str(path) for path in (self._folder.file(kind, number) for kind in kinds) if path.exists()]
        yield from _merge(files)
        workers = Metric("smtpgate_workers", "Worker processes that are alive, those that drain among them.", "gauge")
        workers.add_sample("smtpgate_workers", {}, live)
        yield workers


def hand_over(arbiter: Any) -> None:
    """gunicorn's `pre_exec` hook: it starts an upgrade with the environment that it was started in itself."""
    arbiter.cfg.env_orig.update({name: value for name, value in os.environ.items() if name.startswith(VARIABLE)})


def _parent(environ: MutableMapping[str, str]) -> str:
    """Where a folder may be made; memory rather than a disk."""
    runtime = environ.get(RUNTIME_DIRECTORY, "").partition(":")[0]
    for place in (runtime, SHARED_MEMORY):
        if place and os.path.isdir(place) and os.access(place, os.W_OK):
            return place
    return tempfile.gettempdir()


def _sweep(parent: str, prefix: str) -> None:
    """Remove what first processes that crashed have left. One that lives holds its own."""
    for path in Path(parent).glob(f"{prefix}*"):
        try:
            if path.stat().st_uid != os.geteuid():
                continue
            held = os.open(path / _HOLD, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # it is being made, or somebody else was faster
        try:
            if _locked(held):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(held)


def _hold(path: Path) -> int:
    """Hold a folder; the workers inherit it. Under its name the file is never there without a lock."""
    if path.exists():
        held = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return held
    draft = path.with_suffix(".new")
    held = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    draft.rename(path)
    return held


def _locked(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _first_sums(path: Path) -> Any:
    """A new file of sums; under its name it is never there without its head, which the library cannot do without."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    _make_room(draft)
    file = _MmapedDict(str(draft))
    draft.rename(path)
    return file


def _make_room(path: Path) -> None:
    """Raises OSError where the disk has none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, FILE_SIZE)
    finally:
        os.close(descriptor)
