"""The commands: each reads its options, makes one call, and prints."""
