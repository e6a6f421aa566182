"""What a compiled program tells of itself: why its kernels are as they are, where its memory goes. Data that print."""
