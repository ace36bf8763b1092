"""Kernels and busybox from the system's own package client, into a cache of the user's.

    $XDG_CACHE_HOME/ring1/packages/NAME_VERSION/    what is in the package, unpacked
    $XDG_CACHE_HOME/ring1/apt/                      package lists of our own, where the system's
                                                    are missing or out of date

Nothing is installed and no right is needed: `apt-get download` checks the signatures, `dpkg-deb -x`
unpacks.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from vmm.errors import UsageError

_QUICK: Final = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20")
_NO_SANDBOX: Final = ("-o", "APT::Sandbox::User=root")  # its user cannot write into our folder
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9.+~_-]")


class PackageError(UsageError):
    """A package cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the package lists say of a package that can be downloaded."""

    name: str
    version: str
    depends: tuple[str, ...]


def cache_folder() -> Path:
    """Return the folder for what can be fetched again (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "ring1"


def fetch(name: str) -> Path:
    """Return the folder of the unpacked package, from the cache if this version is there."""
    record = lookup(name)
    target = cache_folder() / "packages" / _UNSAFE.sub("_", f"{name}_{record.version}")
    if not target.is_dir():
        try:
            _download(name, target, ())
        except PackageError:  # lists that are out of date name files that are gone
            _update_own_lists()
            _download(name, target, _own_lists())
    return target


@cache
def lookup(name: str) -> Record:
    """Return what the lists say of ``name``; PackageError if they do not know it."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PackageError("this host has no apt-get, so no Debian package can be had")
    record = _show(name, ()) or _show(name, _own_lists())
    if record is None:
        _update_own_lists()
        record = _show(name, _own_lists())
    if record is None:
        raise PackageError(f"this distribution has no package {name}")
    return record


def _show(name: str, options: Sequence[str]) -> Record | None:
    done = _run(["apt-cache", *options, "show", "--no-all-versions", name])
    fields = dict(
        line.split(": ", 1) for line in done.stdout.splitlines() if re.match(r"[A-Z][\w-]*: ", line)
    )
    if done.returncode or "Version" not in fields:
        return None
    depends = re.split(r"[,|]", fields.get("Depends", ""))
    names = tuple(part.split()[0].partition(":")[0] for part in depends if part.strip())
    return Record(name, fields["Version"], names)


def _download(name: str, target: Path, options: Sequence[str]) -> None:
    """Download and unpack into ``target``, which appears complete or not at all."""
    with _beside(target) as folder:
        command = ["apt-get", *_QUICK, *_NO_SANDBOX, *options, "-q", "download", name]
        done = _run(command, cwd=folder)
        archives = list(folder.glob("*.deb"))
        if done.returncode or not archives:
            raise PackageError(f"{name} cannot be downloaded: {_reason(done)}")
        content = folder / "content"
        done = _run(["dpkg-deb", "-x", str(archives[0]), str(content)])
        if done.returncode:
            raise PackageError(f"{name} cannot be unpacked: {_reason(done)}")
        if not target.is_dir():  # another process may have been quicker
            content.rename(target)


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    with _writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the host refuses into a PackageError with the remedy."""
    try:
        yield
    except OSError as error:
        raise PackageError(
            f"{folder} cannot be written: {error.strerror}; set XDG_CACHE_HOME"
        ) from None


def _own_lists() -> tuple[str, ...]:
    folder = cache_folder() / "apt"
    return (*("-o", f"Dir::State::Lists={folder}/lists"), *("-o", f"Dir::Cache={folder}/cache"))


def _update_own_lists() -> None:
    folder = cache_folder() / "apt"
    with _writing(folder):
        for part in ("lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    done = _run(["apt-get", *_QUICK, *_NO_SANDBOX, *_own_lists(), "-q", "update"])
    if done.returncode:
        raise PackageError(f"the package lists cannot be fetched: {_reason(done)}")


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the last thing that a program complained about."""
    lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err", "dpkg"))]
    return lines[-1].removeprefix("E: ") if lines else f"status {done.returncode}"


def _run(command: Sequence[str], cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
