"""Xen as a guest under VT-x sees it: hypercalls, events, grants and the store beside a processor
that is virtualized by hardware.
"""
