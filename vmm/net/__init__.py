"""Network backends: what is at the other end of a guest's cable."""
