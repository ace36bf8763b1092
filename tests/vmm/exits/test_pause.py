"""A vCPU that spins with PAUSE exiting gives up its turn, and goes on behind the PAUSE."""

from typing import Any

from hwmodel.arch.exits import ExitReason
from tests.bare import CODE, Bare
from vmm.exits.table import HANDLERS
from vmm.outcome import Outcome


def test_a_pause_that_exits_ends_the_turn() -> None:
    machine = Bare()
    machine.control(pause_exiting=1)
    vmexit = machine.run("pause; hlt")
    assert vmexit.reason == ExitReason.PAUSE_INSTRUCTION
    vcpu: Any = machine  # all that the handler touches is the VMCS
    assert HANDLERS[vmexit.reason](vcpu, vmexit) is Outcome.YIELD
    assert machine.regs.rip == CODE + 2
    assert machine.enter().name == "HLT"
    machine.close()
