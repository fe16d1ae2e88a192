"""linear: is a history of operations on registers linearizable? The algorithm of Wing and Gong (Testing and verifying concurrent
objects, 1993) with the memory of Lowe (Testing for linearizability, 2017), as in Knossos and Porcupine: the calls are linearized
depth first, an entry of the history is left when its answer comes before it was linearized, and what was tried (which operations,
which state) is not tried again.

An operation whose outcome is not known (the server was killed, the connection broke) may take effect at any time after its call,
or never: its answer lies after the end of the history. A read without an answer says nothing and is left out; so is a write
without one whose value nobody has read, because leaving out a write that nobody saw keeps every linearization one.
"""
import collections
import math

READ, WRITE = "read", "write"
Op = collections.namedtuple("Op", "kind value call end who")  # end: math.inf where the outcome is not known


def relevant(ops):
    seen = {op.value for op in ops if op.kind == READ and op.end != math.inf}
    return [op for op in ops if op.end != math.inf or op.kind == WRITE and (op.value in seen or op.value is None)]


def linearizable(ops, state=None):
    """ops: of one register. state: its value before. Values of writes differ; None is no value (a delete)."""
    ops = relevant(ops)
    n = len(ops)
    events = sorted([(op.call, 0, i) for i, op in enumerate(ops)] + [(op.end, 1, i) for i, op in enumerate(ops)])
    head, tail = 2 * n, 2 * n + 1
    following, before = [0] * (2 * n + 2), [0] * (2 * n + 2)
    answer = [0] * n  # where in the list the answer of an operation is
    for at, (_, kind, i) in enumerate(events):
        following[at], before[at] = at + 1, at - 1
        if kind == 1:
            answer[i] = at
    following[head] = 0 if n else tail
    if n:
        before[0], following[2 * n - 1], before[tail] = head, tail, 2 * n - 1

    def lift(at):
        following[before[at]], before[following[at]] = following[at], before[at]

    def unlift(at):
        following[before[at]] = before[following[at]] = at

    done, tried, stack, at = 0, set(), [], following[head]
    while following[head] != tail:
        _, kind, i = events[at]
        if kind == 0:
            op = ops[i]
            after = op.value if op.kind == WRITE else state
            if (op.kind == WRITE or op.value == state) and (done | 1 << i, after) not in tried:
                tried.add((done | 1 << i, after))
                stack.append((at, state))
                state, done = after, done | 1 << i
                lift(at)
                lift(answer[i])
                at = following[head]
            else:
                at = following[at]
        else:
            if not stack:
                return False
            at, state = stack.pop()
            i = events[at][2]
            done &= ~(1 << i)
            unlift(answer[i])
            unlift(at)
            at = following[at]
    return True


def shortest_failure(ops):
    """The history up to the first answer that makes it impossible, as text: what a person should look at."""
    answers = sorted(op.end for op in ops if op.end != math.inf)
    low, high = 0, len(answers) - 1
    cut = lambda end: [op if op.end <= end else op._replace(end=math.inf) for op in ops if op.call <= end]
    while low < high:
        middle = (low + high) // 2
        if linearizable(cut(answers[middle])):
            low = middle + 1
        else:
            high = middle
    part = sorted(cut(answers[low]), key=lambda op: op.end)
    start = part[0].call
    return "\n".join("%10.3f .. %10.3f ms  client %-2s %-5s %s"
                     % ((op.call - start) / 1e6, (op.end - start) / 1e6, op.who, op.kind, op.value) for op in part[-30:])
