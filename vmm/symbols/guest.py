"""The names of a VM's own image, for stop reports: loaded when the first one is asked for."""

from functools import cached_property
from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field
from vmm.boot.files import symbol_file
from vmm.boot.plan import BootPlan
from vmm.config import Config
from vmm.errors import UsageError
from vmm.symbols.frames import Frame
from vmm.symbols.image import ImageSymbols, Named, read_symbols
from vmm.vcpu import Vcpu
from vmm.virtual import VirtualMemory

if TYPE_CHECKING:
    from collections.abc import Callable


class GuestNames:
    """Names for addresses of one VM's guest."""

    def __init__(self, config: Config, plan: BootPlan) -> None:
        """Nothing is read yet."""
        self._config: Final = config
        self._plan: Final = plan
        self.source: Callable[[], bytes] = lambda: symbol_file(config)
        """Where the symbols come from; may be exchanged before the first use."""

    @cached_property
    def image(self) -> ImageSymbols:
        """The symbols; empty where the image has none or cannot be read any more."""
        try:
            data = self.source()
        except UsageError:
            data = b""
        virtual, physical = self._plan.slide
        return read_symbols(data, slide=virtual, physical_slide=physical)

    def settle(self, vcpu: Vcpu) -> ImageSymbols:
        """Return the symbols, shifted as the kernel that runs on `vcpu` shifted itself."""
        if not self._plan.slide[0]:
            self.image.settle(vcpu.regs.lstar)
        return self.image

    def backtrace(self, vcpu: Vcpu) -> list[Named]:
        """Return the functions that `vcpu` is in, innermost first; reading changes nothing."""
        regs, bits = vcpu.regs, vcpu.code_bits()
        base = 0 if bits == 64 else vcpu.vmcs[Field.GUEST_SS_BASE]
        mask = (1 << vcpu.stack_bits()) - 1
        held = {"r10": regs.r10, "r13": regs.r13, "rdx": regs.rdx, "rdi": regs.rdi}
        first = Frame(vcpu.linear_rip(), base + (regs.rsp & mask), base + (regs.rbp & mask), held)
        read = VirtualMemory(vcpu).look
        return self.settle(vcpu).backtrace(first, read, bits=bits)

    def where(self, vcpu: Vcpu) -> str:
        """Return one line: where `vcpu` is."""
        symbols, pc = self.settle(vcpu), vcpu.linear_rip()
        line = symbols.line_at(pc)
        return symbols.text(pc) + (f" at {line}" if line else "")


def backtrace_lines(frames: list[Named]) -> list[str]:
    """Write a call chain as gdb does: `#0  0x... name+0x10 at file.c:12`."""
    return [f"#{number:<2} {frame}" for number, frame in enumerate(frames)]
