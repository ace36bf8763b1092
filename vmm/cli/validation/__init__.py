"""`ring1 bench validate`: what the cycle model predicts, beside what was published."""
