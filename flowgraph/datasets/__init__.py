"""Data that ships with flowgraph: small, real, checksummed; credits in `data/README.md`.

Comes in: files of this package. Goes out: `Dataset`, plain NumPy arrays.
May not know graphs, training or devices.
"""

from flowgraph.datasets.dataset import Dataset, DatasetError
from flowgraph.datasets.digits import Digits, load_digits

__all__ = ["Dataset", "DatasetError", "Digits", "load_digits"]
