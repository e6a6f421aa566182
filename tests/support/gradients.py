"""Gradients of parameters beside central differences, on the reference device."""

from __future__ import annotations

import numpy as np

import flowgraph as fg


def assert_parameters_have_gradients(cost: fg.Tensor, parameters: list[fg.Tensor], **feeds: np.ndarray) -> None:
    """The gradients of a float64 cost, compared with differences along a random direction for each parameter."""
    program = fg.compile(outputs=[cost, *fg.grad(cost, parameters)], device="reference")
    gradients = program(**feeds)[1:]
    for seed, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        start = np.array(parameter.value)
        direction = np.random.default_rng(seed).choice([-1.0, 1.0], size=start.shape)
        ends = []
        for sign in (1, -1):
            parameter.value = start + sign * 1e-5 * direction
            ends.append(program(**feeds)[0])
        parameter.value = start
        expected, found = (ends[0] - ends[1]) / 2e-5, (gradient * direction).sum()
        scale = np.abs(gradient).sum()
        assert scale > 0 and abs(found - expected) <= 1e-6 * scale, f"{parameter.label}: {found}, not {expected}"
