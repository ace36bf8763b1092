"""``ring1 demo``: a real kernel without looking for one first."""

import argparse
import hashlib
import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Final, NoReturn

from vmm.cli.initramfs import base_archive, script_archive
from vmm.cli.kernel_modules import select
from vmm.cli.kernels import Flavour, Kernel, fetch_busybox, fetch_kernel
from vmm.cli.packages import PackageError, cache_folder
from vmm.cli.terminal import Input, classify
from vmm.errors import UsageError

SCRIPT: Final = """\
set -x
uname -a
dmesg | grep -i hypervisor
cat /sys/devices/system/clocksource/clocksource0/current_clocksource
grep -m 1 'model name' /proc/cpuinfo
free -m
echo 'ring 1' | sha256sum
"""


class _Parser(argparse.ArgumentParser):
    """Errors as everywhere: one line, status 64."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see ring1 demo --help")


def demo_words(arguments: list[str]) -> list[str] | None:
    """Return the words for ``ring1`` that show what is asked for, None after --help."""
    parser = _Parser(
        prog="ring1 demo",
        description="Show a guest.",
        epilog="Further options are ring1 run's: --cpus 4 --net user --share DIR --screen ...",
        allow_abbrev=False,
    )
    shown = "linux: Debian's kernel, to a shell; hello: a small kernel of ours"
    parser.add_argument("name", choices=["linux", "hello"], help=shown)
    flavours = [flavour.value for flavour in Flavour]
    parser.add_argument("--flavour", choices=flavours, default="cloud", help="which Linux [cloud]")
    parser.add_argument("--cmdline", metavar="S", default="", help="more words for the kernel")
    try:
        options, further = parser.parse_known_args(arguments)
    except SystemExit:  # --help
        return None
    if options.name == "hello":
        return ["run", "--cmdline", options.cmdline, *further]
    words = f"{_consoles(further)} {options.cmdline}".rstrip()
    return ["run", *_linux(Flavour(options.flavour), words), *further]


def _consoles(further: list[str]) -> str:
    """Return Linux' words for what the terminal will be; the shell is on the last one."""
    if "--screen" in further:
        return "console=ttyS0 console=tty0"
    if "--console=virtio" in further or ("--console", "virtio") in pairwise(further):
        return "console=ttyS0 console=hvc0"
    return "console=ttyS0"


def _linux(flavour: Flavour, words: str) -> list[str]:
    """Return kernel, initrds and command line; nothing, so the demo kernel, where that fails."""
    interactive = classify(0) is Input.TERMINAL
    try:
        _say("fetching the kernel and busybox with apt-get, if they are not in the cache")
        kernel = fetch_kernel(flavour)
        initrds = [_kept(initramfs(kernel))]
    except PackageError as error:
        _say(f"no Linux: {error}; the demo kernel instead")
        return []
    if not interactive:
        initrds.append(_kept(script_archive(SCRIPT)))
    leave = "leave with poweroff, or with Ctrl-A x" if interactive else "it powers off by itself"
    _say(f"Linux {kernel.release} from {kernel.package}; {leave}")
    kept = [word for initrd in initrds for word in ("--initrd", str(initrd))]
    return [str(kernel.image), "--cmdline", words, *kept]


def initramfs(kernel: Kernel) -> bytes:
    """Return the initramfs for a fetched kernel."""
    return base_archive(fetch_busybox().read_bytes(), select(kernel.modules), kernel.release)


def _kept(content: bytes) -> Path:
    """Keep ``content`` in the cache under its own hash; return the file."""
    folder = cache_folder() / "initrd"
    path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.cpio"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=folder)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).replace(path)
    except OSError as error:
        raise PackageError(f"{folder} cannot be written: {error.strerror}") from None
    return path


def _say(text: str) -> None:
    print(f"ring1: {text}", file=sys.stderr)
