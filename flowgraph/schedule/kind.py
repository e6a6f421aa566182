"""How a kernel would be scheduled, as far as joining it with another is concerned. Knows every device's schedules."""

from __future__ import annotations

from collections.abc import Hashable

from flowgraph.kernels.kernel import Kernel
from flowgraph.schedule import cpu, cuda
from flowgraph.schedule.access import as_walked

TILE = (8, 2)  # any: a product has a register tile to itself, whatever that is


def kind_of(kernel: Kernel) -> Hashable | None:
    """Equal for kernels that walk their outer loops alike on every device; None for products, which have a register
    tile to themselves, for what keeps a table of what it has seen, and for scatters, whose order is fixed."""
    if any(s.add for nest in kernel.nests for s in nest.stores):
        return None
    collapsed = as_walked(kernel)
    schedules = cpu.choose(collapsed, TILE), cuda.choose(collapsed)
    if isinstance(schedules[0], (cpu.Tile, cpu.Panels, cpu.Seen)) or isinstance(schedules[1], cuda.Tile):
        return None
    return (*schedules, tuple(a.extent for a in collapsed.axes))
