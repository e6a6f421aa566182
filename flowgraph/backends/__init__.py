"""P -> running program: reference (NumPy), cpu, cuda, and the choice between them. The only room that asks for a device."""
