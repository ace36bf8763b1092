"""Makes cext/cost_tables.h: instruction forms with their operands, and what each costs by llvm-mca."""
