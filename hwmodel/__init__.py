"""The modelled processor: what silicon does, without policy, guest knowledge or printing.

Read `arch` first (names and layouts), then `timing`, `mem`, `cpu`, `vmx`, and last `pcpu` and
`machine`, which put them together. The compiled half is `hwmodel._native`, built from `cext/`.
"""
