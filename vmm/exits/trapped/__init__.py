"""What a guest of the trap technique asks for, done by software: one handler an operation.

Its ring 0 is ring 1, so each instruction that is privileged, or shows what is not the guest's,
comes here (cext/deprivileged.c). The checks are the manual's for that instruction, in its order;
what the processor finds before it looks at the privilege level (an undefined form, a LOCK prefix)
never arrives.
"""
