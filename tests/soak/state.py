"""state: what the checker knows: every acknowledged write, and what may have become of those that nobody answered.

Claim   the names and keys of one worker in one database. Only its worker writes there, one call at a time, so its state
        is known exactly but for the call under way.
Group   changes of a call whose outcome is not known. Each group is there wholly or not at all.
Seen    what a database shows: all names, all values.

A value says who wrote it: b"TAG|SEQ|SIZE|" and bytes that follow from these; short ones are their digest alone.
"""
import hashlib
import threading


class Val:
    __slots__ = ("tag", "seq", "size")

    def __init__(self, tag, seq, size):
        self.tag, self.seq, self.size = tag, seq, size

    def data(self):
        head = b"%s|%d|%d|" % (self.tag.encode(), self.seq, self.size)
        if len(head) > self.size:
            return hashlib.shake_128(head).digest(self.size)
        return head + hashlib.shake_128(head).hexdigest((self.size - len(head) + 1) // 2).encode()[:self.size - len(head)]

    def __repr__(self):
        return "%s|%d|%d" % (self.tag, self.seq, self.size)


def written_by(data):
    """(tag, seq) of a value that says it; None."""
    parts = data[:60].split(b"|", 3)
    if len(parts) < 4 or not parts[1].isdigit() or not parts[2].isdigit():
        return None
    return parts[0].decode("ascii", "replace"), int(parts[1])


class New:
    """A key that a call in doubt would have been given."""

    def __init__(self):
        self.key = None


class Group:
    def __init__(self, what, names=None, values=None, sticky=False):
        self.what = what
        self.names = names or {}    # name: key, New or None (unmapped)
        self.values = values or {}  # key or New: Val or None (deleted)
        self.sticky = sticky        # only a restart decides


class Seen:
    def __init__(self, names, values):
        self.names, self.values = names, values
        self.writers = {}  # (tag, seq): key
        for key, data in values.items():
            who = written_by(data)
            if who:
                self.writers[who] = key


class Findings:
    def __init__(self, say):
        self.say, self.lock, self.all, self.kinds = say, threading.Lock(), [], {}

    def add(self, kind, text):
        with self.lock:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            self.all.append((kind, text))
            if self.kinds[kind] <= 5:
                self.say("FINDING %s: %s" % (kind, text))
            elif self.kinds[kind] == 6:
                self.say("FINDING %s: more of the kind are counted only" % kind)


class Claim:
    def __init__(self, tag, db, prefix):
        self.tag, self.db, self.prefix = tag, db, prefix
        self.names, self.values, self.doubts = {}, {}, []
        self.seq, self.refused, self.spied = 0, set(), set()
        self.gone = []  # some keys that were deleted

    def val(self, size):
        self.seq += 1
        return Val(self.tag, self.seq, size)

    def apply(self, group):
        for name, key in group.names.items():
            key = key.key if isinstance(key, New) else key
            if key is None:
                self.names.pop(name, None)
            else:
                self.names[name] = key
        for key, val in group.values.items():
            key = key.key if isinstance(key, New) else key
            if val is not None:
                self.values[key] = val
            elif self.values.pop(key, None) is not None and len(self.gone) < 2000:
                self.gone.append(key)

    def refuse(self, group):
        """The server said no: what the group would have written must never be shown."""
        for val in group.values.values():
            if val is not None:
                self.refused.add(val.seq)

    # ---- what became of the doubtful ----

    def _key_done(self, group, new, seen):
        """The key that a New got, if it got one."""
        val = group.values.get(new)
        return seen.writers.get((val.tag, val.seq)) if val else None

    def _done(self, group, seen):
        """(all of it is there, none of it is there)"""
        done = undone = True
        for name, key in group.names.items():
            now = seen.names.get(name)
            want = self._key_done(group, key, seen) if isinstance(key, New) else key
            done = done and now == want and not (isinstance(key, New) and want is None)
            undone = undone and now == self.names.get(name)
        for key, val in group.values.items():
            if isinstance(key, New):
                found = self._key_done(group, key, seen)
                done, undone = done and found is not None, undone and found is None
                continue
            now, old = seen.values.get(key), self.values.get(key)
            done = done and now == (val.data() if val else None)
            undone = undone and now == (old.data() if old else None)
        return done, undone

    def settle(self, seen, restarted, durable, findings, count):
        left = []
        for group in self.doubts:
            done, undone = self._done(group, seen)
            if done:
                for key in list(group.names.values()) + list(group.values):
                    if isinstance(key, New):
                        key.key = self._key_done(group, key, seen)
                self.apply(group)
                count("in doubt: done")
            elif undone and group.sticky and not restarted:
                left.append(group)
            elif undone:
                count("in doubt: not done")
                for val in group.values.values():
                    if durable and val is not None and val.seq in self.spied:
                        findings.add("shown and taken back", "%s: %s: value %r was read before the crash" % (self.db, group.what, val))
            else:
                findings.add("half of a call", "%s: %s: %s" % (self.db, group.what, self._halves(group, seen)))
                self._adopt(group, seen)
        for seq in self.spied & self.refused:
            findings.add("a refused value was shown", "%s: %s|%d" % (self.db, self.tag, seq))
        self.doubts = left
        self.spied, self.refused = set(), set()

    def _halves(self, group, seen):
        out = ["%r: was %s, wanted %s, is %s" % (n[:40], self.names.get(n), k if not isinstance(k, New) else "new", seen.names.get(n))
               for n, k in list(group.names.items())[:4]]
        out += ["key %s: was %r, wanted %r, is %r" % (k if not isinstance(k, New) else "new", self.values.get(k), v,
                                                    (seen.values.get(self._key_done(group, k, seen) if isinstance(k, New) else k) or b"nothing")[:30])
                for k, v in list(group.values.items())[:4]]
        return "; ".join(out)

    def _adopt(self, group, seen):
        """Takes what is there for right, so that one fault is told once."""
        for name in group.names:
            if name in seen.names:
                self.names[name] = seen.names[name]
            else:
                self.names.pop(name, None)
        for key, val in group.values.items():
            key = self._key_done(group, key, seen) if isinstance(key, New) else key
            if key in seen.values and val is not None and seen.values[key] == val.data():
                self.values[key] = val
            elif key not in seen.values:
                self.values.pop(key, None)

    # ---- all of it ----

    def compare(self, seen, findings):
        open_names = {n for g in self.doubts for n in g.names}
        open_keys = {k for g in self.doubts for k in g.values}
        mine = {n: k for n, k in seen.names.items() if n.startswith(self.prefix)}
        for name in self.names.keys() | mine.keys():
            if name in open_names or self.names.get(name) == mine.get(name):
                continue
            kind = "a lost pair" if name not in mine else "a pair that was not acknowledged" if name not in self.names else "a pair with another key"
            findings.add(kind, "%s: %r: key %s is %s" % (self.db, name[:60], self.names.get(name), mine.get(name)))
        self.names = {n: k for n, k in mine.items() if n not in open_names} | {n: self.names[n] for n in open_names if n in self.names}
        for key, val in list(self.values.items()):
            now = seen.values.get(key)
            if key in open_keys or now == val.data():
                continue
            findings.add("a lost value" if now is None else "a wrong value", "%s: key %d: %r is %r" % (self.db, key, val, (now or b"")[:40]))
            del self.values[key]


def unclaimed(seen, claims):
    """Values that no claim knows: deleted ones that came back, inserts that were refused."""
    known = set()
    for claim in claims:
        known.update(claim.values)
        known.update(k for g in claim.doubts for k in g.values if not isinstance(k, New))
    return {key: data for key, data in seen.values.items() if key not in known}
