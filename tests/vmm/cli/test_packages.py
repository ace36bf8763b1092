"""The package fetcher against a pretended apt and dpkg-deb: what it asks, keeps and says."""

import os
import stat
from pathlib import Path

import pytest

from vmm.cli.kernels import Flavour, fetch_busybox, fetch_kernel
from vmm.cli.packages import PackageError, cache_folder, fetch, lookup

APT_CACHE = """\
case "$*" in *apt/lists*) lists=own;; *) lists=system;; esac
for name; do :; done
cat "$WORLD/$lists/$name" 2>/dev/null || { echo "E: No packages found" >&2; exit 100; }
"""
APT_GET = """\
echo "$*" >> "$WORLD/asked"
case "$*" in
*update*) [ -e "$WORLD/online" ] || { echo "E: Could not resolve host" >&2; exit 100; }
          cp -r "$WORLD/mirror/." "$WORLD/own" ;;
*apt/lists*) ;;
*) [ ! -e "$WORLD/stale" ] || { echo "E: 404  Not Found" >&2; exit 100; } ;;
esac
case "$*" in *download*)
    [ -e "$WORLD/online" ] || { echo "E: Could not resolve host" >&2; exit 100; }
    for name; do :; done
    echo "$name" > "${name}_1_amd64.deb" ;;
esac
"""
DPKG_DEB = """\
[ "$1" = -x ] || exit 2
[ ! -e "$WORLD/corrupt" ] || { echo "dpkg-deb: error: not a Debian format archive" >&2; exit 2; }
cp -r "$WORLD/content/$(cat "$2")" "$3"
"""


class World:
    """A distribution: its lists, its mirror, and what its packages contain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("system", "own", "mirror", "content"):
            (folder / name).mkdir()
        self.flag("online")

    def flag(self, name: str) -> None:
        (self.folder / name).touch()

    def unflag(self, name: str) -> None:
        (self.folder / name).unlink()

    def package(self, name: str, depends: str = "", lists: str = "system", **files: str) -> None:
        record = f"Package: {name}\nVersion: 1:2.3-4\nDescription: a\n more: text\n"
        (self.folder / lists / name).write_text(
            record + (f"Depends: {depends}\n" if depends else "")
        )
        (self.folder / "content" / name).mkdir(exist_ok=True)
        for path, text in files.items():
            file = self.folder / "content" / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def asked(self) -> str:
        file = self.folder / "asked"
        return file.read_text() if file.exists() else ""

    def environment(self) -> dict[str, str]:
        """Return what makes a process live in it."""
        tools = self.folder / "tools"
        tools.mkdir()
        for name, text in (("apt-cache", APT_CACHE), ("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)):
            (tools / name).write_text(f"#!/bin/sh\n{text}")
            (tools / name).chmod(stat.S_IRWXU)
        return {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "WORLD": str(self.folder),
        }


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    lookup.cache_clear()
    return made


def test_a_package_is_fetched_once(world: World) -> None:
    world.package("thing", **{"usr/share/thing": "content"})
    first = fetch("thing")
    assert (first / "usr/share/thing").read_text() == "content"
    assert first.is_relative_to(cache_folder())
    world.unflag("online")
    assert fetch("thing") == first
    assert world.asked().count("download") == 1
    assert [path.name for path in first.parent.iterdir()] == [first.name]  # no remains


def test_without_lists_of_the_system_our_own_are_fetched(world: World) -> None:
    world.package("thing", lists="mirror", file="x")
    assert (fetch("thing") / "file").is_file()
    assert "update" in world.asked()


def test_out_of_date_lists_are_renewed(world: World) -> None:
    world.package("thing", file="x")
    world.flag("stale")
    assert (fetch("thing") / "file").is_file()
    assert "update" in world.asked()


def test_no_network(world: World) -> None:
    world.package("thing")
    world.unflag("online")
    with pytest.raises(PackageError, match="Could not resolve host"):
        fetch("thing")
    with pytest.raises(PackageError, match="Could not resolve host"):
        fetch("unknown")
    assert list((cache_folder() / "packages").iterdir()) == []


def test_a_package_that_nobody_has(world: World) -> None:
    with pytest.raises(PackageError, match="no package thing"):
        fetch("thing")


def test_a_damaged_archive_leaves_nothing(world: World) -> None:
    world.package("thing")
    world.flag("corrupt")
    with pytest.raises(PackageError, match="not a Debian format archive"):
        fetch("thing")
    assert list((cache_folder() / "packages").iterdir()) == []


def test_no_apt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(PackageError, match="no apt-get"):
        fetch("thing")


def test_a_cache_that_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.package("thing")
    world.flag("cache")  # a file where the folder should be
    with pytest.raises(PackageError, match="XDG_CACHE_HOME"):
        fetch("thing")


def test_debian_has_image_and_modules_in_one(world: World) -> None:
    world.package("linux-image-cloud-amd64", "linux-image-6.1.0-9-cloud-amd64 (= 6.1.192-2)")
    world.package(
        "linux-image-6.1.0-9-cloud-amd64", "kmod, linux-base (>= 4.3~)",
        **{"boot/vmlinuz-6.1.0-9-cloud-amd64": "k", "lib/modules/6.1.0-9-cloud-amd64/a.ko": "m"},
    )  # fmt: skip
    kernel = fetch_kernel(Flavour.CLOUD)
    assert kernel.release == "6.1.0-9-cloud-amd64"
    assert kernel.image.read_text() == "k"
    assert (kernel.modules / "a.ko").is_file()


def test_ubuntu_has_its_own_and_modules_apart(world: World) -> None:
    world.package("linux-image-virtual", "linux-image-6.8.0-45-generic")
    world.package(
        "linux-image-6.8.0-45-generic", "kmod, linux-modules-6.8.0-45-generic",
        **{"boot/vmlinuz-6.8.0-45-generic": "k"},
    )  # fmt: skip
    world.package(
        "linux-modules-6.8.0-45-generic", **{"usr/lib/modules/6.8.0-45-generic/a.ko.zst": "m"}
    )
    kernel = fetch_kernel(Flavour.CLOUD)
    assert (kernel.package, kernel.release) == ("linux-image-virtual", "6.8.0-45-generic")
    assert (kernel.modules / "a.ko.zst").is_file()


@pytest.mark.parametrize("place", ["bin/busybox", "usr/bin/busybox"])
def test_busybox_lies_in_either_place(world: World, place: str) -> None:
    world.package("busybox-static", **{place: "b"})
    assert fetch_busybox().read_text() == "b"
