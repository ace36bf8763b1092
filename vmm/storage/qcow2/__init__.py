"""qcow2 images, versions 2 and 3 (QEMU, docs/interop/qcow2: the format's specification)."""
