"""`flowgraph train`, `show`, `explain`, `profile` and `source`: each takes the parsed arguments and returns an exit
status.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowgraph.cli.model import Model, feed_digits, last_cost, parse_shapes, read_arrays, read_model
from flowgraph.compile import sources
from flowgraph.datasets import load_digits
from flowgraph.errors import FlowgraphError, InputError
from flowgraph.notation import parse_file
from flowgraph.program import Program, whole_number
from flowgraph.train.trainer import Trainer
from flowgraph.viz.arena import show_memory
from flowgraph.viz.display import STAGES
from flowgraph.viz.display import show as draw
from flowgraph.viz.svg import find_engine

Arrays = dict[str, np.ndarray]


def train(arguments: Namespace) -> int:
    """Train, report, and write what came of it."""
    model = read_model(arguments.file, parse_shapes(arguments.shape), arguments.cost)
    data, validation = _data(model, arguments)
    trainer = Trainer(
        model.cost,
        model.sgd(arguments.rate, arguments.momentum),
        model.metrics,
        arguments.device,
        arguments.seed,
        arguments.threads,
    )
    print(f"device {trainer.program.device}, {len(trainer.program.kernels)} kernels")
    history = trainer.fit(data, arguments.epochs, arguments.batch, validation)
    print(history)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        values = {p.op.label: p.op.storage.read() for p in trainer.parameters}
        np.savez(arguments.out / "parameters.npz", **values)
        write_pictures(model.step(arguments.rate, "reference"), arguments.out)
        trainer.program.write_source(arguments.out / "source")
        print(f"parameters, pictures and generated source: {arguments.out}")
    return 0


def show(arguments: Namespace) -> int:
    """Print a stage of the training step, or draw it."""
    shapes = parse_shapes(arguments.shape)
    values = parse_file(arguments.file, shapes) if arguments.stage == "declared" and arguments.cost is None else {}
    what: Any = values
    if not values or last_cost(values) is not None:  # what is only declared needs no cost
        what = read_model(arguments.file, shapes, arguments.cost).step(rate=0.1, device="reference")
    shown = draw(what, arguments.output, stage=arguments.stage, detail=arguments.detail)
    print(f"{arguments.stage}: {arguments.output}" if arguments.output else shown.text.rstrip("\n"))
    return 0


def explain(arguments: Namespace) -> int:
    """Print why the training step's kernels are as they are; its memory, too, where sizes are given."""
    sizes = _sizes(arguments.size)
    model = read_model(arguments.file, parse_shapes(arguments.shape), arguments.cost)
    program = model.step(rate=0.1, device=arguments.device)
    memory = None
    if arguments.size or arguments.output is not None or not program.sizes:
        memory = program.memory(sizes)
    print(str(program.explain()).rstrip("\n"))
    if memory is not None:
        print(f"\n{memory}".rstrip("\n"))
        if arguments.output is not None:
            show_memory(memory, arguments.output)
            print(f"\narena: {arguments.output}")
    return 0


def profile(arguments: Namespace) -> int:
    """Print where the time of the training step goes, on the first examples of the data."""
    model = read_model(arguments.file, parse_shapes(arguments.shape), arguments.cost)
    arguments.validation = None
    data, _ = _data(model, arguments)
    count = whole_number(arguments.batch, "--batch", least=1)
    program = model.step(rate=0.1, device=arguments.device, threads=arguments.threads)
    fed = {name: array[:count] for name, array in data.items()}
    print(str(program.profile(arguments.steps, fed)).rstrip("\n"))
    return 0


def _sizes(options: Sequence[str]) -> dict[str, int]:
    """--size batch=32"""
    sizes: dict[str, int] = {}
    for option in options:
        name, _, value = option.partition("=")
        if not (value.isascii() and value.isdigit()) or int(value) >= 2**31:
            raise InputError(
                f"--size {option!r} is not NAME=VALUE, a number below 2**31", hint="for example --size batch=32"
            )
        sizes[name] = int(value)
    return sizes


def source(arguments: Namespace) -> int:
    """Print the generated source of the training step, or write it as files; needs no such device."""
    model = read_model(arguments.file, parse_shapes(arguments.shape), arguments.cost)
    step = model.step(rate=0.1, device="reference")
    files = sources(step, arguments.device)
    if arguments.output is None:
        print("\n\n".join(files.values()).rstrip("\n"))
        return 0
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (arguments.output / name).write_text(text, encoding="utf-8")
        print(arguments.output / name)
    return 0


def write_pictures(step: Program, folder: Path, stages: tuple[str, ...] = STAGES) -> list[Path]:
    """Every stage as SVG; as Mermaid text, which many viewers draw, where no layout engine is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".svg" if find_engine() is not None else ".mmd"
    return [draw(step, stage=stage).save(folder / f"{stage}{suffix}") for stage in stages]


def _data(model: Model, arguments: Namespace) -> tuple[Arrays, Arrays | None]:
    if arguments.data == "digits":
        if arguments.validation is not None:
            raise FlowgraphError("the digits bring their own validation", hint="leave out --validation")
        training, held_out = load_digits().split()
        return feed_digits(model, training), feed_digits(model, held_out)
    held = read_arrays(arguments.validation) if arguments.validation is not None else None
    return read_arrays(arguments.data), held
