"""Attacks on kept kernels, in a process of their own, so that a crash is a failure and not the end of the tests.

    python -m tests.support.store_attack KIND COUNT PRISTINE SCRATCH

PRISTINE is a folder that has the entries of `adder(1)` and `adder(2)`. Each attack changes the first in a fresh folder,
and the store must then give a kernel that works, having made it anew; the compiler is replaced by one that knows it.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from flowgraph.backends.cpu.store import KernelSource, KernelStore
from flowgraph.backends.kept import sealed, unsealed

PRELUDE = "flowgraph.backends.cpu.driver"
ADD = """
from flowgraph.backends.cpu.atomics import load, store

def add(args, lo, hi):
    out = load(args, 0)
    for i in range(lo, hi):
        store(out, 8 * i, load(out, 8 * i) + AMOUNT)
"""


def adder(amount: int, name: str = "add") -> KernelSource:
    """A kernel that adds a number to int64s."""
    return KernelSource(name, ADD.replace("AMOUNT", str(amount)), "add", PRELUDE)


def run(address: int, count: int = 5) -> list[int]:
    """What an adder makes of zeros."""
    out = np.zeros(count, np.int64)
    args = np.array([out.ctypes.data], np.int64)
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(address)(args.ctypes.data, 0, count)
    return out.tolist()


Attack = Callable[[Path, bytes, bytes, random.Random], None]


def flip(kept: Path, whole: bytes, other: bytes, dice: random.Random) -> None:
    place = dice.randrange(len(whole))
    kept.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :])


def cut(kept: Path, whole: bytes, other: bytes, dice: random.Random) -> None:
    kept.write_bytes(whole[: dice.randrange(len(whole))])


def grow(kept: Path, whole: bytes, other: bytes, dice: random.Random) -> None:
    place = dice.randrange(len(whole) + 1)
    kept.write_bytes(whole[:place] + dice.randbytes(dice.randrange(1, 100)) + whole[place:])


def blank(kept: Path, whole: bytes, other: bytes, dice: random.Random) -> None:
    """As after a loss of power: pages that never reached the disk."""
    place = dice.randrange(len(whole))
    length = min(512, len(whole) - place)
    kept.write_bytes(whole[:place] + b"\xff" * length + whole[place + length :])


def mixture(kept: Path, whole: bytes, other: bytes, dice: random.Random) -> None:
    """The beginning of one entry and the end of another."""
    place = dice.randrange(1, min(len(whole), len(other)))
    kept.write_bytes(whole[:place] + other[place:])


def another(kept: Path, whole: bytes, other: bytes, dice: random.Random) -> None:
    """Another kernel: as it was kept, or with a seal that fits this name."""
    code = other if dice.random() < 0.5 else resealed(kept, other_object(kept, other))
    kept.write_bytes(code)


def foreign(kept: Path, whole: bytes, other: bytes, dice: random.Random) -> None:
    """What is no object for this machine, under a seal that fits."""
    code = unsealed(kept.stem, whole)[0]
    made = dice.choice((
        Path(sys.executable).read_bytes()[:100_000],                              # an executable
        code[:16] + struct.pack("<H", 3) + code[18:],                             # a shared library
        code[:18] + struct.pack("<H", 0xF3) + code[20:],                          # RISC-V
        code[:4] + b"\x01" + code[5:],                                            # 32 bits
        code[:0x28] + struct.pack("<Q", dice.randrange(2**63)) + code[0x30:],     # sections beyond the end
        code[:0x3C] + struct.pack("<H", 0) + code[0x3E:],                         # no sections
        b"", b"\x7fELF", dice.randbytes(300), b"\x7fELF\x02\x01" + dice.randbytes(300),
    ))  # fmt: skip
    kept.write_bytes(resealed(kept, made))


def odd(kept: Path, whole: bytes, other: bytes, dice: random.Random) -> None:
    """What is no plain file of ours."""
    kind = dice.randrange(8)
    kept.unlink()
    if kind == 0:
        (kept.parent / "elsewhere").write_bytes(whole)
        kept.symlink_to(kept.parent / "elsewhere")
    elif kind == 1:
        kept.symlink_to("/dev/zero")
    elif kind == 2:
        kept.symlink_to(kept)
    elif kind == 3:
        kept.mkdir()
        (kept / "file").write_bytes(whole)
    elif kind == 4:
        os.mkfifo(kept)
    elif kind == 5:
        with kept.open("wb") as file:
            file.truncate(1 << 40)                                                # a terabyte of holes
    elif kind == 6:
        kept.write_bytes(whole)
        kept.chmod(0o666)
    else:
        kept.write_bytes(b"")


def other_object(kept: Path, other: bytes) -> bytes:
    """The object file in the entry beside this one."""
    (stem,) = {path.stem for path in kept.parent.glob("*.o")} - {kept.stem}
    return unsealed(stem, other)[0]


def resealed(kept: Path, code: bytes) -> bytes:
    return sealed(kept.stem, code, {"name": "add", "entry": "add", "made_by": []})


ATTACKS: dict[str, Attack] = {a.__name__: a for a in (flip, cut, grow, blank, mixture, another, foreign, odd)}


def main(kind: str, count: int, pristine: Path, scratch: Path) -> None:
    name = KernelStore(pristine).source_path(adder(1))
    assert name is not None
    whole = (pristine / f"{name.stem}.o").read_bytes()
    (other,) = (path.read_bytes() for path in pristine.glob("*.o") if path.stem != name.stem)
    compiler = SimpleNamespace(compile_kernel=lambda *_: unsealed(name.stem, whole)[0])
    sys.modules["flowgraph.backends.cpu.toolchain"] = compiler  # type: ignore[assignment]
    for number in range(count):
        folder = scratch / f"{kind}{number}"
        shutil.copytree(pristine, folder)
        kept = folder / f"{name.stem}.o"
        ATTACKS[kind](kept, whole, other, random.Random(f"{kind} {number}"))
        store = KernelStore(folder)
        assert run(store.load([adder(1)])[0]) == [1] * 5, number
        done = store.info()
        assert (done.rebuilt, done.compiled, done.hits) == (1, 1, 0), (number, done)
        again = KernelStore(folder)
        assert run(again.load([adder(1)])[0]) == [1] * 5 and again.info().hits == 1, number
        shutil.rmtree(folder)
    print("survived", count)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
