"""The runner: a cost, an optimiser and data -> trained parameters, with no Python per step."""
