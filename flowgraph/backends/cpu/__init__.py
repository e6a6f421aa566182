"""The CPU backend: kernels kept as machine code, one native driver, a team of threads."""
