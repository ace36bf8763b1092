"""How each kind of image starts: told apart by content, turned into a ``BootPlan``."""
