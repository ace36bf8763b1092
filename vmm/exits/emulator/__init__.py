"""The instruction emulator: one decoded instruction applied to an abstract machine.

`vmm.exits.emulate.emulate` is the door. Inside: `decode` turns bytes into an `Instruction`,
`plan` compiles it once into a closure, `ops`, `strings` and `sse` hold the meanings.
"""
