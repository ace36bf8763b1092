"""How a guest is held: what stands between its view of the processor and the processor's."""
