"""Entropy that the hypervisor contributes, for the guest to mix with its own.

32 bytes by HKDF-SHA-256 (RFC 5869, of the library `cryptography`) from the VM's seed, the life that
it lives (`begin_life`) and the number of the draw: a run can be repeated, and two guests that go on
from one snapshot get different bytes. The guest does not rely on them: guest_kernel/pv/entropy.c
mixes, so that a hostile host (`+constant_entropy`) predicts nothing that the guest's own pool keeps
secret.
"""

from collections.abc import Mapping
from typing import Final

from vmm.pv.dialect import Hypercall, Processor, State
from vmm.pv.native.abi import Call, Feature
from vmm.pv.native.part import Handler, Part, Room

BYTES: Final = 32
_WHAT: Final = b"ring1 native dialect: entropy"


class Entropy(Part):
    """The host's half."""

    name = "entropy"
    features = frozenset({Feature.ENTROPY})

    def __init__(self, room: Room) -> None:
        """The first life."""
        super().__init__(room)
        self._life = 0
        self._draws = 0

    def calls(self) -> Mapping[Call, Handler]:
        """One."""
        return {Call.ENTROPY: self._contribute}

    def _contribute(self, cpu: Processor, call: Hypercall) -> int:
        self._draws += 1
        hostile = "constant_entropy" in self.room.options
        data = bytes(BYTES) if hostile else self._derive()
        cpu.work(1)
        self.room.machine.memory.write(call.arguments[0], data)
        return 0

    def _derive(self) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        material = f"{self.room.machine.seed} {self._life} {self._draws}".encode()
        return bytes(HKDF(SHA256(), BYTES, salt=None, info=_WHAT).derive(material))

    def begin_life(self, life: int) -> None:
        """What comes from now on is another life's."""
        self._life = (self._life << 16 ^ life) + 1 & (1 << 64) - 1

    def save(self) -> State:
        """Life and draws."""
        return {"life": self._life, "draws": self._draws}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        life, draws = state["life"], state["draws"]
        assert isinstance(life, int)
        assert isinstance(draws, int)
        self._life, self._draws = life, draws
