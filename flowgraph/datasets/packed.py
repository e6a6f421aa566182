"""Many files of a data set that lie in the cache as one: the inverse of how `fetch` packs them.

Comes in: the bytes of a tar. Goes out: bytes by name, in the order of names.
"""

from __future__ import annotations

import io
import tarfile

from flowgraph.datasets.dataset import DatasetError


def unpack(packed: bytes, name: str) -> dict[str, bytes]:
    """The files in an uncompressed tar; DatasetError if it is none, or cut short."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
            for member in tar:
                content = tar.extractfile(member)
                found[member.name] = b"" if content is None else content.read()
                if len(found[member.name]) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
    except tarfile.TarError as error:
        raise DatasetError(f"cannot unpack it: {error}", where=name) from error
    return dict(sorted(found.items()))
