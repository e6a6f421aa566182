"""Any stage of the compiler as a picture: SVG, DOT, Mermaid, text. `show` is what users call."""

from flowgraph.viz.arena import ArenaPicture, show_memory
from flowgraph.viz.display import Shown, show
from flowgraph.viz.graphs import from_graph
from flowgraph.viz.kernels import from_kernels
from flowgraph.viz.picture import Edge, Picture, Vertex

__all__ = [
    "ArenaPicture",
    "Edge",
    "Picture",
    "Shown",
    "Vertex",
    "from_graph",
    "from_kernels",
    "show",
    "show_memory",
]
