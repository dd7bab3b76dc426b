"""The size gate: compares models' sizes with limits; standard library only."""
