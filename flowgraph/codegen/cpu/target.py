"""numba, narrowed to what a generated kernel needs: a compiler for a small language compiles it faster.

Comes in: a Python function of int64s written in prelude names. Goes out: an LLVM module with its native
entry. Against numba's own CPU target: no NumPy or container templates to try for every operator, each
overload resolved once per process, no rewriting passes (generated source has nothing to rewrite), no separate
optimisation of every function (the caller optimises the whole module once). May not know what kernels compute
or where their code is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import FunctionType

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import compiler, typed_passes, types, untyped_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.cpu import CPUContext
from numba.core.typing import templates
from numba.core.typing.context import BaseContext as TypingContext
from numba.core.typing.templates import Signature

from flowgraph.codegen.cpu.ranges import RANGES


class ResolvedOnce(types.Function):
    """A function type that remembers the signature found for each combination of argument types.

    numba asks at least three times for every binary operator, and tries every template each time.
    """

    def __init__(self, candidates: Sequence[type]) -> None:
        self._found: dict[tuple[types.Type, ...], Signature] = {}
        super().__init__(candidates)

    def augment(self, other: types.Function) -> ResolvedOnce | None:
        return ResolvedOnce(self.templates + other.templates) if other.typing_key == self.typing_key else None

    def get_call_type(
        self, context: TypingContext, args: Sequence[types.Type], kws: dict[str, types.Type]
    ) -> Signature:
        if kws:
            return super().get_call_type(context, args, kws)
        key = tuple(types.unliteral(t) for t in args)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = super().get_call_type(context, args, kws)
        return found


class KernelTyping(TypingContext):
    """The types of Python's operators and builtins on numbers, of tuples, and of the prelude."""

    def _load_builtins(self) -> None:
        # Attributes are left out: kernels use none, and to look at them makes numba load its whole library.
        if not self._registries:
            self._functions_only = templates.Registry()
            self._functions_only.functions = templates.builtin_registry.functions
            self._functions_only.globals = templates.builtin_registry.globals
        self.install_registry(self._functions_only)

    def _insert_global(self, value: object, function: types.Type) -> None:
        if isinstance(function, types.Function):
            # What numba itself writes in Python is compiled for its own target and cannot be called here.
            # (issubclass would ask the templates' metaclass, at a millisecond each.)
            native = [t for t in function.templates if templates._OverloadFunctionTemplate not in t.__mro__]
            if not native:
                return
            function = ResolvedOnce(native)
        super()._insert_global(value, function)


class KernelLibrary(JITCodeLibrary):
    def _optimize_functions(self, module: llvm.ModuleRef) -> None:
        module.data_layout = self._codegen._data_layout


class KernelTarget(CPUContext):
    """How numbers, ranges, tuples and the prelude are lowered; the rest of numba's library is not loaded."""

    def load_additional_registries(self) -> None:
        # These modules register themselves.
        from numba.cpython import builtins, numbers, rangeobj, tupleobj  # noqa: F401

    def refresh(self) -> None:
        super().refresh()
        self.install_registry(RANGES)  # of two with one signature, numba takes the later

    # A range's next number comes in a pair, which numba would pass through memory.

    def pair_first(self, builder: ir.IRBuilder, pair: ir.Value, kind: types.Type) -> ir.Value:
        return builder.extract_value(pair, 0)

    def pair_second(self, builder: ir.IRBuilder, pair: ir.Value, kind: types.Type) -> ir.Value:
        return builder.extract_value(pair, 1)

    def post_lowering(self, module: ir.Module, library: JITCodeLibrary) -> None:
        """Loops whose number of rounds only the run knows are not unrolled: a vector a round is work enough, and the
        copies took a third of some kernels' compile time. (A jump to an earlier block may also lead out of a loop:
        there the metadata means nothing. numba would link its allocator here, which kernels have none of, and relax
        floats, which they forbid.)
        """
        rule = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.runtime.disable")])
        loop = module.add_metadata([rule])
        loop.operands = (loop, rule)  # what LLVM knows the metadata of a loop by
        for function in module.functions:
            earlier = set[ir.Block]()
            for block in function.blocks:
                earlier.add(block)
                jump = block.terminator
                if isinstance(jump, ir.Branch | ir.ConditionalBranch) and not earlier.isdisjoint(jump.operands):
                    jump.set_metadata("llvm.loop", loop)


class KernelPipeline(compiler.CompilerBase):
    """Bytecode, types, LLVM IR. A variable has one type throughout: generated source gives every value its
    own name."""

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
    flags.error_model = "numpy"  # a division by zero gives inf, NaN or 0 and needs no branch
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
    return flags


def lower(function: FunctionType, symbol: str) -> llvm.ModuleRef:
    """`function(args, lo, hi)` of three int64s as an LLVM module that defines native void `symbol`(i64, i64,
    i64).

    The module is not optimised yet. Where numba could raise an exception, the entry traps: if the trap is
    still there after optimisation, the kernel is not fit to be called natively.
    """
    target, signature = kernel_target(), (types.int64,) * 3
    with global_compiler_lock:
        library = KernelLibrary(target.codegen(), symbol)
        result = compiler.compile_extra(
            target.typing_context, target, function, signature, types.none, _flags(), {},
            library=library, pipeline_class=KernelPipeline,
        )  # fmt: skip
        module = library.create_ir_module(f"{symbol}.entry")
        entry = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 3), symbol)
        builder = ir.IRBuilder(entry.append_basic_block())
        callee = target.declare_function(module, result.fndesc)
        status, _ = target.call_conv.call_function(builder, callee, types.none, signature, entry.args)
        with builder.if_then(status.is_error, likely=False):
            builder.call(ir.Function(module, ir.FunctionType(ir.VoidType(), ()), "llvm.trap"), ())
        builder.ret_void()
        library.add_ir_module(module)

        linked = library._final_module
        for other in library._linking_libraries:
            linked.link_in(other._get_module_for_linking(), preserve=True)
    for value in (*linked.functions, *linked.global_variables):
        if not value.is_declaration and value.name != symbol:
            value.linkage = "internal"  # so that it is inlined, dropped, and never clashes
    return linked
