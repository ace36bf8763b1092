"""Back ends of Xen's PV devices: what serves a domain's front ends, over the same disk images and
network backends as virtio's devices.
"""
