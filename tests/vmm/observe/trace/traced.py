"""Small guests, run with a recording."""

from pathlib import Path
from typing import Any

from hwmodel.timing.ledger import Ledger
from tests.images import OFF, elf64
from vmm import VM
from vmm.observe.trace.recording import RecordFile, Recording
from vmm.outcome import Result
from vmm.trace_options import TraceFile

# Port 0x80 takes a byte; 0x2ff has nobody; MSR 0xdead does not exist; 0xfee00020 is the local
# APIC's identifier; VMCALL 5 wakes processor 0; 0x61 is slow; PIT channel 0 wakes from HLT.
ONE_OF_EACH = f"""
    mov al, 0x12; out 0x80, al
    mov dx, 0x2ff; in ax, dx
    mov eax, 0x40000000; xor ecx, ecx; cpuid
    mov ecx, 0x277; rdmsr; wrmsr
    mov esi, 0xfee00020; mov eax, [rsi]
    mov dword ptr [rsi + 0x60], 0xff000000
    lea rsi, [rip + words]; mov ecx, 3; mov dx, 0x80; rep outsb
    mov eax, 9; mov ebx, 1; mov ecx, 2; mov edx, 3; mov esi, 4; vmcall
    mov rax, cr0; mov cr0, rax
    in al, 0x61
    {OFF}
    words: nop; nop; nop
"""


def record(
    image: Any, path: Path, *, say: Any = None, **options: Any
) -> tuple[Result, Ledger, list[str]]:
    """Run and trace; how it ended, its ledger, and what the recording had to say."""
    said: list[str] = []
    image = elf64(image) if isinstance(image, str) else image
    with VM(image, memory=options.pop("memory", "16M"), **options) as vm:
        recording = Recording(vm, RecordFile(TraceFile.of(path)), say or said.append)
        try:
            result = vm.run()
        finally:
            recording.stop()
        return result, vm.ledger, said
