"""P -> running program: reference (NumPy), cpu, cuda, and the choice between them, made nowhere else."""
