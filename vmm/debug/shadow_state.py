"""Shadow page tables in a checkpoint: what the hypervisor knows of them, as bytes.

An ordinary snapshot drops the shadows, which costs exits that the run without it had not; a
checkpoint keeps them. This is memory of this process, never a file: pickle reads nothing foreign.
"""

import io
import pickle
from typing import Any

from vmm.technique.shadow import Shadow
from vmm.vm import VM


class _Writer(pickle.Pickler):
    def persistent_id(self, thing: object) -> str | None:
        return "memory" if isinstance(thing, memoryview) else None


class _Reader(pickle.Unpickler):
    def __init__(self, image: bytes, memory: memoryview) -> None:
        super().__init__(io.BytesIO(image))
        self._memory = memory

    def persistent_load(self, _name: Any) -> memoryview:
        return self._memory


def _shadows(vm: VM) -> list[Shadow]:
    return [vcpu.shadow for vcpu in vm.vcpus if vcpu.shadow is not None]


def take(vm: VM) -> bytes:
    """Return what is known; nothing where there are no shadows."""
    shadows = _shadows(vm)
    if not shadows:
        return b""
    image = io.BytesIO()
    state = [shadows[0].tables.state(), *(shadow.state() for shadow in shadows)]
    _Writer(image, pickle.HIGHEST_PROTOCOL).dump(state)
    return image.getvalue()


def put(vm: VM, image: bytes) -> None:
    """Take it back; what comes from a file has no shadows, and they are made anew."""
    shadows = _shadows(vm)
    if not shadows:
        return
    if not image:
        shadows[0].tables.forget()
        vm.pcpu.flush_tlb()
        return
    tables, *own = _Reader(image, vm.memory.ram.view.cast("Q")).load()
    shadows[0].tables.set_state(tables)
    for shadow, state in zip(shadows, own, strict=True):
        shadow.set_state(state)
