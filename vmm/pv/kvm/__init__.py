"""KVM's dialect, as Linux guests know it."""
