"""Record files: the options of a run, the digests of its files, and its tape, to run it again.

A line of JSON each: a head, an entry for everything that came from the host, and the end. Lines are
written as things come, so that a record of a run that was killed holds what came until then; what
has no end is truncated, and says so.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol

from vmm.config import Config
from vmm.debug.driver import Driver, Goal
from vmm.errors import UsageError
from vmm.host.tape import Entry, Kind, Tape
from vmm.outcome import Result
from vmm.vm import VM

FORMAT: Final = "ring1.record"
VERSION: Final = 1
_CHUNK: Final = 1 << 20
Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """A record file: `options` as `ring1 run` takes them, `files` by path, and how it ended."""

    path: Path
    options: dict[str, Any]
    files: dict[str, str]
    entries: list[Entry]
    end: dict[str, Any] | None


class Files(Protocol):
    """What knows the files of a run by their digests."""

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 by path, in the order of `files_of`."""


class Recorder:
    """Writes the record of one run."""

    def __init__(self, path: Path, options: Options, config: Config) -> None:
        """Raises UsageError if the file cannot be written, or a disk would not be as it was."""
        for disk in config.disks:
            if not (disk.readonly or disk.snapshot):
                raise UsageError(
                    f"--record: the guest would change --disk {disk.path}, and the replay would "
                    "find another disk; add ,snapshot (or ,readonly) to it"
                )
        head = {
            "format": FORMAT, "version": VERSION, "options": dict(options),
            "files": {str(path): digest_of(path) for path in files_of(config)},
        }  # fmt: skip
        self.failure = ""
        """Why the rest of the run is missing, if it is."""
        try:
            self._file: Final[IO[bytes]] = path.open("wb", buffering=0)
        except OSError as error:
            self.failure = (error.strerror or str(error)).lower()
        else:
            self._write(head)
            if self.failure:
                self._file.close()
        if self.failure:
            raise UsageError(f"--record {str(path)!r} cannot be written: {self.failure}")
        self.tape: Final = Tape()
        self.tape.written = self._note

    def _note(self, entry: Entry) -> None:
        data = b64encode(entry.data).decode()
        self._write([entry.kind.value, *entry.at, entry.source, data])

    def finish(self, vm: VM, driver: Driver, result: Result) -> None:
        """Write how it ended."""
        self._write(
            {"end": list(driver.now.key), "status": result.status, "reason": result.reason,
             "digest": vm.digest()}
        )  # fmt: skip

    def _write(self, line: Any) -> None:
        """Write a line; on a full disk no more of them, and the guest goes on."""
        data = memoryview(f"{json.dumps(line)}\n".encode("ascii"))
        try:
            while data and not self.failure:
                data = data[self._file.write(data) :]
        except OSError as error:
            self.failure = (error.strerror or str(error)).lower()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def run_driven(vm: VM) -> tuple[Driver, Result]:
    """Run a VM to its end by the driver, which knows the moments at which things come."""
    driver = Driver(vm)
    driver.advance(Goal())
    result = vm.result
    assert result is not None
    return driver, result


def files_of(config: Config) -> list[Path]:
    """Return the files that a run is made of."""
    image = [config.image] if isinstance(config.image, Path) else []
    return [*image, *(m.path for m in config.initrds), *(disk.path for disk in config.disks)]


def digest_of(path: Path) -> str:
    """Return a file's SHA-256. Raises UsageError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        ) from None
    return digest.hexdigest()


def read_record(path: Path, *, partial: bool = False) -> Record:
    """Read a record file. Raises UsageError, one line, for what is none, or not whole."""
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise UsageError(
            f"{path} cannot be read: {words}; name a file of ring1 run --record"
        ) from None
    except UnicodeDecodeError:
        raise _no_record(path) from None
    head = _head(path, lines[0])
    entries, end = [], None
    for number, line in enumerate(lines[1:], 2):
        try:
            item = json.loads(line) if line else None
            if isinstance(item, dict):
                end = item
            elif item is not None:
                kind, cycle, steps, exits, source, data = item
                entries.append(Entry(Kind(kind), (cycle, steps, exits), source, b64decode(data)))
        except (ValueError, TypeError):
            if not partial:
                raise UsageError(
                    f"{path} is truncated or damaged in line {number}; replay what is whole with "
                    "--partial, or record again"
                ) from None
            break
    if end is None and not partial:
        raise UsageError(
            f"{path} is truncated: the end of its run is missing; replay what is there with "
            "--partial, or record again"
        )
    return Record(path, head["options"], head["files"], entries, end)


def _head(path: Path, line: str) -> dict[str, Any]:
    try:
        head = json.loads(line)
    except ValueError:
        if line.startswith(f'{{"format": "{FORMAT}"'):
            raise UsageError(f"{path} is truncated in its first line; record again") from None
        raise _no_record(path) from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise _no_record(path)
    if head.get("version") != VERSION:
        raise UsageError(
            f"{path} is a record of version {head.get('version')}, and this ring1 reads version "
            f"{VERSION}; record again"
        )
    return head


def _no_record(path: Path) -> UsageError:
    return UsageError(f"{path} is no record file; make one with ring1 run --record {path}")


def check_files(record: Files, config: Config) -> None:
    """Raises UsageError if a file is another than when the run was recorded."""
    for path, known in zip(files_of(config), record.files.values(), strict=True):
        if digest_of(path) != known:
            raise UsageError(
                f"{path} is another file than in the recorded run (SHA-256 {known[:16]}... then); "
                "give the one of then, or record again"
            )


def check_end(record: Record, vm: VM, driver: Driver) -> None:
    """Raises UsageError if a replay did not end as the recorded run did."""
    if record.end is None:
        return
    key, digest = list(driver.now.key), vm.digest()
    if (key, digest) != (record.end["end"], record.end["digest"]):
        raise UsageError(
            f"the replay of {record.path} ended at {driver.now} with digest "
            f"{digest[:16]}, the recorded run with {record.end['digest'][:16]}; has ring1 changed?"
        )
