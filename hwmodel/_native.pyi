# What hwmodel uses of the compiled module; cext/native.cdef.h is its interface.
from typing import Any, Protocol

class _Library(Protocol):
    STOP_DEADLINE: int
    STOP_INTERRUPTED: int
    STOP_INTERNAL: int
    STOP_VM_FAIL: int
    STOP_VMX_ABORT: int
    REASONS: int
    HISTORY: int
    def __getattr__(self, name: str) -> Any: ...

ffi: Any
lib: _Library
