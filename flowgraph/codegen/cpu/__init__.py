"""What generated CPU source is made of, as numba sees it: vector values, memory, the register tile."""
