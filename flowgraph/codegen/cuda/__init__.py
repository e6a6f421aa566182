"""The parts of the CUDA prelude."""
