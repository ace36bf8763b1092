"""(b) The microbenchmarks of Adams and Agesen 2006 on the models of their machines."""

from typing import Final

from vmm.cli.validation.figure import Figure
from vmm.cli.validation.guest import repeated

SECTION: Final = "Microbenchmarks of Adams and Agesen (ASPLOS 2006)"
SOURCE: Final = "Adams & Agesen 2006, nanobenchmarks"
_VTX: Final = "VT-x, shadow"
MODEL: Final = "pentium-4-672"
_TRAP: Final = (
    "trap-and-emulate; their software column is binary translation, which it does not reach"
)
NATIVE: Final = {
    "syscall": 242, "in": 3209, "cr8wr": 150, "callret": 11, "pgfault": 1093, "divzero": 889,
    "ptemod": 1, "ptemod-going": 4, "ptemod-coming": 5,
}  # fmt: skip
HARDWARE: Final = {
    "syscall": 246, "in": 15826, "cr8wr": 177, "callret": 11, "pgfault": 11242, "divzero": 1014,
    "ptemod": 12733, "ptemod-going": 9154, "ptemod-coming": 17020,
}  # fmt: skip
_IN_FILE_NATIVE: Final = {"syscall", "cr8wr", "divzero"}
_IN_FILE_HARDWARE: Final = {"pgfault"}
_NO_TABLE = "The block table is another processor's: nobody models the Pentium 4's pipeline"
_STORE = f"A store that nothing waits for. {_NO_TABLE}"
_NOT_TRACED = (
    "Their VMM traces page tables; this one compares them when the guest invalidates, so that a "
    "store costs nothing and INVLPG pays"
)
_NATIVE_NOTES: Final = {
    "callret": _NO_TABLE,
    "ptemod": _STORE,
    "ptemod-going": _STORE,
    "ptemod-coming": _STORE,
}
_HARDWARE_NOTES: Final = {
    "callret": _NO_TABLE,
    "ptemod": _NOT_TRACED,
    "cr8wr": "With the TPR shadow (--apicv), as theirs",
}
_TRAP_NOTES: Final = {
    "cr8wr": "A fault, an emulator and back",
    "callret": "No trap",
    "syscall": "SYSCALL and SYSRET both trap from ring 1",
}


def measure() -> list[Figure]:
    """Run them natively, under VT-x with shadow tables and under trap-and-emulate."""
    native = repeated("bench_nano.elf", bare=True, apicv="on", cpu_model=MODEL)
    hardware = repeated("bench_nano.elf", mmu="shadow", cpu_model=MODEL)
    hardware["cr8wr"] = repeated("bench_nano.elf", apicv="on", cpu_model=MODEL)["cr8wr"]
    trap = repeated("bench_nano.elf", technique="trap", cpu_model=MODEL)
    for column in (native, hardware, trap):
        column["syscall"] -= column["user-empty"]  # its loop runs in ring 3
    native |= dict.fromkeys(("ptemod-going", "ptemod-coming"), native["ptemod"])  # the store alone
    rows = []
    for name, published in NATIVE.items():
        rows.append(_row(name, "native", native[name], published, _NATIVE_NOTES, _IN_FILE_NATIVE))
    for name, published in HARDWARE.items():
        rows.append(
            _row(
                name, "VT-x, shadow", hardware[name], published, _HARDWARE_NOTES, _IN_FILE_HARDWARE
            )
        )
    for name in NATIVE:
        note = _TRAP_NOTES.get(name, "")
        rows.append(
            Figure(SECTION, MODEL, f"{name}, trap", "cycles", trap[name], None, _TRAP, note=note)
        )
    return rows


def _row(
    name: str,
    how: str,
    predicted: float,
    published: float | None,
    notes: dict[str, str],
    held: set[str],
) -> Figure:
    note, in_file = notes.get(name, ""), name in held
    return Figure(
        SECTION, MODEL, f"{name}, {how}", "cycles", predicted, published, SOURCE, in_file, note
    )
