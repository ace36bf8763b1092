"""Entropy: neither a hostile host nor a snapshot restored twice makes a guest's output known."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.vmm.pv.native.room import Room
from vmm import VM
from vmm.experiments.guests import parse
from vmm.pv.native.abi import Call, Feature
from vmm.pv.native.parts import PARTS
from vmm.together import go_on_as

NOP = 0x5231_0000
MARK = 7  # where the guest may be written down


def run(images: Path, secret: int, dialect: str = "native", seed: int = 0) -> dict[int, int]:
    output = bytearray()
    with VM(
        images / "native_entropy.elf", memory="64M", dialects=dialect, seed=seed,
        cmdline=f"secret={secret} {'hostile' if 'constant' in dialect else ''}",
        serial_output=output.extend,
    ) as vm:  # fmt: skip
        result = vm.run()
    assert result.status == 1, output.decode()
    return parse(bytes(output))["OUTPUT"]


def test_a_run_is_repeated_exactly(images: Path) -> None:
    assert run(images, 1) == run(images, 1)


def test_the_hosts_part_counts_and_the_guests_part_counts(images: Path) -> None:
    runs = [run(images, 1), run(images, 2), run(images, 1, seed=1)]
    runs += [run(images, secret, "native,+constant_entropy") for secret in (1, 2)]
    words = [word for words in runs for word in words.values()]
    assert len(words) == 5 * 12
    assert len(set(words)) == len(words)


def test_two_lives_of_one_snapshot_differ(images: Path) -> None:
    for dialect in ("native", "native,+constant_entropy"):
        assert lives(images, dialect, 1, 1) == 1
        assert lives(images, dialect, 1, 2, 3) == 3


def lives(images: Path, dialect: str, *numbers: int) -> int:
    """How many different outputs there are of VMs that go on from one snapshot."""
    outputs = []
    options: dict[str, Any] = {"memory": "64M", "dialects": dialect, "cmdline": "secret=5 hostile"}
    with VM(images / "native_entropy.elf", **options) as first:
        for vmexit in first:
            if vmexit.name == "VMCALL" and (first.regs.rax, first.regs.rbx) == (NOP, MARK):
                break
        snapshot = first.snapshot()
        for life in numbers:
            output = bytearray()
            with VM(
                images / "native_entropy.elf", serial_output=output.extend, **options
            ) as other:  # fmt: skip
                go_on_as(other, snapshot, life)
                other.run()
            found = parse(bytes(output))["OUTPUT"]
            assert set(found) == set(range(4, 12))  # what came before is not said again
            outputs.append(tuple(found.values()))
    return len(set(outputs))


def test_the_hosts_bytes_are_hkdf(images: Path) -> None:
    """RFC 5869, by the library; and another room with another seed gives others."""
    room = Room(parts=PARTS)
    room.use(Feature.ENTROPY)
    assert room.call(Call.ENTROPY, 0x2000) == 0
    wanted = HKDF(SHA256(), 32, None, b"ring1 native dialect: entropy").derive(b"0 0 1")
    assert room.machine.memory.read(0x2000, 32) == wanted
    saved = room.native.save()
    room.call(Call.ENTROPY, 0x2000)
    second = room.machine.memory.read(0x2000, 32)
    room.native.restore(saved)
    room.call(Call.ENTROPY, 0x2000)
    assert room.machine.memory.read(0x2000, 32) == second != wanted
