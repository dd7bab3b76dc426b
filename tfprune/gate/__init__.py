"""The size gate: standard library only."""
