"""numba-cuda, narrowed to what a kernel needs: int32 stays int32, and compiling takes a third of the time.

Comes in: a Python function of scalars written in prelude names. Goes out: its NVVM IR in a numba-cuda
library, and the kernel's symbol. Against numba-cuda's own target: 32-bit integer arithmetic is not widened to
64 bits (where one division costs some 70 instructions), integer // and % are branch-free, operators are
resolved once per process, and there are no rewriting passes, for generated source has nothing to rewrite. May
not know what kernels compute.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
from typing import Any

from llvmlite import ir
from numba.cuda import compiler, utils
from numba.cuda.core import typed_passes, untyped_passes
from numba.cuda.core.callconv import CUDACallConv
from numba.cuda.core.compiler_machinery import PassManager
from numba.cuda.core.imputils import Registry
from numba.cuda.flags import CUDAFlags
from numba.cuda.target import CUDATargetContext, CUDATypingContext
from numba.cuda.typing.templates import Signature, signature

from flowgraph.codegen.cuda.scalar import integer_floor_division
from flowgraph.codegen.cuda.word import types

_ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.ifloordiv, operator.imod)
_NARROW = frozenset((*_ARITHMETIC, *_IN_PLACE, operator.neg))  # int32 in, int32 out


def _is_narrow(dtype: Any) -> bool:
    """int32, or a literal that fits: it takes the type of its partner."""
    return dtype == types.int32 or (
        isinstance(dtype, types.IntegerLiteral) and -(2**31) <= dtype.literal_value < 2**31
    )


class KernelOperator(types.Function):
    """An operator that keeps 32 bits, and remembers the signature found for each combination of types."""

    def __init__(self, templates: Sequence[type]) -> None:
        self._found: dict[tuple[Any, ...], Signature] = {}
        super().__init__(templates)

    def augment(self, other: Any) -> KernelOperator | None:
        return (
            KernelOperator(self.templates + other.templates) if other.typing_key == self.typing_key else None
        )

    def get_call_type(
        self, context: CUDATypingContext, args: Sequence[Any], kws: dict[str, Any]
    ) -> Signature:
        if self.typing_key in _NARROW and types.int32 in args and all(map(_is_narrow, args)):
            return signature(types.int32, *(types.int32,) * len(args))
        key = tuple(types.unliteral(t) for t in args)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = super().get_call_type(context, args, kws)
        return found

    def get_impl_key(self, sig: Signature) -> Any:
        return self._impl_keys.get(sig.args, self.typing_key)


_OPERATORS = frozenset(f for name, f in vars(operator).items() if not name.startswith("_"))


class KernelTyping(CUDATypingContext):
    """numba-cuda's types, with our rules for operators."""

    def _insert_global(self, value: object, function: Any) -> None:
        if type(function) is types.Function and value in _OPERATORS:
            function = KernelOperator(function.templates)
        super()._insert_global(value, function)


_integers = Registry("flowgraph integers")


def _integer(instruction: Callable[[ir.IRBuilder, Any, Any], Any]) -> Callable[..., Any]:
    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        a, b = (context.cast(builder, v, t, sig.return_type) for v, t in zip(args, sig.args, strict=True))
        return instruction(builder, a, b)

    return lower


for _functions, _instruction in (
    ((operator.add, operator.iadd), lambda b, x, y: b.add(x, y)),  # unlike numba's, free to wrap (no nsw)
    ((operator.sub, operator.isub), lambda b, x, y: b.sub(x, y)),
    ((operator.mul, operator.imul), lambda b, x, y: b.mul(x, y)),
    ((operator.floordiv, operator.ifloordiv), lambda b, x, y: integer_floor_division(b, x, y)[0]),
    ((operator.mod, operator.imod), lambda b, x, y: integer_floor_division(b, x, y)[1]),
):
    for _function in _functions:
        for _dtype in (types.int32, types.int64):
            _integers.lower(_function, _dtype, _dtype)(_integer(_instruction))


class KernelTarget(CUDATargetContext):
    def load_additional_registries(self) -> None:
        super().load_additional_registries()
        self.install_registry(_integers)


class KernelPipeline(compiler.CUDACompiler):
    """Bytecode, types, LLVM IR. A variable has one type throughout, as generated source has it."""

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("kernel")
        passes.add_pass(compiler.CUDATranslateBytecode, "read the bytecode")
        passes.add_pass(untyped_passes.FixupArgs, "check the number of arguments")
        passes.add_pass(untyped_passes.IRProcessing, "find the blocks")
        passes.add_pass(typed_passes.NopythonTypeInference, "infer types")
        passes.add_pass(compiler.CreateLibrary, "create the library")
        passes.add_pass(compiler.CUDANativeLowering, "lower to LLVM IR")
        passes.add_pass(compiler.CUDABackend, "collect the result")
        passes.finalize()
        return [passes]


@cache
def _target() -> KernelTarget:
    typing = KernelTyping()
    target = KernelTarget(typing)
    target.refresh()
    return target


def lower(
    function: FunctionType, argument_types: Sequence[Any], capability: tuple[int, int], lines: bool = False
) -> tuple[Any, str]:
    """(numba-cuda library, kernel symbol); the library yields IR text, LTO-IR or PTX.

    With `lines`, instructions carry the line of the source they came from.
    """
    target = _target()
    flags = CUDAFlags()
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    flags.debuginfo = flags.dbg_directives_only = lines
    flags.nvvm_options = {"fastmath": False, "opt": 3, "fma": False}
    flags.compute_capability = capability
    flags.lto = True
    with utils.numba_target_override():
        result = compiler.compile_extra(
            target.typing_context, target, function, tuple(argument_types), types.void, flags, {},
            pipeline_class=KernelPipeline, call_conv=CUDACallConv(target), abi_info={},
        )  # fmt: skip
    result.library.finalize()
    symbol = result.fndesc.llvm_func_name
    compiler.kernel_fixup(result.library.get_function(symbol), False)
    return result.library, symbol
