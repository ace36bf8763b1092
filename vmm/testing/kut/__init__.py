"""`ring1 kut`: a folder of kvm-unit-tests images as one command."""
