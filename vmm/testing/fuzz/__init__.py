"""`ring1 fuzz`: random instruction sequences, run here and on an independent machine."""
