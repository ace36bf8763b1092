"""The ledger of a VM: what its processor booked, and what each virtual CPU had of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hwmodel.pcpu import Pcpu
from hwmodel.timing.ledger import Ledger, merged, whole
from vmm.vcpu import Vcpu


def read(vcpus: Sequence[Vcpu], current: Vcpu, pcpus: Sequence[Pcpu]) -> Ledger:
    """The ledger up to the last exit; reading books nothing."""
    own = [vcpu.vmcs.account() for vcpu in vcpus]
    waiting = [0 if vcpu is current else vcpu.kept_waiting() for vcpu in vcpus]
    accounts = [pcpu.account() for pcpu in pcpus]
    if len(accounts) == 1:
        return whole(accounts[0], own, waiting)
    latest = max(account.total for account in accounts)
    return whole(merged(accounts), own, [0] * len(own), latest)


def settle(vcpus: Sequence[Vcpu]) -> None:
    """Book what software completed since the last entries."""
    now = 0
    for vcpu in vcpus:
        vcpu.pcpu.settle(vcpu.vmcs)
        now = max(now, vcpu.pcpu.clock.now)
    vcpus[0].pcpu.clock.now = now


@contextmanager
def kept(vcpus: Sequence[Vcpu]) -> Iterator[None]:
    """Let the clock and the ledger go on while the state is put back to an earlier one."""
    settle(vcpus)
    pcpu = vcpus[0].pcpu
    counts = pcpu.instructions, pcpu.clock.now, pcpu.save_ledger()
    own = [vcpu.vmcs.save_ledger() for vcpu in vcpus]
    yield
    pcpu.set_clock(*counts)
    for vcpu, part in zip(vcpus, own, strict=True):
        vcpu.vmcs.restore_ledger(part)
        vcpu.runnable_since = pcpu.clock.now
