"""virtio 1.x: devices whose queues lie in guest memory; `device` has the base and an example."""
