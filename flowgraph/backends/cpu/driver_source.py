"""The native driver: a team of threads walks a table of launches, many steps in one call.

Compiled, never imported. In: the address of a control block (`words.Control`). All it does to memory besides
that block is what the kernels do, and the profile. May not know what any kernel
computes.

Numba compiles `enter` as void(int64 control, int64 role, int64 threads). The caller starts the team, takes
part as thread 0, and returns when all is done. A worker stays inside and waits for runs until it is told to
stop, so that nothing Python does, not even an interrupt, can leave a run with too few threads.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from flowgraph.backends.cpu.atomics import (
    call,
    clock,
    fetch_add,
    futex_wait,
    futex_wake_all,
    load,
    load_acquire,
    part,
    pause,
    sched_yield,
    store,
    ticks,
)
from flowgraph.backends.cpu.words import CALLER, LOOP, STOP, WORKER, Control, Move, Moves, Profile, Row

WORD = 8                    # bytes, as all below
ROW, TIMES = WORD * len(Row), WORD * len(Profile)
TABLE, LAUNCHES, STEPS = WORD * Control.TABLE, WORD * Control.LAUNCHES, WORD * Control.STEPS
THREADS, DEADLINE, PROFILE = WORD * Control.THREADS, WORD * Control.DEADLINE, WORD * Control.PROFILE
STARTED, PARKED, JOINED = WORD * Control.STARTED, WORD * Control.PARKED, WORD * Control.JOINED
ARRIVED, RELEASED, ASLEEP = WORD * Control.ARRIVED, WORD * Control.RELEASED, WORD * Control.ASLEEP
DONE, PAST_DEADLINE = WORD * Control.DONE, WORD * Control.PAST_DEADLINE
TICKS, NANOSECONDS = WORD * Control.TICKS, WORD * Control.NANOSECONDS
KERNEL, ARGS, TASKS = WORD * Row.KERNEL, WORD * Row.ARGS, WORD * Row.TASKS
TEAM, BARRIER = WORD * Row.TEAM, WORD * Row.BARRIER
BEFORE, TOTAL = WORD * Row.BEFORE, WORD * Row.TOTAL
STRIDE, MARK, MOVES = WORD * Row.STRIDE, WORD * Row.MARK, WORD * Row.MOVES
TURNS, JUMP = WORD * Row.TURNS, WORD * Row.JUMP
MOVE_COUNT, TURN, FIRST_MOVE, MOVE = WORD * Moves.COUNT, WORD * Moves.TURN, WORD * len(Moves), WORD * len(Move)
MOVED, BEGIN, ODD, EVEN = WORD * Move.WORD, WORD * Move.BEGIN, WORD * Move.ODD, WORD * Move.EVEN
WAIT, WORK = WORD * Profile.WAIT, WORD * Profile.WORK

SPINS = 200                 # pauses before a waiting thread offers its core to others: a few microseconds
PATIENCE = 50_000           # nanoseconds that it does so before it sleeps
AWAKE = 200_000             # nanoseconds that a worker waits for the next run before it sleeps


@part
def wait_for_release(control, seen):
    """Spin briefly, offer the core for a while, then sleep: on a machine with more to do than cores, whoever only
    yields gets its next turn before the thread that it waits for, and a barrier costs time slices."""
    spins = asleep_after = 0
    while load_acquire(control, RELEASED) == seen:
        if spins < SPINS:
            spins += 1
            pause()
        elif asleep_after == 0:
            asleep_after = clock() + PATIENCE
        elif clock() < asleep_after:
            sched_yield()
        else:
            fetch_add(control, ASLEEP, 1)
            futex_wait(control, RELEASED, seen)
            fetch_add(control, ASLEEP, -1)


@part
def arrive(control, threads):
    """Whether this thread is the last at the barrier. The last one releases the others."""
    return fetch_add(control, ARRIVED, 1) == threads - 1


@part
def release(control):
    store(control, ARRIVED, 0)
    # This one counts up RELEASED, then looks at ASLEEP; who goes to sleep does it the other way round: one sees
    # the other.
    fetch_add(control, RELEASED, 1)
    if load_acquire(control, ASLEEP) != 0:
        futex_wake_all(control, RELEASED)


@part
def end_step(control, deadline):
    """What one thread does between two steps, while no other runs; whether the deadline is past."""
    store(control, DONE, load(control, DONE) + 1)
    return 1 if clock() >= deadline else 0


@part
def turn(row, thread, here):
    """Begin a loop or its next turn, or end it: move this thread's arguments; the row to go on with."""
    words = load(row, ARGS) + load(row, STRIDE) * thread
    moves, turns, jump = load(row, MOVES), load(row, TURNS), load(row, JUMP)
    count, counter = load(moves, MOVE_COUNT), load(moves, TURN)
    move = moves + FIRST_MOVE
    done = here + 1
    if load(row, MARK) == LOOP:
        if turns == 0:
            return jump
        store(words, counter, 0)
        for _ in range(count):
            store(words, load(move, MOVED), load(words, load(move, BEGIN)))
            move += MOVE
        return done
    now = load(words, counter) + 1
    if now == turns:
        return done
    store(words, counter, now)
    which = EVEN + (ODD - EVEN) * (now & 1)
    for _ in range(count):
        word = load(move, MOVED)
        store(words, word, load(words, word) + load(move, which))
        move += MOVE
    return jump


@part
def walk(control, thread):
    """Run the steps that the control block asks for, as one thread of the team."""
    table, launches, steps = load(control, TABLE), load(control, LAUNCHES), load(control, STEPS)
    threads, deadline = load(control, THREADS), load(control, DEADLINE)
    profile = load(control, PROFILE)
    if profile != 0:
        profile += TIMES * (launches + 1) * thread
    # No barrier of this run can be over yet: it would need this thread.
    released = load_acquire(control, RELEASED)
    step = now = 0
    while step < steps:
        if profile != 0:
            before, now = now, ticks()
            if step > 0:
                times = profile + TIMES * launches
                store(times, WAIT, load(times, WAIT) + now - before)
        k = 0
        while k < launches:
            row = table + ROW * k
            if load(row, TASKS) < 0:
                k = turn(row, thread, k)
                continue
            if threads > 1 and load(row, BARRIER) != 0:
                if arrive(control, threads):
                    release(control)
                else:
                    wait_for_release(control, released)
                released += 1
                if profile != 0:    # a launch without a barrier begins where the one before ended
                    times = profile + TIMES * k
                    before, now = now, ticks()
                    store(times, WAIT, load(times, WAIT) + now - before)
            tasks, team = load(row, TASKS), load(row, TEAM)
            if team > threads:
                team = threads
            if thread < team:
                lo, hi = 0, tasks
                if team > 1:        # an equal share of the launch, as far as it lies in this row
                    total, before = load(row, TOTAL), load(row, BEFORE)
                    lo = max(total * thread // team - before, 0)
                    hi = min(total * (thread + 1) // team - before, tasks)
                if lo < hi:
                    call(load(row, KERNEL), load(row, ARGS) + load(row, STRIDE) * thread, lo, hi)
            if profile != 0:
                times = profile + TIMES * k
                before, now = now, ticks()
                store(times, WORK, load(times, WORK) + now - before)
            k += 1
        step += 1
        if threads == 1:
            past = end_step(control, deadline)
        else:
            if arrive(control, threads):
                store(control, PAST_DEADLINE, end_step(control, deadline))
                release(control)
            else:
                wait_for_release(control, released)
            released += 1
            # From here on the caller may be gone, so nothing may be touched but the control block. This word is
            # written next at the end of another step of several threads, which needs this one too: all read the
            # same. (So a run of one thread, which does not wait for the others, must not write it.)
            past = load(control, PAST_DEADLINE)
        if past != 0:
            break


@part
def wait_for_start(control, started):
    """A worker's rest between two runs: awake for a while, since the next step is often near, then asleep."""
    asleep_after = clock() + AWAKE
    spins = 0
    while load_acquire(control, STARTED) == started:
        if spins < SPINS:
            spins += 1
            pause()
        elif clock() < asleep_after:
            sched_yield()
        else:
            # The caller counts up STARTED, then looks at PARKED; here it is the other way round: one sees
            # the other.
            fetch_add(control, PARKED, 1)
            futex_wait(control, STARTED, started)
            fetch_add(control, PARKED, -1)


def enter(control, role, threads):
    if role == CALLER:
        if load(control, THREADS) > 1:
            fetch_add(control, STARTED, 1)
            if load_acquire(control, PARKED) != 0:
                futex_wake_all(control, STARTED)
        profiled = load(control, PROFILE) != 0
        time = tick = 0
        if profiled:
            time, tick = clock(), ticks()
        walk(control, role)             # thread 0
        if profiled:
            store(control, TICKS, ticks() - tick)
            store(control, NANOSECONDS, clock() - time)
    else:
        thread = fetch_add(control, JOINED, 1) + 1
        started = role - WORKER         # none; as a variable, since numba compiles anew for a literal
        while thread < threads:
            wait_for_start(control, started)
            started += 1
            if load(control, STEPS) == STOP:
                break
            walk(control, thread)
