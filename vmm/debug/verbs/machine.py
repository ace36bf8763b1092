"""Verbs about the machine: caches of translations, the ledger, vCPUs, console, checkpoints."""

from vmm.debug.shell import Answer, Shell, verb


@verb("tlb", "tlb", "show what translation has cost so far")
def tlb(shell: Shell, _words: list[str]) -> Answer:
    """Counters of the memory-management unit."""
    counters = shell.vm.pcpu.mmu_counters()
    lines = [
        f"{name:<18} {value if isinstance(value, int) else ' '.join(map(str, value))}"
        for name, value in counters.items()
    ]
    return Answer(lines, dict(counters))


@verb("ledger", "ledger", "show where every cycle went")
def ledger(shell: Shell, _words: list[str]) -> Answer:
    """By heading."""
    booked = shell.vm.ledger.as_dict()
    total = max(1, sum(booked.values()))
    lines = [f"{name:<12} {n:>16,} {100 * n / total:6.2f} %" for name, n in booked.items()]
    return Answer(lines, dict(booked))


@verb("vcpus sched", "vcpus", "show what each virtual CPU does")
def vcpus(shell: Shell, _words: list[str]) -> Answer:
    """Activity, mode, RIP."""
    rows = [
        {"vcpu": vcpu.index, "activity": vcpu.activity.value, "mode": vcpu.mode(),
         "rip": vcpu.regs.rip}
        for vcpu in shell.vm.vcpus
    ]  # fmt: skip
    current = shell.session.vcpu.index
    lines = [
        f"{'*' if row['vcpu'] == current else ' '} vCPU {row['vcpu']}: {row['activity']}, "
        f"{row['mode']} mode, RIP {row['rip']:#x}"
        for row in rows
    ]
    return Answer(lines, {"vcpus": rows})


@verb("console", "console [N]", "show the last lines that the guest said")
def console(shell: Shell, words: list[str]) -> Answer:
    """Up to the present."""
    text = shell.vm.console.text().decode(errors="replace")
    lines = text.replace("\r", "").splitlines()[-shell.number(words, 20) :]
    return Answer(lines, {"console": "\n".join(lines)})


@verb("checkpoints", "checkpoints", "show the checkpoints and what they take")
def checkpoints(shell: Shell, _words: list[str]) -> Answer:
    """They take at most twice the guest's memory."""
    kept = shell.session.checkpoints
    text = (
        f"{len(kept)} checkpoints take {kept.size >> 20} MiB of at most {kept.limit >> 20} MiB, "
        f"from {kept.first.moment}"
    )
    data = {"checkpoints": len(kept), "bytes": kept.size, "limit": kept.limit}
    return Answer([text], data)


@verb("stats", "stats", "count exits by reason")
def stats(shell: Shell, _words: list[str]) -> Answer:
    """Up to the present."""
    counts = shell.vm.pcpu.exits_by_name()
    rows = sorted(counts.items(), key=lambda row: -row[1])
    return Answer([f"{name:<20} {count:>10,}" for name, count in rows], dict(counts))


@verb("digest", "digest", "show the digest of the whole state")
def digest(shell: Shell, _words: list[str]) -> Answer:
    """SHA-256 over memory, registers and devices."""
    found = shell.vm.digest()
    return Answer([found], {"digest": found})
