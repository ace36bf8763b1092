"""The fixed ports of Xen's platform device (Xen, docs/misc/hvm-emulated-unplug.pandoc)."""

from vmm.xenback.platform_pci import DEVICE, MAGIC, VENDOR, PlatformPorts, XenPlatform


def test_a_driver_finds_the_magic_and_the_protocol() -> None:
    ports = PlatformPorts(lambda _line: None)
    assert ports.read(0, 2) == MAGIC == 0x49D2
    assert ports.read(2, 1) == 1
    assert ports.read(2, 2) == 0xFFFF


def test_what_is_written_is_told_apart_by_its_width() -> None:
    ports = PlatformPorts(lambda _line: None)
    ports.write(2, 2, 3)
    ports.write(0, 4, 0x06_01_00_00)
    ports.write(0, 2, 3)
    ports.write(0, 1, 1)
    assert (ports.product, ports.driver, ports.unplugged, ports.flags) == (3, 0x6010000, 3, 1)
    assert ports.read(0, 1) == 1
    other = PlatformPorts(lambda _line: None)
    other.restore(ports.save())
    assert other.save() == ports.save()


def test_the_log_comes_in_lines_that_end() -> None:
    lines: list[bytes] = []
    ports = PlatformPorts(lines.append)
    for character in b"one\ntwo" + bytes(5000):
        ports.write(2, 1, character)
    assert lines[0] == b"one\n"
    assert len(lines[1]) == 4096


def test_the_function_is_what_drivers_look_for() -> None:
    function = XenPlatform()
    assert function.read(0, 4) == DEVICE << 16 | VENDOR == 0x0001_5853
    assert [bar.size for bar in function.bars.values()] == [256, 16 << 20]
