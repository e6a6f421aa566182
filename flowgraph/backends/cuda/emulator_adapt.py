"""numba-cuda's LLVM IR of a kernel -> LLVM IR for the processor at hand, line by line.

In: the text of one kernel's module, as it goes to NVVM, and the kernel's symbol. Out: `Adapted`: text that
defines `fg.thread`, and the lines an error may name. The kernel takes its arguments from a table of 8-byte
words, accesses to global and shared memory pass a guard, barriers and shuffles become suspensions of a
coroutine, shared arrays get red zones (see emulator_ir). May not know: launches, buffers, Python objects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flowgraph.backends.cuda import emulator_ir
from flowgraph.errors import DeviceError


@dataclass(frozen=True)
class Access:
    """A load or store: its line in the original IR, bytes at once, address space (1 global, 3 shared)."""

    line: int
    nbytes: int
    space: int


@dataclass(frozen=True)
class Adapted:
    """A kernel's IR for this machine."""

    text: str
    cooperates: bool  # its threads meet at barriers or shuffles
    accesses: tuple[Access, ...]
    meetings: tuple[int, ...]  # line of the original IR, by number of the barrier or shuffle
    shared: tuple[tuple[str, int], ...]  # symbol of each shared array's area, its bytes with red zones


def adapt(text: str, symbol: str, coro_end: str = "void") -> Adapted:
    """Adapt one module; `coro_end` is the result type of llvm.coro.end in the LLVM that will read it."""
    return _Adapter(symbol, coro_end).module(text)


_DROPPED = (
    r'target |@"llvm\.used"|!nvvm|declare .*@"(?:fg\.|__nv_)'  # NVVM's own, or defined by the support text
)
_BARRIER = r'\s*call void @"fg\.barrier(?:0|\.cta\.sync\.aligned\.all)"'
_WARP_SYNC = r'\s*call void @"fg\.bar\.warp\.sync"'
_SHUFFLE = (
    r'\s*(?P<result>%\S+) = call \{ ?i32, i1 ?\} @"fg\.shfl\.sync\.i32"'
    r"\(i32 [^,]+, i32 (?P<mode>[^,]+), i32 (?P<value>[^,]+), i32 (?P<operand>[^,]+), i32 [^)]+\)"
)
_ACCESS = (
    r".*?\b(?:load|store) .*?(?P<type><\d+ x \w+>|\w+) ?addrspace\((?P<space>[13])\)\* "
    r'(?P<pointer>%"[^"]+"|%[\w.$]+)'
)
_SHARED = r'@"(?P<name>[^"]+)" = addrspace\(3\) global (?P<type>.+?) undef'


def _bytes(llvm_type: str) -> int:
    """Size of a scalar, `<n x T>` vector or `[n x T]` array in LLVM's notation."""
    many = re.fullmatch(r"[<\[](\d+) x (.+)[>\]]", llvm_type)
    if many:
        return int(many[1]) * _bytes(many[2])
    return ({"float": 32, "double": 64}.get(llvm_type) or int(llvm_type[1:])) // 8


class _Adapter:
    """One pass over a module's lines: the first rule whose pattern matches a line says what replaces it."""

    def __init__(self, symbol: str, coro_end: str) -> None:
        self.coro_end = coro_end
        self.cooperates = False
        self.parameters = ""
        self.accesses: list[Access] = []
        self.meetings: list[int] = []
        self.shared: list[tuple[str, int]] = []
        rules = {
            _DROPPED + "|!.*" + re.escape(symbol): self.drop,
            rf'define void @"?{re.escape(symbol)}"?\((?P<parameters>[^)]*)\)': self.head,
            "entry:": self.entry,
            _SHARED: self.shared_array,
            _BARRIER: self.barrier,
            _WARP_SYNC: self.warp_operation,
            _SHUFFLE: self.shuffle,
            r".*\b(?:atomicrmw|cmpxchg)\b": self.refuse,
            _ACCESS: self.access,
            r"\s*ret void": self.leave,
            r"\}$": self.end,
        }
        self.rules = [(re.compile(pattern), rule) for pattern, rule in rules.items()]
        self.number = 0

    def module(self, text: str) -> Adapted:
        text = text.replace('"llvm.nvvm.', '"fg.')
        self.cooperates = any(re.search(p, text, re.M) for p in (_BARRIER, _WARP_SYNC, _SHUFFLE))
        adapted = "\n".join(
            new for self.number, line in enumerate(text.splitlines()) for new in self.line(line)
        )
        names = set(re.findall(r'@"((?:fg\.(?!shared\.)|__nv_)[^"]+)"', adapted))
        unknown = names - set(emulator_ir.DEFINITIONS)
        if unknown:
            raise DeviceError(f"the emulator does not know {', '.join(sorted(unknown))}")
        support = emulator_ir.support(names, self.shared, self.coro_end)
        sites = tuple(self.accesses), tuple(self.meetings)
        return Adapted(support + adapted, self.cooperates, *sites, tuple(self.shared))

    def line(self, line: str) -> list[str]:
        for pattern, rule in self.rules:
            match = pattern.match(line)
            if match:
                return rule(match)
        return [line]

    def drop(self, match: re.Match[str]) -> list[str]:
        return []

    def refuse(self, match: re.Match[str]) -> list[str]:
        raise DeviceError(f"the emulator does not guard atomics: {match.string.strip()}")

    def head(self, match: re.Match[str]) -> list[str]:
        self.parameters = match["parameters"]
        if self.cooperates:
            return ["define {ptr, i32} @fg.thread(ptr %fg.frame, ptr %fg.args) presplitcoroutine"]
        return ["define void @fg.thread(ptr %fg.args)"]

    def entry(self, match: re.Match[str]) -> list[str]:
        """Begin the coroutine, then load every parameter from the argument table."""
        lines = [match.string]
        if self.cooperates:
            lines += [
                f"  %fg.id = call token @llvm.coro.id.retcon(i32 {emulator_ir.FRAME}, i32 16, ptr %fg.frame, "
                "ptr @fg.prototype, ptr @fg.allocate, ptr @free)",
                "  %fg.handle = call ptr @llvm.coro.begin(token %fg.id, ptr null)",
            ]
        for k, parameter in enumerate(filter(None, self.parameters.split(", "))):
            llvm_type, name = parameter.split()
            lines.append(f"  %fg.word.{k} = getelementptr i64, ptr %fg.args, i64 {k}")
            lines.append(f"  {name} = load {llvm_type}, ptr %fg.word.{k}")
        return lines

    def shared_array(self, match: re.Match[str]) -> list[str]:
        size, zone = _bytes(match["type"]), emulator_ir.RED_ZONE
        area = f"fg.shared.{len(self.shared)}"
        self.shared.append((area, size + 2 * zone))
        layout = f"[{zone} x i8], {match['type']}, [{zone} x i8]"
        inside = f'getelementptr (i8, ptr @"{area}", i64 {zone})'
        return [
            f'@"{area}" = global <{{ {layout} }}> undef, align 64',
            f'@"{match["name"]}" = internal alias {match["type"]}, '
            f"ptr addrspace(3) addrspacecast (ptr {inside} to ptr addrspace(3))",
        ]

    def access(self, match: re.Match[str]) -> list[str]:
        site, line = len(self.accesses), match.string
        access = Access(self.number, _bytes(match["type"]), int(match["space"]))
        self.accesses.append(access)
        pointer = f"ptr addrspace({access.space})"
        guard = f"@fg.guard{access.space}.{access.nbytes}({pointer} {match['pointer']}, i32 {site})"
        return [
            f"  %fg.guarded.{site} = call {pointer} {guard}",
            f"{line[: match.start('pointer')]}%fg.guarded.{site}{line[match.end('pointer') :]}",
        ]

    def suspend(self, kind: int) -> str:
        """Stop here with code 2s + kind, s the number of this meeting."""
        self.meetings.append(self.number)
        return f"  call i1 (...) @llvm.coro.suspend.retcon.i1(i32 {2 * (len(self.meetings) - 1) + kind})"

    def barrier(self, match: re.Match[str]) -> list[str]:
        return [self.suspend(1)]

    def warp_operation(self, match: re.Match[str]) -> list[str]:
        return [self.suspend(2)]

    def shuffle(self, match: re.Match[str]) -> list[str]:
        fetch = f"@fg.fetch(i32 {match['mode']}, i32 {match['operand']})"
        return [
            f"  call void @fg.post(i32 {match['value']})",
            self.suspend(2),
            f"  {match['result']} = call {{i32, i1}} {fetch}",
        ]

    def leave(self, match: re.Match[str]) -> list[str]:
        return ["  br label %fg.end"] if self.cooperates else [match.string]

    def end(self, match: re.Match[str]) -> list[str]:
        """The module's only function ends: a coroutine has one way out."""
        if not self.cooperates:
            return [match.string]
        end = f"  call {self.coro_end} @llvm.coro.end(ptr %fg.handle, i1 0, token none)"
        return ["fg.end:", end, "  unreachable", match.string]
