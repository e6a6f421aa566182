"""The quick modes of the examples: each runs, and shows on a small scale what its docs page says."""
