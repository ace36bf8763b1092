"""`unittests.cfg`: which image runs with which processors, memory and words.

What is read: file, smp, test_args, qemu_params (or extra_params: -m, -append, -cpu; see
processor.py), arch, timeout, check. A test that needs what its option `-machine` or `-device` adds
finds it missing and says so; where one would not, `_DEVICES` does.
"""

import itertools
import shlex
from collections.abc import Mapping
from configparser import ConfigParser, Error
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vmm.devices.rtc import DEFAULT_EPOCH
from vmm.errors import UsageError
from vmm.testing.kut.processor import Processor, processor_for

CONFIG: Final = "unittests.cfg"
DEFAULT_MEMORY: Final = "128M"
DEFAULT_TIMEOUT: Final = 90
_MISSING: Final = {"enable_vmware_backdoor=Y": "no VMware backdoor"}
"""What a test checks of the host's KVM before it runs, and we do not have."""
_DEVICES: Final = {"intel-iommu": "no IOMMU"}
BY_HAND: Final = "by hand only (nodefault)"


@dataclass(frozen=True, slots=True)
class KutTest:
    """One section of the file."""

    name: str
    image: Path
    cpus: int = 1
    memory: str = DEFAULT_MEMORY
    arguments: str = ""
    timeout: float = DEFAULT_TIMEOUT
    processor: Processor = field(default_factory=Processor)
    arch: str = ""
    why_not: str = ""
    """Why it is not run; empty: it is."""


def read_config(folder: Path) -> list[KutTest]:
    """Return the tests of a folder, in the file's order. Raises UsageError."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give one with *.flat and {CONFIG}")
    if not path.exists():
        return [KutTest(image.stem, image) for image in sorted(folder.glob("*.flat"))]
    parser = ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    try:
        parser.read_string(_joined(path.read_text()))
    except (Error, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from None
    return [_test(folder, name, parser[name]) for name in parser.sections()]


def _joined(text: str) -> str:
    """Triple-quoted values span lines."""
    parts = text.split('"""')
    return "".join(part if n % 2 == 0 else part.replace("\n", " ") for n, part in enumerate(parts))


def _test(folder: Path, name: str, section: Mapping[str, str]) -> KutTest:
    image = folder / section.get("file", f"{name}.flat")
    words = _words(section.get("qemu_params", section.get("extra_params", "")))
    memory, arguments = DEFAULT_MEMORY, section.get("test_args", "")
    wanted = lacks = ""
    for option, value in itertools.pairwise(words):
        if option == "-m":
            memory = value if value[-1:].isalpha() else f"{value}M"
        elif option == "-append":
            arguments = value
        elif option == "-cpu":
            wanted = value
        elif option == "-device":
            lacks = lacks or _DEVICES.get(value.split(",")[0], "")
    arch = section.get("arch", "")
    arguments = arguments.replace("`date +%s`", str(DEFAULT_EPOCH))  # the shell's word
    return KutTest(
        name, image, _number(name, section.get("smp", "1")), memory, _unquoted(arguments),
        float(_number(name, section.get("timeout", str(DEFAULT_TIMEOUT)))),
        processor_for(image.stem, wanted), arch,
        lacks or _why_not(image, arch, section),
    )  # fmt: skip


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _unquoted(text: str) -> str:
    words = _words(text)
    return words[0] if len(words) == 1 else text


def _number(name: str, text: str) -> int:
    cleaned = text.strip().strip("'\"")
    if "MAX_SMP" in cleaned:
        return 4
    if not cleaned.isdigit():
        raise UsageError(f"{CONFIG}: [{name}]: {text!r} is not a number")
    return int(cleaned)


def _why_not(image: Path, arch: str, section: Mapping[str, str]) -> str:
    if arch == "i386":
        return "a 32-bit build"
    for check, missing in _MISSING.items():
        if check in section.get("check", ""):
            return missing
    if not image.exists():
        return f"{image.name} is not there"
    return BY_HAND if "nodefault" in section.get("groups", "").split() else ""
