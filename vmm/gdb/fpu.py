"""x87 and SSE registers as gdb numbers them, over the architectural FXSAVE image of a vCPU."""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.gdb.registers import Register, View

_CONTROL, _STATUS, _TAG, _MXCSR, _STACK, _XMM = 0, 2, 4, 24, 32, 160  # bytes in FXSAVE's image
_TOP_SHIFT: Final = 11
_MXCSR_MASK: Final = 0xFFFF


def _image(view: "View") -> bytearray:
    return bytearray(view.vcpu.pcpu.fxsave(view.vcpu.vmcs))


def _put(view: "View", at: int, value: int, size: int) -> None:
    image = _image(view)
    image[at : at + size] = value.to_bytes(size, "little")
    view.vcpu.pcpu.fxrstor(view.vcpu.vmcs, bytes(image))


def _get(view: "View", at: int, size: int) -> int:
    return int.from_bytes(_image(view)[at : at + size], "little")


def _stack_place(view: "View", number: int) -> int:
    """ST(n) is counted from the top; the image has the registers by their own numbers."""
    top = _get(view, _STATUS, 2) >> _TOP_SHIFT & 7
    return _STACK + 16 * ((top + number) & 7)


def fpu_registers(
    make: "Callable[..., Register]", core: str, sse: str
) -> "tuple[list[Register], list[Register]]":
    """Return the x87 registers of the core feature, and those of the SSE feature."""

    def st(number: int) -> Any:
        return make(
            f"st{number}", core, 80,
            lambda v: _get(v, _stack_place(v, number), 10),
            lambda v, n: _put(v, _stack_place(v, number), n, 10), "i387_ext", "float",
        )  # fmt: skip

    def word(name: str, at: int) -> Any:
        return make(name, core, 32, lambda v: _get(v, at, 2),
                    lambda v, n: _put(v, at, n & 0xFFFF, 2), "int", "float")  # fmt: skip

    def nothing(name: str) -> Any:
        """The last x87 instruction is not kept: a new processor may leave that zero."""
        return make(name, core, 32, lambda _: 0, None, "int", "float")

    def xmm(number: int) -> Any:
        at = _XMM + 16 * number
        return make(f"xmm{number}", sse, 128, lambda v: _get(v, at, 16),
                    lambda v, n: _put(v, at, n, 16), "vec128", "vector")  # fmt: skip

    mxcsr = make(
        "mxcsr", sse, 32, lambda v: _get(v, _MXCSR, 4),
        lambda v, n: _put(v, _MXCSR, n & _MXCSR_MASK, 4), "i386_mxcsr", "vector",
    )  # fmt: skip
    x87 = [
        *(st(number) for number in range(8)),
        word("fctrl", _CONTROL), word("fstat", _STATUS), word("ftag", _TAG),
        *(nothing(name) for name in ("fiseg", "fioff", "foseg", "fooff", "fop")),
    ]  # fmt: skip
    return x87, [*(xmm(number) for number in range(16)), mxcsr]
