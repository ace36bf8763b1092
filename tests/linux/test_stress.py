"""stress-ng from Debian's package: it loads one part of a kernel after the other, and looks.

With --verify each of its stressors checks what it computed, sent, stored or was told.
"""

import re
from pathlib import Path

import pytest

from tests.linux.guests import QUICK, Boot
from tests.linux.programs import program_archive
from tests.linux.test_work import without_complaint
from vmm.cli.packages import PackageError

LIBRARIES = (
    *(
        "libc6",
        "libapparmor1",
        "libbsd0",
        "libcrypt1",
        "libdrm2",
        "libegl1",
        "libexpat1",
        "libffi8",
    ),
    *("libgbm1", "libgles2", "libglvnd0", "libipsec-mb1", "libjpeg62-turbo", "libjudydebian1"),
    *("libkmod2", "liblzma5", "libmd0", "libsctp1", "libssl3", "libwayland-server0"),
    *("libxxhash0", "libzstd1", "zlib1g"),
)
"""Debian 12's packages with what stress-ng is linked to."""

GROUPS = {
    "arithmetic": """
        cpu:60 bsearch:5 crypt:5 fp:2 hash:20 heapsort:1 judy:1 longjmp:1000 matrix:20 matrix-3d:2
        mergesort:1 nop:100 qsort:1 radixsort:1 regs:50 skiplist:2 vecmath:10 vecfp:2 vecshuf:2
        vecwide:5 wcs:5 zlib:1 str:5 funccall:1 goto:50 branch:100""",
    "processes": """
        clone:30 context:50 daemon:20 exec:20 exit-group:10 fork:100 kill:200 pthread:50 spawn:20
        switch:2000 vfork:100 wait:100 yield:2000 zombie:50 schedpolicy:100 ptrace:20 session:10""",
    "signals": """
        sigabrt:50 sigchld:50 sigfd:200 sigfpe:50 sigio:50 signest:50 sigpending:200 sigq:200
        sigrt:200 sigsegv:200 sigsuspend:100 sigtrap:200 sigpipe:50 bad-altstack:20 priv-instr:50
        stackmmap:2 opcode:20 alarm:2 itimer:50 nanosleep:50 timer:50 timerfd:50 hrtimers:50
        clock:50 tsc:20 vdso:200 poll:50""",
    "messages": """
        eventfd:500 epoll:50 fifo:500 futex:200 membarrier:20 mq:200 msg:500 mutex:100 pipe:500
        sem:500 sem-sysv:200 sock:10 sockpair:100 sockfd:50 udp:50 splice:100 sendfile:20 tee:20""",
    "memory": """
        brk:200 cache:2 icache:10 fault:200 madvise:5 malloc:500 memfd:1 mincore:20 mlock:50 mmap:5
        mmapfork:2 mprotect:200 mremap:20 msync:5 munmap:5 pkey:50 remap:5 shm:2 shm-sysv:5
        tlb-shootdown:5 userfaultfd:50 vm:100 vm-rw:20 vm-segv:20 vm-splice:100""",
    "files": """
        access:10 chdir:10 chmod:10 dentry:100 dir:50 dup:50 fallocate:5 fcntl:50 flock:100 hdd:5
        fstat:10 getdent:20 inotify:5 io-uring:20 aio:20 link:5 locka:50 lockf:50 rename:100
        seek:50 symlink:10 sync-file:5 touch:50 utime:50""",
    "processor": """
        atomic:20 lockbus:50 misaligned:20 x86cpuid:20 x86syscall:200 usersyscall:200 rdrand:20
        get:5 sysinfo:20 set:5 seccomp:20 numa:2 prefetch:2 affinity:50 ioport:20 personality:5""",
}
"""Stressors, each with the number of its operations after which it is over."""

SEVERAL = [("processes", 4), ("messages", 4)]
"""As many workers of each on as many processors."""

STRESS = """\
for pair in {pairs}; do \
stress-ng --${{pair%:*}} {workers} --${{pair%:*}}-ops ${{pair#*:}} -t 1 --verify > /root/s 2>&1; \
status=$?; echo "ST""ATUS $pair $status"; \
case $status in 0|4) ;; *) grep -v 'info:\\|metrc' /root/s | head -4;; esac; done"""
PASSED = ("0", "4")  # 4: the kernel or the processor has it not (stress-ng(1), "EXIT STATUS")


@pytest.fixture(scope="session")
def stressed(cloud: Boot, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    path = tmp_path_factory.mktemp("stress") / "stress.cpio"
    try:
        path.write_bytes(program_archive("stress-ng", "stress-ng", LIBRARIES))
    except PackageError as error:  # other releases have other names for some of them
        pytest.skip(str(error))
    return [cloud.initrd, path]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "cpus"), [*((group, 1) for group in GROUPS), *SEVERAL])
def test_what_stress_ng_does_is_right(
    cloud: Boot, stressed: list[Path], group: str, cpus: int
) -> None:
    """On a model without AVX: programs that choose code by the model's number, not by what CPUID
    offers, take AVX-512's on Cascade Lake's, as they do wherever a hypervisor hides AVX.
    """
    pairs = GROUPS[group].split()
    text, result = cloud.say(
        STRESS.format(pairs=" ".join(pairs), workers=cpus), "dmesg | tail -30", initrds=stressed,
        memory="512M", cpus=cpus, cpu_model="westmere", timing="cycle", cmdline=f"{QUICK} quiet",
        max_instructions=100_000_000_000,
    )  # fmt: skip
    assert result.reason == "poweroff"
    ended = dict(re.findall(r"^STATUS (\S+) (\d+)", text, re.MULTILINE))
    assert list(ended) == pairs
    assert {pair for pair, status in ended.items() if status not in PASSED} == set(), text
    assert sum(status == "0" for status in ended.values()) > len(ended) * 0.8, ended
    without_complaint(text.partition("dmesg |")[2].replace("segfault at", ""))
