"""The `flowgraph` command: words in, an exit status out. A user's mistake is a message and status 2, no
traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flowgraph import __version__
from flowgraph.cli import commands, data, demo, doctor
from flowgraph.errors import FlowgraphError
from flowgraph.graph import origin as origins
from flowgraph.graph.origin import Origin
from flowgraph.viz.display import STAGES

MISTAKE = 2  # as argparse's own


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0, or 1 where the demo misses its accuracy, or 2 for a mistake."""
    arguments = parser().parse_args(argv)
    try:
        with origins.at(Origin()):  # nobody's line: what is wrong lies in a file, or in an argument
            return int(arguments.run(arguments))
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FlowgraphError, OSError) as error:
        if arguments.debug:
            raise
        about_file = isinstance(error, OSError) and error.filename
        message = f"{error.filename}: {error.strerror}" if about_file else error  # type: ignore[union-attr]
        print(f"flowgraph: {message}", file=sys.stderr)
        return MISTAKE


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="flowgraph", description="Train, draw and read symbolic graphs.")
    top.add_argument("--version", action="version", version=f"flowgraph {__version__}")
    kinds = top.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, module: object, summary: str) -> argparse.ArgumentParser:
        found = kinds.add_parser(name, help=summary, description=summary)
        found.set_defaults(run=getattr(module, name))
        found.add_argument("--debug", action="store_true", help="show the traceback of an error")
        return found

    one = command("demo", demo, "train the lecture's network on real digits, draw it, write its source")
    one.add_argument("--hidden", type=int, default=demo.HIDDEN, help="hidden units (%(default)s)")
    one.add_argument(
        "--seeds", type=int, default=1, help="train this often, and state the mean (%(default)s)"
    )
    one.add_argument("--out", type=Path, default=Path("out/demo"), help="where to write (%(default)s)")
    _training(one, epochs=demo.EPOCHS, rate=demo.RATE)

    one = command("train", commands, "train a model in the lecture's notation")
    _model(one)
    fed = "'digits', or an .npz file of arrays named as the inputs (%(default)s)"
    one.add_argument("--data", default="digits", help=fed)
    one.add_argument("--validation", help="an .npz file; the digits hold out 360 images themselves")
    one.add_argument("--momentum", type=float, default=0.0)
    one.add_argument("--out", type=Path, help="write parameters, pictures and generated source here")
    _training(one, epochs=30, rate=0.5)

    one = command("show", commands, "print or draw a stage of a model's training step")
    _model(one)
    one.add_argument("--stage", choices=STAGES, default="declared")
    one.add_argument("--detail", action="store_true", help="a box for every node")
    one.add_argument(
        "-o", "--output", type=Path, help="a picture: .svg, .dot, .mmd; text is printed otherwise"
    )

    one = command("explain", commands, "say what shares a kernel and why, and where the memory of a step goes")
    _model(one)
    _device(one)
    one.add_argument(
        "--size",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="give a named size a value, for the memory: --size batch=32",
    )
    one.add_argument("-o", "--output", type=Path, help="draw the arena: .svg")

    one = command("profile", commands, "make many steps on one batch; say where their time goes, by kernel and line")
    _model(one)
    one.add_argument("--data", default="digits", help=fed)
    one.add_argument("--batch", type=int, default=32, help="examples a step (%(default)s)")
    one.add_argument("--steps", type=int, default=1000, help="(%(default)s)")
    one.add_argument("--threads", type=int, help="at most so many (all)")
    _device(one)

    one = command("source", commands, "print the generated kernels of a model's training step")
    _model(one)
    _device(one)
    one.add_argument("-o", "--output", type=Path, help="write to this folder, a file a kernel")

    one = command("data", data, "list data sets, get them from public registries, say where they lie")
    one.add_argument("action", choices=data.ACTIONS, nargs="?", default="list", help="(list)")
    one.add_argument("names", nargs="*", metavar="NAME", help="data sets, such as fashion_mnist")
    here = "an archive, or a folder, that was downloaded elsewhere"
    one.add_argument("--from", dest="given", type=Path, metavar="PATH", help=here)

    one = command("doctor", doctor, "what flowgraph finds on this machine")
    one.add_argument("--clear-cache", action="store_true", help="remove all kept kernels instead")
    return top


def _model(to: argparse.ArgumentParser) -> None:
    to.add_argument("file", type=Path, metavar="FILE.fg", help="a model in the lecture's notation")
    to.add_argument("--cost", help="the value to minimise (the last one that can be)")
    to.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=SIZES",
        help="replace a shape: --shape W1=64,128",
    )


def _training(to: argparse.ArgumentParser, epochs: int, rate: float) -> None:
    to.add_argument("--epochs", type=int, default=epochs, help="(%(default)s)")
    to.add_argument("--batch", type=int, default=32, help="examples a step (%(default)s)")
    to.add_argument("--rate", type=float, default=rate, help="learning rate (%(default)s)")
    to.add_argument("--seed", type=int, default=0, help="of first weights and orders (%(default)s)")
    to.add_argument("--threads", type=int, help="at most so many (all)")
    _device(to)


def _device(to: argparse.ArgumentParser) -> None:
    to.add_argument("--device", default="auto", help="auto, cpu, cuda or reference (%(default)s)")
