"""The arena of a plan at fixed sizes: where each value and each launch's working memory lies. The executors bind this,
and the report of memory shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flowgraph.errors import DeviceError
from flowgraph.graph.size import evaluate
from flowgraph.graph.tensor import Tensor
from flowgraph.plan.layout import ALIGNMENT, Block, liveness_bound, pack
from flowgraph.plan.plan import Plan

Working = Sequence[Mapping[str, int]]  # for every launch the bytes it needs for itself, by name


@dataclass(frozen=True)
class Arena:
    """Offsets are bytes from the arena's start; `bound` is what is alive at once at most, a limit of any layout."""

    values: dict[Tensor, Block]
    offsets: dict[Tensor, int]
    working: tuple[dict[str, int], ...]  # offsets
    scratch: tuple[tuple[int, int], ...]  # of each launch's own memory as a whole: offset, bytes
    total: int
    bound: int


@contextmanager
def room_for(arena: Arena) -> Iterator[None]:
    """Says what needs the memory, and where it was declared, if there is not enough for the arena."""
    try:
        yield
    except DeviceError as error:
        largest = sorted(arena.values, key=lambda t: -arena.values[t].size)[:3]
        most = ", ".join(f"{arena.values[t].size:,} bytes of {t.label or t.op.name}: {t.type}" for t in largest)
        raise DeviceError(
            f"a step needs {arena.total:,} bytes at these sizes, more than there is: {most or 'working memory'}",
            where=largest[0].origin if largest else None,
            hint="feed less at once; program.memory(sizes) shows where all bytes go",
        ) from error


def lay_out(plan: Plan, working: Working, sizes: Mapping[str, int]) -> Arena:
    """Pack what lives in the arena. A call's working memory lives as long as its launch."""
    tensors = list(plan.lifetimes)
    blocks = [Block(evaluate(plan.bytes_of(t), sizes), *plan.lifetimes[t]) for t in tensors]
    own = [{name: -(-size // ALIGNMENT) * ALIGNMENT for name, size in each.items()} for each in working]
    scratch = [sum(each.values()) for each in own]
    together = [launch for launch in plan.launches for _ in launch]
    everything = [*blocks, *(Block(n, run.start, run.stop - 1) for n, run in zip(scratch, together, strict=True))]
    offsets, total = pack(everything)
    starts = offsets[len(tensors) :]
    named: list[dict[str, int]] = []
    for start, each in zip(starts, own, strict=True):
        named.append({})
        for name, size in each.items():
            named[-1][name] = start
            start += size
    return Arena(
        values=dict(zip(tensors, blocks, strict=True)),
        offsets=dict(zip(tensors, offsets, strict=False)),
        working=tuple(named),
        scratch=tuple(zip(starts, scratch, strict=True)),
        total=total,
        bound=liveness_bound(everything),
    )
