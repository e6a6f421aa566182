"""LLVM IR that runs the threads of a launch: block after block, warp after warp, from barrier to barrier.

In: nothing. Out: `SCHEDULER`, compiled once a process. May not know: Python objects, numba, what a kernel
computes.

A thread that meets a barrier or a shuffle is a *coroutine* (LLVM's returned-continuation kind): it yields a
code and a continuation, its live values stay in a frame, and resuming it costs nanoseconds. Codes: 0 the
thread has returned; 2s + 1 it waits at barrier number s; 2s + 2 it takes part in warp operation number s.
"""

from __future__ import annotations

from flowgraph.backends.cuda.emulator_ir import FRAME, RED_ZONE

# The words of a launch, as `Launch` in emulator.py declares them: start, args, frames, states, shared,
# threads, blocks, cooperates, reverse, shared arrays. A state is {continuation, code}; a shared array
# {address of its area, bytes of it}.
SCHEDULER = (
    """
%launch = type { ptr, ptr, ptr, ptr, ptr, i32, i32, i32, i32, i32, i32 }
%state = type { ptr, i32 }
@fg.registers = external global [15 x i32]
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define internal i32 @order(ptr %l, i32 %k, i32 %n) alwaysinline {
  %rp = getelementptr %launch, ptr %l, i32 0, i32 8
  %reverse = load i32, ptr %rp
  %backward = icmp ne i32 %reverse, 0
  %last = sub i32 %n, 1
  %mirrored = sub i32 %last, %k
  %i = select i1 %backward, i32 %mirrored, i32 %k
  ret i32 %i
}

; registers[at .. at+2] become the three coordinates of linear index i in the box registers[at+3 .. at+5]
define internal void @unfold(i32 %i, i64 %at) alwaysinline {
  %x = getelementptr i32, ptr @fg.registers, i64 %at
  %y = getelementptr i32, ptr %x, i64 1
  %z = getelementptr i32, ptr %x, i64 2
  %nxp = getelementptr i32, ptr %x, i64 3
  %nyp = getelementptr i32, ptr %x, i64 4
  %nx = load i32, ptr %nxp
  %ny = load i32, ptr %nyp
  %xv = urem i32 %i, %nx
  %rest = udiv i32 %i, %nx
  %yv = urem i32 %rest, %ny
  %zv = udiv i32 %rest, %ny
  store i32 %xv, ptr %x
  store i32 %yv, ptr %y
  store i32 %zv, ptr %z
  ret void
}

define internal void @place(i32 %t) alwaysinline {
  call void @unfold(i32 %t, i64 0)
  %lane = and i32 %t, 31
  store i32 %lane, ptr getelementptr (i32, ptr @fg.registers, i64 12)
  ret void
}

define internal ptr @state_of(ptr %l, i32 %t) alwaysinline {
  %sp = getelementptr %launch, ptr %l, i32 0, i32 3
  %states = load ptr, ptr %sp
  %s = getelementptr %state, ptr %states, i32 %t
  ret ptr %s
}

; run thread t from its beginning (or from its continuation) to where it stops next
define internal void @run(ptr %l, i32 %t, i1 %first) {
  call void @place(i32 %t)
  %fp = getelementptr %launch, ptr %l, i32 0, i32 2
  %frames = load ptr, ptr %fp
  %offset = mul i32 %t, {FRAME}
  %frame = getelementptr i8, ptr %frames, i32 %offset
  %s = call ptr @state_of(ptr %l, i32 %t)
  br i1 %first, label %begin, label %continue
begin:
  %startp = getelementptr %launch, ptr %l, i32 0, i32 0
  %start = load ptr, ptr %startp
  %argsp = getelementptr %launch, ptr %l, i32 0, i32 1
  %args = load ptr, ptr %argsp
  %r0 = call {ptr, i32} %start(ptr %frame, ptr %args)
  br label %stopped
continue:
  %resume = load ptr, ptr %s
  %r1 = call {ptr, i32} %resume(ptr %frame, i1 0)
  br label %stopped
stopped:
  %r = phi {ptr, i32} [%r0, %begin], [%r1, %continue]
  %next = extractvalue {ptr, i32} %r, 0
  %code = extractvalue {ptr, i32} %r, 1
  %returned = icmp eq ptr %next, null
  %stop = select i1 %returned, i32 0, i32 %code
  store ptr %next, ptr %s
  %cp = getelementptr %state, ptr %s, i32 0, i32 1
  store i32 %stop, ptr %cp
  ret void
}

; run threads a .. b-1, each once
define internal void @run_range(ptr %l, i32 %a, i32 %b, i1 %first) {
entry:
  %n = sub i32 %b, %a
  br label %loop
loop:
  %k = phi i32 [0, %entry], [%k1, %loop]
  %o = call i32 @order(ptr %l, i32 %k, i32 %n)
  %t = add i32 %a, %o
  call void @run(ptr %l, i32 %t, i1 %first)
  %k1 = add i32 %k, 1
  %more = icmp ult i32 %k1, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}

; the code at which all of threads a .. b-1 have stopped, or -1 if they differ
define internal i32 @common_code(ptr %l, i32 %a, i32 %b) {
entry:
  %s0 = call ptr @state_of(ptr %l, i32 %a)
  %p0 = getelementptr %state, ptr %s0, i32 0, i32 1
  %code = load i32, ptr %p0
  br label %loop
loop:
  %t = phi i32 [%a, %entry], [%t1, %same]
  %s = call ptr @state_of(ptr %l, i32 %t)
  %p = getelementptr %state, ptr %s, i32 0, i32 1
  %c = load i32, ptr %p
  %equal = icmp eq i32 %c, %code
  br i1 %equal, label %same, label %differ
same:
  %t1 = add i32 %t, 1
  %more = icmp ult i32 %t1, %b
  br i1 %more, label %loop, label %done
done:
  ret i32 %code
differ:
  ret i32 -1
}

; run warp w until all its lanes wait at one barrier or have returned; 1: they diverge
define internal i32 @run_warp(ptr %l, i32 %w, i1 %start) {
entry:
  %tp = getelementptr %launch, ptr %l, i32 0, i32 5
  %threads = load i32, ptr %tp
  %a = mul i32 %w, 32
  %end = add i32 %a, 32
  %b = call i32 @llvm.umin.i32(i32 %end, i32 %threads)
  %posts = mul i32 %w, 64
  br label %loop
loop:
  %first = phi i1 [%start, %entry], [0, %again]
  %half = phi i32 [%posts, %entry], [%other, %again]
  store i32 %half, ptr getelementptr (i32, ptr @fg.registers, i64 14)
  call void @run_range(ptr %l, i32 %a, i32 %b, i1 %first)
  %code = call i32 @common_code(ptr %l, i32 %a, i32 %b)
  %diverged = icmp eq i32 %code, -1
  br i1 %diverged, label %bad, label %agreed
agreed:
  %odd = trunc i32 %code to i1
  %returned = icmp eq i32 %code, 0
  %rest = or i1 %odd, %returned
  br i1 %rest, label %good, label %shuffle
shuffle:
  %full = icmp eq i32 %b, %end
  br i1 %full, label %again, label %bad
again:
  %other = xor i32 %half, 32
  br label %loop
good:
  ret i32 0
bad:
  ret i32 1
}
declare i32 @llvm.umin.i32(i32, i32)

define internal i32 @run_together(ptr %l) {
entry:
  %tp = getelementptr %launch, ptr %l, i32 0, i32 5
  %threads = load i32, ptr %tp
  %padded = add i32 %threads, 31
  %warps = udiv i32 %padded, 32
  br label %phase
phase:
  %first = phi i1 [1, %entry], [0, %agreed]
  br label %loop
loop:
  %k = phi i32 [0, %phase], [%k1, %next]
  %w = call i32 @order(ptr %l, i32 %k, i32 %warps)
  %error = call i32 @run_warp(ptr %l, i32 %w, i1 %first)
  %failed = icmp ne i32 %error, 0
  br i1 %failed, label %bad, label %next
next:
  %k1 = add i32 %k, 1
  %more = icmp ult i32 %k1, %warps
  br i1 %more, label %loop, label %met
met:
  %code = call i32 @common_code(ptr %l, i32 0, i32 %threads)
  %diverged = icmp eq i32 %code, -1
  br i1 %diverged, label %bad, label %agreed
agreed:
  %finished = icmp eq i32 %code, 0
  br i1 %finished, label %good, label %phase
good:
  ret i32 0
bad:
  ret i32 1
}

define internal i32 @run_apart(ptr %l) {
entry:
  %startp = getelementptr %launch, ptr %l, i32 0, i32 0
  %start = load ptr, ptr %startp
  %argsp = getelementptr %launch, ptr %l, i32 0, i32 1
  %args = load ptr, ptr %argsp
  %tp = getelementptr %launch, ptr %l, i32 0, i32 5
  %threads = load i32, ptr %tp
  br label %loop
loop:
  %k = phi i32 [0, %entry], [%k1, %loop]
  %t = call i32 @order(ptr %l, i32 %k, i32 %threads)
  call void @place(i32 %t)
  call void %start(ptr %args)
  %k1 = add i32 %k, 1
  %more = icmp ult i32 %k1, %threads
  br i1 %more, label %loop, label %done
done:
  ret i32 0
}

; fill every shared array and its red zones with ones: a float is then NaN, an integer -1
define internal void @poison(ptr %l) {
entry:
  %np = getelementptr %launch, ptr %l, i32 0, i32 9
  %n = load i32, ptr %np
  %ap = getelementptr %launch, ptr %l, i32 0, i32 4
  %arrays = load ptr, ptr %ap
  br label %loop
loop:
  %k = phi i32 [0, %entry], [%k1, %body]
  %more = icmp ult i32 %k, %n
  br i1 %more, label %body, label %done
body:
  %entryp = getelementptr {ptr, i64}, ptr %arrays, i32 %k
  %area = load ptr, ptr %entryp
  %bp = getelementptr {ptr, i64}, ptr %entryp, i32 0, i32 1
  %bytes = load i64, ptr %bp
  call void @llvm.memset.p0.i64(ptr %area, i8 -1, i64 %bytes, i1 0)
  %k1 = add i32 %k, 1
  br label %loop
done:
  ret void
}

define internal i1 @intact(ptr %zone) {
entry:
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%k1, %next]
  %p = getelementptr i64, ptr %zone, i64 %k
  %v = load i64, ptr %p, align 1
  %ones = icmp eq i64 %v, -1
  br i1 %ones, label %next, label %broken
next:
  %k1 = add i64 %k, 1
  %more = icmp ult i64 %k1, {RED_WORDS}
  br i1 %more, label %loop, label %whole
whole:
  ret i1 1
broken:
  ret i1 0
}

; 0 if all red zones are as they were filled, else 2
define internal i32 @red_zones(ptr %l) {
entry:
  %np = getelementptr %launch, ptr %l, i32 0, i32 9
  %n = load i32, ptr %np
  %ap = getelementptr %launch, ptr %l, i32 0, i32 4
  %arrays = load ptr, ptr %ap
  br label %loop
loop:
  %k = phi i32 [0, %entry], [%k1, %next]
  %more = icmp ult i32 %k, %n
  br i1 %more, label %body, label %good
body:
  %entryp = getelementptr {ptr, i64}, ptr %arrays, i32 %k
  %area = load ptr, ptr %entryp
  %bp = getelementptr {ptr, i64}, ptr %entryp, i32 0, i32 1
  %bytes = load i64, ptr %bp
  %tail_at = sub i64 %bytes, {RED_ZONE}
  %tail = getelementptr i8, ptr %area, i64 %tail_at
  %before = call i1 @intact(ptr %area)
  %after = call i1 @intact(ptr %tail)
  %both = and i1 %before, %after
  br i1 %both, label %next, label %bad
next:
  %k1 = add i32 %k, 1
  br label %loop
good:
  ret i32 0
bad:
  ret i32 2
}

; every block in turn; 0 all went well, 1 threads diverge, 2 a write outside a shared array
define i32 @fg.run(ptr %l) {
entry:
  %bp = getelementptr %launch, ptr %l, i32 0, i32 6
  %blocks = load i32, ptr %bp
  %cp = getelementptr %launch, ptr %l, i32 0, i32 7
  %cooperates = load i32, ptr %cp
  %together = icmp ne i32 %cooperates, 0
  br label %loop
loop:
  %k = phi i32 [0, %entry], [%k1, %next]
  %b = call i32 @order(ptr %l, i32 %k, i32 %blocks)
  call void @unfold(i32 %b, i64 6)
  call void @poison(ptr %l)
  br i1 %together, label %coroutines, label %calls
coroutines:
  %e0 = call i32 @run_together(ptr %l)
  br label %ran
calls:
  %e1 = call i32 @run_apart(ptr %l)
  br label %ran
ran:
  %e = phi i32 [%e0, %coroutines], [%e1, %calls]
  %zones = call i32 @red_zones(ptr %l)
  %either = call i32 @llvm.umax.i32(i32 %e, i32 %zones)
  %bad = icmp ne i32 %either, 0
  br i1 %bad, label %fail, label %next
next:
  %k1 = add i32 %k, 1
  %more = icmp ult i32 %k1, %blocks
  br i1 %more, label %loop, label %done
done:
  ret i32 0
fail:
  ret i32 %either
}
declare i32 @llvm.umax.i32(i32, i32)
""".replace("{FRAME}", str(FRAME))
    .replace("{RED_ZONE}", str(RED_ZONE))
    .replace("{RED_WORDS}", str(RED_ZONE // 8))
)
