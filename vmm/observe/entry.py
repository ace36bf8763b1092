"""`explain entry`: each check of a VM entry, with the values it looks at, in order."""

from collections.abc import Iterator
from typing import Final

from hwmodel.arch.vmcs import Field
from hwmodel.vmx.checks import Finding, Stage, examine
from hwmodel.vmx.entry_view import EntryView
from vmm.vcpu import Vcpu

_TITLES: Final = {
    Stage.CONTROLS: "Checks on VMX controls (failure: VM-instruction error 7)",
    Stage.HOST: "Checks on the host-state area (failure: VM-instruction error 8)",
    Stage.GUEST: "Checks on the guest-state area (failure: exit INVALID_STATE)",
}


def findings(vcpu: Vcpu) -> list[Finding]:
    """What each check finds in the vCPU's VMCS as it is now. Reading changes nothing."""
    ram = vcpu.memory.ram.view

    def read(hpa: int, size: int) -> int:
        if hpa + size > len(ram):
            return (1 << size * 8) - 1
        return int.from_bytes(ram[hpa : hpa + size], "little")

    fields = {field: vcpu.vmcs[field] for field in Field}
    view = EntryView(fields, vcpu.pcpu.capabilities, read, current=vcpu.vmcs.native.region)
    return list(examine(view))


def explain_entry(vcpu: Vcpu) -> Iterator[str]:
    """Lines that tell of every check: its verdict, its sentence, the fields and their values."""
    found = findings(vcpu)
    stage: Stage | None = None
    for finding in found:
        if finding.check.stage is not stage:
            stage = finding.check.stage
            yield _TITLES[stage]
        yield from _lines(finding)
    bad = [finding.check for finding in found if not finding.passes]
    yield f"{len(found)} checks, {len(bad)} fail"
    if bad:
        first = bad[0]
        how = first.stage.value
        if first.stage is Stage.GUEST:
            how += f", qualification {int(first.qualification)}"
        yield f"The entry fails by {first.name}: {how}"
    else:
        yield "The entry succeeds."


def _lines(finding: Finding) -> Iterator[str]:
    verdict = "pass" if finding.passes else "FAIL"
    yield f"  {verdict}  {finding.check.name}: {finding.check.text}"
    values = [f"{field.name}={value:#x}" for field, value in finding.seen.items()]
    for start in range(0, len(values), 4):
        yield "        " + " ".join(values[start : start + 4])
