"""Source text to machine code: numba types and lowers it, LLVM optimises it, out comes one object file.

In: the text of one Python function void(int64 args, int64 lo, int64 hi), written to a real file, and the names it
may use. Out: the bytes of an object file with one public symbol. May not know where either is kept. This and the
prelude are the only rooms that touch numba's compiler; numba is imported here on the first compile, not before.
"""

from __future__ import annotations

import types as python_types
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from flowgraph.backends.cpu.machine_code import target_machine
from flowgraph.errors import FlowgraphError


class KernelCompileError(FlowgraphError):
    """A kernel that numba or LLVM refused, or that breaks a rule of the native interface."""


def compile_kernel(text: str, path: Path | str, entry: str, symbol: str, namespace: Mapping[str, object]) -> bytes:
    """Compile function `entry` of `text` to an object file defining void `symbol`(int64, int64, int64).

    `path` is what tracebacks and numba's errors name as the file.
    """
    scope = dict(namespace)
    exec(compile(text, str(path), "exec"), scope)
    function = scope.get(entry)
    if not isinstance(function, python_types.FunctionType):
        raise KernelCompileError(f"{path} defines no function {entry}")
    module = _lower(function, symbol)
    _optimise(module)
    if "call void @llvm.trap" in str(module):
        raise KernelCompileError(f"{path}: {entry} may raise an exception; native kernels have nobody to raise to")
    return bytes(target_machine().emit_object(module))


@lru_cache(maxsize=1)
def _numba() -> Any:
    """numba's compiler and the flags of every kernel: division like NumPy's, contraction and no other liberty with
    floats, no reference counting, no wrappers."""
    from numba.core import compiler, types
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.cpu import FastMathOptions
    from numba.core.registry import cpu_target

    flags = compiler.Flags()
    flags.error_model = "numpy"
    flags.fastmath = FastMathOptions({"contract"})
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.no_compile = True                                 # lower only: optimising and emitting are done here, once
    return python_types.SimpleNamespace(compiler=compiler, types=types, lock=global_compiler_lock, target=cpu_target,
                                        flags=flags)


def _lower(function: python_types.FunctionType, symbol: str) -> llvm.ModuleRef:
    """One LLVM module with the function, all it calls, and a native entry `symbol`."""
    from llvmlite import ir

    numba = _numba()
    context = numba.target.target_context
    signature = (numba.types.int64,) * 3
    with numba.lock:
        library = context.codegen().create_library(symbol)
        result = numba.compiler.compile_extra(numba.target.typing_context, context, function, signature,
                                              numba.types.none, numba.flags, {}, library=library)
        # numba's own convention returns a status; the native entry has none. A status that is not provably "fine"
        # leaves the trap in the optimised code, which compile_kernel then refuses.
        module = library.create_ir_module(symbol + ".entry")
        word = ir.IntType(64)
        entry = ir.Function(module, ir.FunctionType(ir.VoidType(), [word] * 3), symbol)
        builder = ir.IRBuilder(entry.append_basic_block())
        callee = context.declare_function(module, result.fndesc)
        status, _ = context.call_conv.call_function(builder, callee, numba.types.none, signature, entry.args)
        with builder.if_then(status.is_error, likely=False):
            builder.call(ir.Function(module, ir.FunctionType(ir.VoidType(), ()), "llvm.trap"), ())
        builder.ret_void()
        library.add_ir_module(module)

        linked = library._final_module
        for other in library._linking_libraries:
            if other.name != "nrt":                         # never linked: whoever needs it fails the symbol check
                linked.link_in(other._get_module_for_linking(), preserve=True)
    for value in (*linked.functions, *linked.global_variables):
        if not value.is_declaration and value.name != symbol:
            value.linkage = "internal"                      # so that it is inlined, dropped, and never clashes
    return linked


def _optimise(module: llvm.ModuleRef) -> None:
    """LLVM's standard pipeline without its vectorisers: generated code is explicit about vectors."""
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(target_machine(), options)
    builder.getModulePassManager().run(module, builder)
