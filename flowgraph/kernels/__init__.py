"""K: what is computed, not how. Fusion of the optimised graph into kernels in index notation, and their oracle."""
