"""The work of the command ``sweep``: accuracy against bytes over many settings."""
