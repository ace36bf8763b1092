"""Run random hostile programs and say what was found: `python tests/hostile/run_hostile.py --count 1000`.

Each process runs its share of the seeds on one VM. A process that dies or hangs is reported with the
seed it was at, and another one goes on behind it. The exit status is 1 if anything was found.
"""

import argparse
import faulthandler
import os
import select
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.hostile.generate import generate
from tests.hostile.judge import Machine, judge

HANG_SECONDS = 20  # of processor time: others may use the machine
LOST_SECONDS = 600  # waiting for what never comes


@dataclass(slots=True)
class Share:
    """Seeds from `next` to `end`, and the process that is at them."""

    next: int
    end: int
    slices_every: int
    pid: int = 0
    pipe: int = -1
    rest: bytes = b""
    heard: float = 0
    used: float = 0


def seconds_used(pid: int) -> float:
    """Return the processor time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hangs(share: Share) -> bool:
    """Whether the child is at one program for too long."""
    busy = seconds_used(share.pid) - share.used
    return busy > HANG_SECONDS or time.monotonic() - share.heard > LOST_SECONDS


def work(share: Share, say: int) -> None:
    """Be the child: announce each seed, then what was found."""
    machine = Machine()
    for seed in range(share.next, share.end):
        os.write(say, f"at {seed}\n".encode())
        try:
            found = judge(machine, generate(seed), seed % share.slices_every == 0)
        except Exception as error:  # whatever a guest makes us raise is a finding
            where = traceback.extract_tb(error.__traceback__)[-1]
            found = [
                f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            ]
            machine = Machine()
        for what in found:
            os.write(
                say,
                f"found {seed} {what[:400]}\n".replace("\n", " ", what[:400].count("\n")).encode(),
            )


def start(share: Share) -> None:
    """Give the share to a new process."""
    share.pipe, say = os.pipe()
    share.heard, share.used, share.rest = time.monotonic(), 0, b""
    share.pid = os.fork()
    if share.pid == 0:
        faulthandler.disable()
        try:
            work(share, say)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    os.close(say)


def listen(share: Share) -> list[str]:
    """Read what the child says; return findings. An empty read is its end."""
    data = os.read(share.pipe, 65536)
    if not data:
        return finish(share)
    *lines, share.rest = (share.rest + data).split(b"\n")
    share.heard, share.used, found = time.monotonic(), seconds_used(share.pid), []
    for line in lines:
        word, _, text = line.decode().partition(" ")
        if word == "at":
            share.next = int(text)
        else:
            found.append(text)
    return found


def finish(share: Share) -> list[str]:
    """Bury the child; go on behind the seed that killed it."""
    os.close(share.pipe)
    _, status = os.waitpid(share.pid, 0)
    share.pipe = -1
    if status == 0:
        return []
    code = os.waitstatus_to_exitcode(status)
    killed = f"{share.next} the process died: {f'signal {-code}' if code < 0 else f'status {code}'}"
    share.next += 1
    if share.next < share.end:
        start(share)
    return [killed]


def run(count: int, seed: int, jobs: int, slices_every: int) -> int:
    """Run them all; print findings as they come; return how many."""
    size, found, end = -(-count // jobs), 0, seed + count
    shares = [Share(at, min(at + size, end), slices_every) for at in range(seed, end, size)]
    for share in shares:
        start(share)
    while pipes := {share.pipe: share for share in shares if share.pipe >= 0}:
        ready, _, _ = select.select(list(pipes), [], [], 1)
        for text in [text for pipe in ready for text in listen(pipes[pipe])]:
            print("seed", text, flush=True)
            found += 1
        for share in shares:
            if share.pipe >= 0 and hangs(share):
                print("seed", share.next, f"hangs: nothing for {HANG_SECONDS} s", flush=True)
                os.kill(share.pid, 9)
                share.used, found = seconds_used(share.pid), found + 1
    return found


def main() -> int:
    """Read the options, run, sum up."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first program's number")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--slices-every", type=int, default=1, help="run each N-th program in slices too"
    )
    options = parser.parse_args()
    began = time.monotonic()
    found = run(options.count, options.seed, options.jobs, max(options.slices_every, 1))
    seconds = time.monotonic() - began
    print(f"{options.count} programs from seed {options.seed}, {found} findings, {seconds:.0f} s")
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
