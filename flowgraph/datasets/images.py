"""MNIST and Fashion-MNIST: 60,000 and 10,000 images of 28×28 pixels, in ten classes.

Comes in: four files in the IDX format, plain or compressed by gzip. Goes out: `Images`.
"""

from __future__ import annotations

import gzip
import os
import zlib

import numpy as np
import numpy.typing as npt

from flowgraph.datasets.cache import read
from flowgraph.datasets.catalogue import FASHION_MNIST, MNIST, Entry
from flowgraph.datasets.dataset import Dataset, DatasetError

CLOTHES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
SIDE, BRIGHTEST, CLASSES = 28, 255, 10
UNSIGNED_BYTES = 8  # the only element type of these files


class Images(Dataset):
    """`images` float32 (n, 784) from 0 to 1, an image row by row; `labels` int32 (n,) from 0 to 9."""

    @property
    def images(self) -> npt.NDArray[np.float32]:
        return self["images"]

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        return self["labels"]


def load_fashion_mnist(folder: str | os.PathLike[str] | None = None) -> tuple[Images, Images]:
    """(train, test): 60,000 and 10,000 images of clothes; `CLOTHES` names the classes.

    For validation, `train.split(seed=0, test=10_000)`. `folder` is where the four files are, if not in the cache.
    MissingDataError says how to get them.
    """
    return _load(FASHION_MNIST, folder, ".gz")


def load_mnist(folder: str | os.PathLike[str] | None = None) -> tuple[Images, Images]:
    """(train, test): 60,000 and 10,000 handwritten digits, as `load_fashion_mnist` has clothes."""
    return _load(MNIST, folder, "")


def _load(entry: Entry, folder: str | os.PathLike[str] | None, suffix: str) -> tuple[Images, Images]:
    def half(part: str) -> Images:
        images, labels = f"{part}-images-idx3-ubyte{suffix}", f"{part}-labels-idx1-ubyte{suffix}"
        return parse_images(read(entry, images, folder), read(entry, labels, folder), images, labels)

    return half("train"), half("t10k")


def parse_images(images: bytes, labels: bytes, images_name: str = "images", labels_name: str = "labels") -> Images:
    """`Images` from the contents of two IDX files; their names are for errors."""
    pixels, classes = parse_idx(images, images_name), parse_idx(labels, labels_name)
    if pixels.ndim != 3 or pixels.shape[1:] != (SIDE, SIDE):
        raise DatasetError(f"images of shape {pixels.shape}, not (n, {SIDE}, {SIDE})", where=images_name)
    if classes.shape != pixels.shape[:1]:
        raise DatasetError(f"labels of shape {classes.shape} for {len(pixels)} images", where=labels_name)
    if classes.size and classes.max() >= CLASSES:
        raise DatasetError(f"a label {classes.max()}, beyond {CLASSES - 1}", where=labels_name)
    scaled = np.divide(pixels.reshape(len(pixels), SIDE * SIDE), np.float32(BRIGHTEST), dtype=np.float32)
    return Images({"images": scaled, "labels": classes.astype(np.int32)})


def parse_idx(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes: two zeros, the element type, the rank, big-endian sizes, elements."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DatasetError(f"cannot decompress it: {error}", where=name) from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != UNSIGNED_BYTES:
        raise DatasetError(f"it begins with {data[:4]!r}, so it is no IDX file of unsigned bytes", where=name)
    rank = data[3]
    if len(data) < 4 + 4 * rank:
        raise DatasetError(f"it ends within its header, after {len(data)} bytes", where=name)
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", count=rank, offset=4))
    elements = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
    expected = int(np.prod(shape, dtype=np.int64))
    if elements.size != expected:
        raise DatasetError(f"it has {elements.size} elements, its header says {shape}: {expected}", where=name)
    return elements.reshape(shape)
