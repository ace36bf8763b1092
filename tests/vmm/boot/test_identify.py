"""Images told apart by content, and refusals that name what they saw."""

import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from vmm.boot.identify import Kind, identify, plan
from vmm.boot.request import BootRequest
from vmm.errors import UsageError

REQUEST = BootRequest(16 << 20)


def test_every_kind(forge: Any) -> None:
    note = forge.note(18, struct.pack("<I", 0x100000))
    assert identify(forge.code) is Kind.FLAT
    assert identify(forge.elf32()) is Kind.ELF32
    assert identify(forge.elf64()) is Kind.ELF64
    assert identify(forge.elf64(notes=[note])) is Kind.PVH
    assert identify(forge.elf32(extra=forge.multiboot1())) is Kind.MULTIBOOT1
    assert identify(forge.elf64(extra=forge.multiboot1())) is Kind.MULTIBOOT1
    assert identify(forge.flat1()) is Kind.MULTIBOOT1
    assert identify(forge.elf64(extra=forge.multiboot2())) is Kind.MULTIBOOT2
    assert identify(forge.bzimage()) is Kind.BZIMAGE
    assert identify(b"MZ" + forge.bzimage()[2:]) is Kind.BZIMAGE


def test_multiboot_wins_over_a_pvh_note(forge: Any) -> None:
    note = forge.note(18, struct.pack("<I", 0x100000))
    assert identify(forge.elf64(notes=[note], extra=forge.multiboot1())) is Kind.MULTIBOOT1


def test_a_damaged_multiboot_header_is_none(forge: Any) -> None:
    header = bytearray(forge.multiboot1())
    header[8] ^= 1
    assert identify(forge.elf32(extra=bytes(header))) is Kind.ELF32


def test_a_header_beyond_its_window_is_none(forge: Any) -> None:
    assert identify(forge.elf32(extra=bytes(8192) + forge.multiboot1())) is Kind.ELF32
    assert identify(forge.elf64(extra=bytes(32768) + forge.multiboot2())) is Kind.ELF64


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\nexit 0\n", "text"),
        ("größer als gedacht, und länger als vier Zeilen. ".encode() * 4, "text"),
        (b"hello\n", "text"),
        (bytes(600), "zero"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "PNG"),
        (b"\x1f\x8b\x08" + b"\x01" * 64, "gzip"),
        (b"QFI\xfb" + b"\x01" * 64, "qcow2"),
        (b"\x90" * 510 + b"\x55\xaa", "BIOS"),
        (b"\x90" * 510 + b"\x55\xaa" + b"\x90" * 512, "BIOS"),
        (b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(64), "UEFI"),
        (b"MZ" + b"\x90" * 200, "DOS"),
    ],
)
def test_what_is_no_kernel_is_refused_by_name(data: Any, word: Any) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        identify(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("machine", "name"), [(40, "ARM"), (183, "AARCH64"), (243, "RISCV")])
def test_other_machines_are_named(forge: Any, machine: Any, name: Any) -> None:
    with pytest.raises(UsageError, match=name):
        identify(forge.elf64(machine=machine))
    with pytest.raises(UsageError, match=name):
        identify(forge.elf64(machine=machine, extra=forge.multiboot1()))


def test_object_files_and_programs_are_refused(forge: Any) -> None:
    with pytest.raises(UsageError, match="object file"):
        identify(forge.elf64(kind=1))
    with pytest.raises(UsageError, match="operating system"):
        plan(forge.elf64(interp=True), REQUEST)


def test_the_python_running_this_is_refused() -> None:
    with pytest.raises(UsageError):
        plan(Path(sys.executable).read_bytes(), REQUEST)
