"""The x87 and SSE registers of a virtual CPU, wherever the engine holds them now."""

from typing import TYPE_CHECKING, Any

from hwmodel.cpu.unicorn import ffi, lib

if TYPE_CHECKING:
    from hwmodel.vmx.state import Vmcs

IMAGE = 512  # bytes of FXSAVE's


class MediaRegisters:
    """The part of a physical CPU that reads and writes them."""

    _native: Any

    def xmm(self, vmcs: "Vmcs", index: int) -> int:
        """Return an XMM register as a 128-bit int."""
        buffer = ffi.new("uint8_t[16]")
        lib.vcpu_get_xmm(self._native, vmcs.native, index, buffer)
        return int.from_bytes(bytes(buffer), "little")

    def set_xmm(self, vmcs: "Vmcs", index: int, value: int) -> None:
        """Write an XMM register."""
        buffer = ffi.new("uint8_t[16]", value.to_bytes(16, "little"))
        lib.vcpu_set_xmm(self._native, vmcs.native, index, buffer)

    def fxsave(self, vmcs: "Vmcs") -> bytes:
        """Return x87 and SSE state in architectural form (512 bytes, in FXSAVE's places)."""
        buffer = ffi.new("uint8_t[]", IMAGE)
        lib.vcpu_fxsave(self._native, vmcs.native, buffer)
        return bytes(buffer)

    def fxrstor(self, vmcs: "Vmcs", image: bytes) -> None:
        """Set x87 and SSE state to what `fxsave` returned."""
        lib.vcpu_fxrstor(self._native, vmcs.native, ffi.new("uint8_t[512]", image))
