"""The Debug Adapter Protocol: a VM as VS Code and other editors see it."""
