"""How much TCP a host CPU second carries between Linux in a VM and a program on the host.

python -m tests.linux.measure_network [MIB] [OPTIONS OF --net user, such as mtu=65520]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.linux.guests import PROMPT, QUICK, Boot, Console, initrd_for
from vmm.cli.kernels import Flavour, fetch_kernel
from vmm.host.sources import wait

PEER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
peer = server.accept()[0]
while peer.recv(1 << 18): pass
peer = server.accept()[0]
for _ in range(16 * int(sys.argv[1])): peer.sendall(bytes(1 << 16))
"""
UP = "ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; sleep 1; echo MA''RK\n"


def main(mebibytes: int, further: str) -> None:
    words = [sys.executable, "-c", PEER, str(mebibytes)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as peer,
    ):
        assert peer.stdout is not None
        port = int(peer.stdout.readline())
        kernel = fetch_kernel(Flavour.CLOUD)
        marks: list[float] = []
        up = f"nc 10.0.2.2 {port} -e dd if=/dev/zero bs=64k count={16 * mebibytes}"
        down = f"nc 10.0.2.2 {port} -e dd of=/dev/null bs=64k"
        console = Console([(PROMPT, UP.encode())])
        for line in (up, down):
            console.steps.append((b"MARK", lambda: marks.append(time.process_time())))
            console.steps.append((PROMPT, f"{line}; echo MA''RK\n".encode()))
        console.steps.append((b"MARK", lambda: marks.append(time.process_time())))
        console.steps.append((PROMPT, b"poweroff\n"))
        net = f"user,{further}" if further else "user"
        boot = Boot(kernel, initrd_for(kernel, Path(folder)))
        with boot.vm(console, net=net, cmdline=f"{QUICK} quiet", wait_idle=wait) as vm:
            vm.run()
    for name, begin, end in zip(("host", "guest"), marks, marks[1:], strict=False):
        sys.stdout.write(f"to the {name}: {mebibytes / (end - begin):.1f} MiB a CPU second\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 64, ",".join(sys.argv[2:]))
