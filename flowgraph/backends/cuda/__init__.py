"""The CUDA backend: generated source -> cubin -> launches on a GPU, or on the emulator of one."""
