"""PCI: configuration space, functions, BARs, MSI-X, the root with its two doors.

A device subclasses `vmm.devices.pci.function.PciFunction` (example there) and is plugged in with
`Board.plug()`.
"""
