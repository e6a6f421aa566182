"""One file a contestant, one at a time in a process of its own (see `benchmarks.serve`).

Each has `ORDER`, how it reads the examples: "given", "shuffled" by `Data.order`, or its "own"; and
`build(batch, hidden, data) -> run`, where `run(steps)` trains that many steps (whole epochs), waits for their
end, and returns the last step's loss.
"""
