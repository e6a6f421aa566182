"""G: what a user builds. Tensors, ops applied, shapes with named sizes, where in the user's code. Knows no
op.
"""
