"""numba, narrowed to what a generated kernel needs: a compiler for a small language compiles it faster.

Comes in: a Python function of int64s written in prelude names. Goes out: its LLVM IR, in a numba library. Against
numba's own CPU target: no NumPy or container templates to try for every operator, each overload resolved once per
process, no rewriting passes (generated source has nothing to rewrite), no separate optimisation of every function
(the caller optimises the whole module once). May not know what kernels compute or where their code is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import FunctionType
from typing import Any

import llvmlite.binding as llvm
from numba.core import compiler, types, typed_passes, untyped_passes
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.cpu import CPUContext, FastMathOptions
from numba.core.typing.context import BaseContext as TypingContext
from numba.core.typing.templates import Signature

from flowgraph.codegen.cpu.value import FLAGS


class ResolvedOnce(types.Function):  # type: ignore[misc]
    """A function type that remembers the signature found for each combination of argument types.

    numba asks at least three times for every binary operator, and tries every template each time.
    """

    def __init__(self, templates: Sequence[type]) -> None:
        self._found: dict[tuple[types.Type, ...], Signature] = {}
        super().__init__(templates)

    def augment(self, other: types.Function) -> ResolvedOnce | None:
        return ResolvedOnce(self.templates + other.templates) if other.typing_key == self.typing_key else None

    def get_call_type(self, context: TypingContext, args: Sequence[types.Type], kws: dict[str, types.Type]) -> Signature:
        if kws:
            return super().get_call_type(context, args, kws)
        key = tuple(types.unliteral(t) for t in args)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = super().get_call_type(context, args, kws)
        return found


class KernelTyping(TypingContext):  # type: ignore[misc]
    """The types of Python's operators and builtins on numbers, of tuples, and of the prelude."""

    def _insert_global(self, value: object, function: types.Type) -> None:
        if type(function) is types.Function:
            function = ResolvedOnce(function.templates)
        super()._insert_global(value, function)


class KernelLibrary(JITCodeLibrary):  # type: ignore[misc]
    def _optimize_functions(self, module: llvm.ModuleRef) -> None:
        module.data_layout = self._codegen._data_layout


class KernelCodegen(JITCPUCodegen):  # type: ignore[misc]
    _library_class = KernelLibrary


class KernelTarget(CPUContext):  # type: ignore[misc]
    """How numbers, ranges, tuples and the prelude are lowered; the rest of numba's library is not loaded."""

    def load_additional_registries(self) -> None:
        from numba.cpython import builtins, numbers, rangeobj, tupleobj  # noqa: F401  (they register themselves)

    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = KernelCodegen("flowgraph.kernels")


class KernelPipeline(compiler.CompilerBase):  # type: ignore[misc]
    """Bytecode, types, LLVM IR. A variable has one type throughout: generated source gives every value its own name."""

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("kernel")
        passes.add_pass(untyped_passes.TranslateByteCode, "read the bytecode")
        passes.add_pass(untyped_passes.FixupArgs, "check the number of arguments")
        passes.add_pass(untyped_passes.IRProcessing, "find the blocks")
        passes.add_pass(typed_passes.NopythonTypeInference, "infer types")
        passes.add_pass(typed_passes.NativeLowering, "lower to LLVM IR")
        passes.add_pass(typed_passes.NoPythonBackend, "collect the result")
        passes.finalize()
        return [passes]


@cache
def kernel_target() -> KernelTarget:
    typing = KernelTyping()
    target = KernelTarget(typing, "cpu")
    target.refresh()
    return target


@cache
def _flags() -> compiler.Flags:
    flags = compiler.Flags()
    flags.error_model = "numpy"  # a division by zero gives inf, NaN or 0; the check for it would cost a branch each
    flags.fastmath = FastMathOptions(set(FLAGS))
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
    return flags


def lower(function: FunctionType, argument_types: Sequence[types.Type], library: JITCodeLibrary) -> Any:
    """numba's CompileResult for `function`, returning nothing; its IR, not optimised, is added to `library`,
    which comes from `kernel_target().codegen().create_library(name)`."""
    target = kernel_target()
    with global_compiler_lock:
        return compiler.compile_extra(
            target.typing_context, target, function, tuple(argument_types), types.none, _flags(), {},
            library=library, pipeline_class=KernelPipeline,
        )  # fmt: skip
