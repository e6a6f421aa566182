"""Source text to machine code: numba types and lowers it, LLVM optimises it, out comes one object file.

In: the text of one Python function void(int64 args, int64 lo, int64 hi), written to a real file, and the
names it may use. Out: the bytes of an object file with one public symbol. May not know where either is kept.
This and the prelude are the only rooms that touch numba's compiler, and nobody imports them before something
must be compiled: a warm start does without numba.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import compiler, types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import PassManager
from numba.core.registry import cpu_target
from numba.core.typed_passes import (
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode

from flowgraph.backends.cpu.machine_code import target_machine
from flowgraph.errors import FlowgraphError

SIGNATURE = (types.int64,) * 3


class KernelCompileError(FlowgraphError):
    """A kernel that breaks a rule of the native interface."""


Lower = Callable[[FunctionType, str], llvm.ModuleRef]


def compile_kernel(text: str, path: Path | str, entry: str, symbol: str,
                   namespace: Mapping[str, object], lower: Lower | None = None) -> bytes:
    """Compile function `entry` of `text` to an object file defining void `symbol`(int64, int64, int64).

    `path` is what tracebacks and numba's own errors name as the file. `lower` makes the LLVM module; by default
    numba's own CPU target does, which knows all of Python that numba knows (the native driver needs that).
    """
    scope = dict(namespace)
    exec(compile(text, str(path), "exec"), scope)
    function = scope.get(entry)
    if not isinstance(function, FunctionType):
        raise KernelCompileError(f"{path} defines no function {entry}")
    with global_compiler_lock, _collector_at_rest():
        module = (lower or lower_by_numba)(function, symbol)
        _optimise(module)
    if "call void @llvm.trap" in str(module):
        raise KernelCompileError(f"{path}: {entry} may raise an exception, and nobody could catch it")
    return bytes(target_machine().emit_object(module))


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """numba makes some 100,000 objects a kernel, nearly all of which die with their last reference: to look for
    circles among them, and through all that the user holds, took up to a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class KernelPasses(compiler.CompilerBase):
    """numba's passes that a kernel needs; its rewrites for closures, arrays and literals find nothing
    here."""

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("flowgraph kernel")
        for each in (TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA, NopythonTypeInference,
                     PreLowerStripPhis, IRLegalization, NativeLowering, NoPythonBackend):
            passes.add_pass(each, each.__name__)
        passes.finalize()
        return [passes]


class _Library(JITCodeLibrary):
    """The lowered functions of one kernel, optimised once, all together, when they are complete."""

    def _optimize_functions(self, module: llvm.ModuleRef) -> None:
        module.data_layout = self._codegen._data_layout

    def linked(self) -> llvm.ModuleRef:
        for other in self._linking_libraries:
            if other.name != "nrt":             # whoever needs the allocator shall fail the symbol check
                self._final_module.link_in(other._get_module_for_linking(), preserve=True)
        return self._final_module


def _flags() -> compiler.Flags:
    """Division like NumPy's, no liberty with floats, no reference counts, no wrappers."""
    flags = compiler.Flags()
    flags.error_model = "numpy"
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.no_compile = True                     # lower only: optimising and emitting is done here
    return flags


def lower_by_numba(function: FunctionType, symbol: str) -> llvm.ModuleRef:
    """One LLVM module with the function, all that it calls, and its native entry."""
    context = cpu_target.target_context
    library = _Library(context.codegen(), symbol)
    result = compiler.compile_extra(cpu_target.typing_context, context, function, SIGNATURE, types.none,
                                    _flags(), {}, library=library, pipeline_class=KernelPasses)
    # numba's own convention returns a status; the native entry has none. Unless the optimiser can prove
    # that the status is always "fine", the trap stays in the code, and compile_kernel refuses it.
    module = library.create_ir_module(symbol)
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 3), symbol)
    builder = ir.IRBuilder(entry.append_basic_block())
    callee = context.declare_function(module, result.fndesc)
    status, _ = context.call_conv.call_function(builder, callee, types.none, SIGNATURE, entry.args)
    with builder.if_then(status.is_error, likely=False):
        builder.call(ir.Function(module, ir.FunctionType(ir.VoidType(), ()), "llvm.trap"), ())
    builder.ret_void()
    library.add_ir_module(module)

    linked = library.linked()
    for value in (*linked.functions, *linked.global_variables):
        if not value.is_declaration and value.name != symbol:
            value.linkage = "internal"          # to be inlined, dropped if unused, and never to clash
    return linked


def _optimise(module: llvm.ModuleRef) -> None:
    """LLVM's standard pipeline without its vectorisers: generated code is explicit about vectors."""
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(target_machine(), options)
    builder.getModulePassManager().run(module, builder)
