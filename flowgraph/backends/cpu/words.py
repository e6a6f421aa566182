"""The words that Python and the native driver share: a table row, the control block. All are int64.

Plain numbers only, so that both a person and the driver's source can name a word instead of counting.
"""

from __future__ import annotations

from enum import IntEnum


class Row(IntEnum):
    """A call of a kernel; a launch is a row or several. Or the begin or the end of a loop: what is between is walked
    turn by turn. Widen by adding a name: every stride is len(Row)."""

    KERNEL = 0      # address of void(int64 args, int64 lo, int64 hi)
    ARGS = 1        # address of the kernel's own table of words
    TASKS = 2       # how many tasks the row has
    TEAM = 3        # how many threads share the launch's tasks (no more than there are)
    BARRIER = 4     # 1: wait until every earlier launch is finished everywhere
    BEFORE = 5      # tasks of the rows before it in its launch
    TOTAL = 6       # tasks of all rows of its launch
    STRIDE = 7      # bytes from a thread's ARGS to the next one's: in loops every thread has words of its own
    # Of a loop's two rows (ARGS: all words of a thread)
    MOVES = 0       # address of a list: see Moves
    MARK = 2        # LOOP or AGAIN, instead of a number of tasks
    TURNS = 5
    JUMP = 6        # the row to go on with: of LOOP, if there are no turns; of AGAIN, for the next turn


LOOP, AGAIN = -1, -2


class Moves(IntEnum):
    """What a loop does to the words of a thread. After the first two one `Move` each."""

    COUNT = 0
    TURN = 1        # offset in bytes of the word that counts turns


class Move(IntEnum):
    """An argument that moves. Offsets are in bytes from the thread's first word."""

    WORD = 0        # offset of the word
    BEGIN = 1       # offset of the word that it begins with
    ODD = 2         # what is added to it before the turns 1, 3, 5 ...
    EVEN = 3        # and before the turns 2, 4, 6 ...


class Profile(IntEnum):
    """Ticks that one thread spent in one launch, added up over the steps; one row more for the step's end.
    `Tape.seconds` knows how long a tick is.

    (A worker cannot write down its wait after the last step of a call: by then the profile is the caller's
    again.)
    """

    WAIT = 0        # at the barrier before it
    WORK = 1        # in the kernel


class Control(IntEnum):
    """The control block of a team, a cache line (8 words) for each way of sharing."""

    # What to run. Written by the caller while the team rests, read by all when it starts.
    TABLE = 0
    LAUNCHES = 1
    STEPS = 2       # STOP: the workers leave
    THREADS = 3     # 1: the caller alone, the workers are not woken
    DEADLINE = 4    # CLOCK_MONOTONIC nanoseconds after which no further step begins
    PROFILE = 5     # address of [thread][launch, one more][Profile], or 0
    # How long a tick is. Written by the caller when it leaves, if there is a profile.
    TICKS = 6       # of this run
    NANOSECONDS = 7 # as long as those

    STARTED = 8     # counts runs; a worker starts when it changes (a futex: its low half is waited on)
    PARKED = 9      # workers that sleep on STARTED, and so must be woken by the kernel
    JOINED = 10     # workers that have come to the team, which gives each its number
    # The barrier. One line for both words: 0.18 microseconds on two processors, 0.30 with a line each.
    ARRIVED = 16    # threads at the current barrier
    RELEASED = 17   # counts barriers that are over (a futex: its low half is waited on)
    ASLEEP = 18     # threads that sleep on RELEASED

    DONE = 24       # steps finished since the run began
    PAST_DEADLINE = 25


CONTROL_WORDS = 32
STOP = -1           # instead of a number of steps
CALLER, WORKER = 0, 1   # as what a thread enters the driver
