"""The lecture's notation: text, or a .fg file, in; named tensors out. Knows the ops only by their registry.

    Inputs: X,W1,B1
    Shapes: X(batch,64), W1(64,32), B1(32)     // the one addition: or give shapes= in Python
    Z1 = add*(mul(X,W1),B1)                    // matrix mult, then add bias vec
    P = softMax(tanh(Z1))
    C = crossEntY(P)                           // the suffix names the target: an input Y

One statement a line. An op is called by the name in its pictures or in Python (`softMax`, `softmax`,
`soft_max`), takes numbers, sizes and keywords (`sum(C, axis=0)`), and may be nested; `+ - * /` work between
elements. An input whose shape has a named size is data, any other a parameter. Text is parsed into a tree,
then evaluated: nothing in it is ever run.

In the order of the data: `tokens`, `reader` (with `vocabulary`) to the tree in `tree`, `model` to tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowgraph.errors import ParseError
from flowgraph.graph import origin as origins
from flowgraph.graph.tensor import Tensor
from flowgraph.notation.model import Model
from flowgraph.notation.reader import read

__all__ = ["parse", "parse_file"]


def parse(
    text: str,
    shapes: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, Any] | None = None,
    filename: str = "<text>",
) -> dict[str, Tensor]:
    """The named tensors of a model in the lecture's notation: inputs, parameters, every value with a name.

    `shapes` gives each input's shape where the text has no `Shapes:` line. A shape without a named size makes
    a parameter: matrices drawn from `glorot_uniform`, vectors zero. Inputs are float32 unless `dtypes` says
    otherwise; a target such as the `Y` of `crossEntY(P)` is int32 class numbers if it has one axis, else a
    distribution. Raises ParseError with file, line and column, and the ops' own errors at the line that
    caused them.

    >>> text = "Inputs: X,W,B\\nA = tanh(add*(mul(X,W),B))"
    >>> parse(text, shapes={"X": ("batch", 4), "W": (4, 2), "B": (2,)})["A"]
    <Tensor A: float32(batch, 2)>
    """
    given: object = text
    if not isinstance(given, str):
        wrong = f"parse takes the text of a listing, got {type(given).__name__}"
        raise ParseError(wrong, where=origins.here(), hint="fg.parse_file reads a file")
    listing = read(text, filename, shapes or {})
    return Model(listing, dict(shapes or {}), dict(dtypes or {}), filename).build()


def parse_file(
    path: str | Path, shapes: Mapping[str, Any] | None = None, dtypes: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """`parse` on the text of a .fg file (UTF-8)."""
    return parse(read_text(path), shapes, dtypes, filename=str(path))


def read_text(path: str | Path) -> str:
    """The text of a .fg file. Raises ParseError if it cannot be read, or is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        hint = "" if Path(path).is_absolute() else f"it is looked for in {Path.cwd()}"
        raise ParseError(f"{path}: {error.strerror}", where=origins.here(), hint=hint) from error
    except UnicodeDecodeError as error:
        raise ParseError("this is not UTF-8 text", where=path, hint="save the file as UTF-8") from error
