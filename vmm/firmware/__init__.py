"""What a PC's firmware would leave in memory: ACPI tables."""
