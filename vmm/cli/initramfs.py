"""The initramfs of the demo and of the boot tests: busybox, some modules, a shell as init.

Init mounts what a Linux user expects, loads the driver of every device that is there, and starts
/script, if another archive has put one there, or a shell on the console; then it powers off. What
poweroff, reboot and halt send to init are the signals of busybox's own.
"""

from pathlib import Path
from typing import Final

from vmm.cli.cpio import Archive
from vmm.cli.kernel_modules import Module, alias_file, dependency_file

READY: Final = "ring1: ready"
"""Init prints this line when the shell or the script is about to start."""

INIT: Final = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=${{TERM:-linux}} PS1='ring1# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
hostname ring1
for bus in pci acpi virtio xen; do
    cat /sys/bus/$bus/devices/*/modalias 2>/dev/null | sort -u | while read -r alias; do
        modprobe -q "$alias" 2>/dev/null
    done
done
cd /root
trap 'sync; poweroff -f' USR2
trap 'sync; reboot -f' TERM
trap 'sync; halt -f' USR1
echo '{READY}'
if [ -e /script ]; then
    sh /script &
else
    [ -e /sys/class/net/eth0 ] && echo 'Network card: udhcpc takes an address for it.'
    echo 'Linux in ring 1: leave with poweroff, or with Ctrl-A x.'
    setsid cttyhack sh &
fi
wait $!
sync
poweroff -f
"""

UDHCPC: Final = """\
#!/bin/sh
case $1 in
deconfig)
    ip link set "$interface" up
    ip addr flush dev "$interface"
    ;;
bound | renew)
    ip addr replace "$ip/$mask" dev "$interface"
    for gateway in $router; do ip route replace default via "$gateway"; done
    for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
    ;;
esac
"""
"""What udhcpc calls, from where Debian's looks for it; the variables are those of its manual."""

_FOLDERS: Final = (
    *("bin", "dev", "etc", "etc/udhcpc", "lib", "lib/modules"),
    *("mnt", "proc", "root", "sys", "tmp"),
)


def base_archive(busybox: bytes, modules: list[Module], release: str) -> bytes:
    """Return the archive for one kernel; ``release`` is what uname -r says."""
    archive = Archive()
    for folder in _FOLDERS:
        archive.folder(folder)
    archive.link("sbin", "bin")
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox, 0o755)
    archive.file("init", INIT.encode(), 0o755)
    archive.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n")
    archive.file("etc/udhcpc/default.script", UDHCPC.encode(), 0o755)
    _add_modules(archive, modules, f"lib/modules/{release}")
    return archive.finished()


def script_archive(script: str) -> bytes:
    """Return an archive that makes init run ``script`` instead of a shell."""
    archive = Archive()
    archive.file("script", script.encode(), 0o755)
    return archive.finished()


def _add_modules(archive: Archive, modules: list[Module], folder: str) -> None:
    archive.folder(folder)
    made = set()
    for module in modules:
        for parent in reversed(Path(module.path).parents):
            name = parent.as_posix()
            if name != "." and name not in made:
                made.add(name)
                archive.folder(f"{folder}/{name}")
        archive.file(f"{folder}/{module.path}", module.data)
    archive.file(f"{folder}/modules.dep", dependency_file(modules))
    archive.file(f"{folder}/modules.alias", alias_file(modules))
