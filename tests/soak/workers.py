"""workers: the load. Each worker owns names and keys that only it writes, makes one call at a time, compares what it reads
with what it knows, and leaves what it cannot know to the checker (state.py).
"""
import json
import random
import threading
import time

from link import Doubt, Link, LineLink, Refused, b64, hexed, unb64
from state import Claim, Group, New, written_by

OCTETS = "application/octet-stream"
NDJSON = "application/x-ndjson"


class Worker(threading.Thread):
    """step() does one call; it runs only while the gate is open and nothing of the worker's is in doubt."""

    def __init__(self, soak, tag):
        super().__init__(name=tag, daemon=True)
        self.soak, self.tag, self.steps = soak, tag, 0
        self.rng = random.Random("%d %s" % (soak.seed, tag))
        self.link = Link(soak, tag)

    def blocked(self):
        return False

    def run(self):
        while not self.soak.over:
            if self.blocked() or not self.soak.gate.enter():
                time.sleep(0.01)
                continue
            try:
                self.step()
            except Refused as refusal:
                self.soak.count("refused" if refusal.status else "not sent")
                time.sleep(0.02 if refusal.status else 0.05)
            except Doubt:
                self.soak.count("doubts of reads or jobs")
            except Exception as error:  # a worker that dies quietly would make the soak a quiet one
                self.soak.findings.add("the soak itself", "%s: %r" % (self.tag, error))
                self.soak.trace()
                time.sleep(0.5)
            finally:
                self.steps += 1
                self.soak.gate.leave()
        self.link.close()

    def wrong(self, kind, text):
        self.soak.findings.add(kind, "%s: %s" % (self.tag, text))


class KeyWorker(Worker):
    """What the HTTP and the line worker share: a claim, and sizes and names to choose."""

    SIZES = (24, 25, 31, 32, 64, 100, 100, 333, 1000, 4000, 4097, 9000, 20000)
    MOST = 1200

    def __init__(self, soak, tag, db):
        super().__init__(soak, tag)
        self.claim = Claim(tag, db, tag.encode() + b":")
        self.db = "db=" + db
        soak.claims.append(self.claim)

    def blocked(self):
        return bool(self.claim.doubts)

    def write(self, group, send):
        """Sends; the group is refused or in doubt where it has to be. The answer, if the call was a success."""
        try:
            answer = send()
        except Refused:
            self.claim.refuse(group)
            raise
        except Doubt as doubt:
            group.sticky = doubt.sticky
            self.claim.doubts.append(group)
            raise
        self.soak.count("acknowledged")
        return answer

    def keyed(self, new, key):
        new.key = key
        if not self.soak.given(self.claim.db, key):
            self.wrong("a key was given out twice", "%s: key %d" % (self.claim.db, key))

    def any_name(self):
        return self.rng.choice(list(self.claim.names)) if self.claim.names else None

    def any_key(self):
        return self.rng.choice(list(self.claim.values)) if self.claim.values else None

    def size(self, small=False):
        if small and self.rng.random() < 0.3:
            return self.rng.randrange(1, 24)
        if self.rng.random() < 0.004:
            return self.rng.randrange(1 << 20, 3 << 20)
        return self.rng.choice(self.SIZES)

    def new_name(self, space=None):
        length = self.rng.choice((1, 3, 8, 8, 8, 20, 20, 60, 200) + ((3900,) if self.rng.random() < 0.05 else ()))
        return self.claim.prefix + (space or self.rng.choice((b"a:", b"b:", b"c:"))) + self.rng.randbytes(length)

    def full(self):
        return len(self.claim.values) + len(self.claim.names) > 2 * self.MOST

    def expected(self, name):
        val = self.claim.values.get(self.claim.names.get(name))
        return val.data() if val else None


class HttpWorker(KeyWorker):
    CALLS = (("insert", 8), ("read", 10), ("edit", 6), ("delete", 4), ("upsert", 18), ("alias", 4), ("exact", 10), ("count", 3), ("scan", 1),
             ("page", 4), ("unmap", 8), ("batch", 8), ("several", 2), ("sweep_names", 1), ("push", 4), ("drain", 3), ("stats", 1), ("payloads", 1),
             ("checkpoint", 0.12), ("dead", 2), ("statistics", 0.3))

    def step(self):
        names, weights = zip(*self.CALLS)
        call = self.rng.choices(names, weights)[0]
        if self.full() and call in ("insert", "upsert", "alias", "push", "batch"):
            call = self.rng.choice(("delete", "unmap", "unmap", "sweep_names"))
        self.soak.count("call " + call)
        getattr(self, call)()

    def do(self, method, path, body=None, kind=OCTETS, accept=None):
        return self.link.call(method, path + ("&" if "?" in path else "?") + self.db, body, kind, accept)

    def body(self, val):
        data = val.data()
        if self.rng.random() < 0.3:
            return json.dumps({"value": b64(data)}).encode(), "application/json"
        return data, OCTETS

    def expect(self, answer, *statuses):
        if answer.status not in statuses:
            self.wrong("an unexpected answer", "%d %r, not %s" % (answer.status, answer.body[:200], statuses))
            return False
        return True

    # ---- values ----

    def insert(self):
        new, val = New(), self.claim.val(self.size())
        group = Group("POST /kv", values={new: val})
        body, kind = self.body(val)
        answer = self.write(group, lambda: self.do("POST", "/kv", body, kind))
        if self.expect(answer, 201):
            self.keyed(new, answer.json()["key"])
            self.claim.apply(group)

    def read(self):
        key = self.any_key()
        if key is None:
            return
        answer = self.do("GET", "/kv/%d" % key, accept=OCTETS)
        if self.expect(answer, 200) and answer.body != self.claim.values[key].data():
            self.wrong("a wrong read", "key %d: %r" % (key, answer.body[:60]))

    def dead(self):
        """A key that was deleted stays dead; its worker alone could give it a value."""
        if self.claim.gone:
            key = self.rng.choice(self.claim.gone)
            if key not in self.claim.values:
                answer = self.do("GET", "/kv/%d" % key)
                if answer.status != 404:
                    self.wrong("a deleted value came back", "key %d: %r" % (key, answer.body[:80]))

    def several(self):
        keys = self.rng.sample(list(self.claim.values), min(len(self.claim.values), 100))
        if not keys:
            return
        lines, _ = self.do("GET", "/kv?keys=" + ",".join(map(str, keys))).entries()
        for key, line in zip(keys, lines):
            if line.get("key") != key or "value" not in line or unb64(line["value"]) != self.claim.values[key].data():
                self.wrong("a wrong read", "keys=: key %d: %s" % (key, str(line)[:100]))

    def edit(self):
        key = self.any_key()
        if key is None:
            return
        val = self.claim.val(self.size(small=True))
        group = Group("PUT /kv", values={key: val})
        body, kind = self.body(val)
        if self.expect(self.write(group, lambda: self.do("PUT", "/kv/%d" % key, body, kind)), 200):
            self.claim.apply(group)

    def delete(self):
        key = self.any_key()
        if key is None:
            return
        group = Group("DELETE /kv", values={key: None})
        if self.expect(self.deleting(group, lambda: self.do("DELETE", "/kv/%d" % key)), 204):
            self.claim.apply(group)

    def deleting(self, group, send):
        try:
            answer = self.write(group, send)
        except Refused as refusal:
            self.soak.deleted(refusal.status != 507)
            raise
        self.soak.deleted(True)
        return answer

    # ---- pairs ----

    def upsert_group(self, name, val):
        key = self.claim.names.get(name)
        if key is not None and key in self.claim.values:
            return Group("PUT /pairs", values={key: val}), None
        new = New()
        return Group("PUT /pairs", names={name: new}, values={new: val}), new

    def upsert(self):
        name = self.new_name() if self.rng.random() < 0.7 or not self.claim.names else self.any_name()
        known = name in self.claim.names
        fresh = self.claim.names.get(name) not in self.claim.values
        val = self.claim.val(self.size(small=not fresh))
        group, new = self.upsert_group(name, val)
        body, kind = self.body(val)
        answer = self.write(group, lambda: self.do("PUT", "/pairs/" + hexed(name), body, kind))
        if not self.expect(answer, 200 if known else 201):
            return
        key = answer.json()["key"]
        if new is not None:
            self.keyed(new, key)
        elif key != self.claim.names[name]:
            self.wrong("an unexpected answer", "an upsert changed the key of %r from %d to %d" % (name[:40], self.claim.names[name], key))
        self.claim.apply(group)

    def alias(self):
        key = self.any_key()
        if key is None:
            return
        name = self.new_name()
        group = Group("PUT /pairs key", names={name: key})
        body = json.dumps({"key": key}).encode()
        answer = self.write(group, lambda: self.do("PUT", "/pairs/" + hexed(name), body, "application/json"))
        if self.expect(answer, 200 if name in self.claim.names else 201):
            self.claim.apply(group)

    def same(self, name, line, what):
        key, data = self.claim.names.get(name), self.expected(name)
        got = unb64(line["value"]) if line.get("value") is not None else None
        if line.get("key") != key or ("value" in line and got != data):
            self.wrong("a wrong read", "%s: %r: key %s, not %s; %r" % (what, name[:40], line.get("key"), key, (got or b"")[:40]))

    def exact(self):
        name = self.any_name() if self.rng.random() < 0.9 else self.new_name()
        if name is None:
            return
        answer = self.do("GET", "/pairs/%s?exact=true&values=true" % hexed(name))
        if name in self.claim.names:
            if self.expect(answer, 200):
                self.same(name, answer.json(), "exact")
        else:
            self.expect(answer, 404)

    def count(self):
        answer = self.do("GET", "/pairs/%s?count=true" % hexed(self.claim.prefix))
        if self.expect(answer, 200) and answer.json()["pairs"] != len(self.claim.names):
            self.wrong("a wrong count", "%s, not %d" % (answer.body, len(self.claim.names)))

    def stream(self, target, names, what):
        lines, _ = self.do("GET", target).entries()
        got = [unb64(line["pair"]) for line in lines]
        if got != names:
            odd = sorted(set(got) ^ set(names))[:3]
            self.wrong("a wrong scan", "%s: %d lines, not %d; %r" % (what, len(got), len(names), odd))
            return
        for name, line in zip(got, lines):
            self.same(name, line, what)

    def scan(self):
        self.stream("/pairs/%s?values=true" % hexed(self.claim.prefix), sorted(self.claim.names), "scan")

    def page(self):
        names, reverse = sorted(self.claim.names), self.rng.random() < 0.5
        if not names:
            return
        if reverse:
            names.reverse()
        at, limit = self.rng.randrange(len(names)), self.rng.randrange(1, 60)
        self.stream("/pairs/%s?values=true&limit=%d&after=%s&reverse=%s" % (hexed(self.claim.prefix), limit, hexed(names[at]), "true" if reverse else "false"),
                    names[at + 1:at + 1 + limit], "page")

    def payloads(self):
        names = [n for n in sorted(self.claim.names) if n.startswith(self.claim.prefix + b"a:")]
        lines, _ = self.do("GET", "/reduce/payloads/" + hexed(self.claim.prefix + b"a:")).entries()
        for line in lines:
            line["value"] = line.pop("payload")
        if [unb64(line["pair"]) for line in lines] != names:
            self.wrong("a wrong scan", "payloads: %d lines, not %d" % (len(lines), len(names)))
            return
        for name, line in zip(names, lines):
            self.same(name, line, "payloads")

    def stats(self):
        lines, _ = self.do("GET", "/reduce/stats/" + hexed(self.claim.prefix)).entries()
        sizes = [self.claim.values[k].size for k in self.claim.names.values() if k in self.claim.values]
        want = (len(self.claim.names), len(self.claim.names) - len(sizes), sum(sizes))
        line = [x for x in lines if "pairs" in x][0]
        if (line["pairs"], line["dangling"], line["bytes"]) != want:
            self.wrong("a wrong aggregate", "%s, not %s" % (line, want))

    def statistics(self):
        self.expect(self.link.call("GET", "/databases/" + self.claim.db), 200)

    def unmap(self):
        name = self.any_name()
        if name is None:
            return
        values = self.rng.random() < 0.7
        key = self.claim.names[name]
        group = Group("DELETE /pairs", names={name: None}, values={key: None} if values and key in self.claim.values else {})
        answer = self.deleting(group, lambda: self.do("DELETE", "/pairs/%s?values=%s" % (hexed(name), "true" if values else "false")))
        if self.expect(answer, 204):
            self.claim.apply(group)

    def many(self, what, groups, send):
        """A call that may be several commits: each group is in doubt for itself, also when it is refused half way."""
        try:
            return send()
        except Refused as refusal:
            if refusal.status == 0:
                raise
            self.claim.doubts.extend(groups)
            raise
        except Doubt as doubt:
            for group in groups:
                group.sticky = doubt.sticky
            self.claim.doubts.extend(groups)
            raise

    def gone_groups(self, what, names):
        keys = set()
        groups = []
        for name in names:
            key = self.claim.names[name]
            values = {key: None} if key in self.claim.values and key not in keys else {}
            keys.add(key)
            # pair and value may go in commits of their own: a shared key belongs to the first name only
            groups.append(Group(what, names={name: None}))
            if values:
                groups.append(Group(what, values=values))
        return groups

    def sweep_names(self):
        """A whole namespace."""
        space = self.claim.prefix + self.rng.choice((b"a:", b"b:", b"c:"))
        names = [n for n in self.claim.names if n.startswith(space)]
        values = self.rng.random() < 0.8
        groups = self.gone_groups("DELETE recursive", names) if values else [Group("DELETE recursive", names={n: None}) for n in names]
        answer = self.many("recursive", groups, lambda: self.do("DELETE", "/pairs/%s?recursive=true&values=%s" % (hexed(space), "true" if values else "false")))
        if not self.expect(answer, 200):
            return
        live = len({self.claim.names[n] for n in names if self.claim.names[n] in self.claim.values}) if values else 0
        if answer.json() != {"pairs_deleted": len(names), "values_deleted": live}:
            self.wrong("a wrong count", "recursive delete: %s, not %d and %d" % (answer.body, len(names), live))
        self.soak.count("acknowledged")
        for group in groups:
            self.claim.apply(group)

    # ---- batches, queues ----

    def operation(self, used, allow_new=True):
        """(line, group) of an operation on names and keys that no other of the batch touches."""
        kind = self.rng.choice(("insert", "pair_put", "pair_put", "edit", "delete", "pair_set", "pair_del"))
        free = [k for k in self.rng.sample(list(self.claim.values), min(8, len(self.claim.values))) if k not in used]
        if kind in ("edit", "delete", "pair_set") and not free:
            kind = "insert"
        if kind == "insert":
            new, val = New(), self.claim.val(self.size())
            return {"op": "insert", "value": b64(val.data())}, Group("batch", values={new: val})
        if kind == "edit":
            used.add(free[0])
            val = self.claim.val(self.size(small=True))
            return {"op": "edit", "key": free[0], "value": b64(val.data())}, Group("batch", values={free[0]: val})
        if kind == "delete":
            used.add(free[0])
            return {"op": "delete", "key": free[0]}, Group("batch", values={free[0]: None})
        if kind == "pair_set":
            name = self.new_name()
            if name in used or name in self.claim.names:
                return None
            used.update((free[0], name))
            return {"op": "pair_set", "pair": b64(name), "key": free[0]}, Group("batch", names={name: free[0]})
        name = self.new_name() if kind == "pair_put" else self.any_name()
        if name is None or name in used or self.claim.names.get(name) in used:
            return None
        used.update((name, self.claim.names.get(name)))
        if kind == "pair_del":
            key = self.claim.names[name]
            return ({"op": "pair_del", "pair": b64(name), "values": True},
                    Group("batch", names={name: None}, values={key: None} if key in self.claim.values else {}))
        val = self.claim.val(self.size())
        return {"op": "pair_put", "pair": b64(name), "value": b64(val.data())}, self.upsert_group(name, val)[0]

    @staticmethod
    def joined(groups, what):
        return Group(what, {n: k for g in groups for n, k in g.names.items()}, {k: v for g in groups for k, v in g.values.items()})

    def batch(self):
        atomic, used = self.rng.random() < 0.5, {None}
        made = [m for m in (self.operation(used) for _ in range(self.rng.choice((2, 5, 20, 100)))) if m]
        doomed = atomic and self.rng.random() < 0.2  # fails as a whole: an edit of a key that was never given out
        lines = [m[0] for m in made] + ([{"op": "edit", "key": 1 << 47, "value": "AAAA"}] if doomed else [])
        whole = self.joined([m[1] for m in made], "POST /batch" + (" atomic" if atomic else ""))
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self.put_batch(whole, [m[1] for m in made], body, atomic, doomed)

    def put_batch(self, whole, groups, body, atomic, doomed=False):
        def send():
            answer = self.do("POST", "/batch?atomic=%s" % ("true" if atomic else "false"), body, NDJSON)
            return answer, answer.entries()[0] if answer.status == 200 else None
        began = time.monotonic()
        try:
            answer, lines = send()
        except Refused:
            self.claim.refuse(whole)
            raise
        except Doubt as doubt:
            # Also one that is not atomic is one commit; but each of its operations may have been refused by itself.
            parts = [whole] if atomic or not self.soak.rough(began) else groups
            for part in parts:
                part.sticky = doubt.sticky
            self.claim.doubts.extend(parts)
            raise
        if answer.status == 409:
            operation = answer.json().get("operation", {})
            if not doomed and operation.get("status", 0) < 500:
                self.wrong("an unexpected answer", repr(answer.body[:300]))
            if operation.get("status", 0) >= 500:
                self.soak.refused(operation["status"], operation.get("code", ""), "batch: %r" % answer.body[:150], time.monotonic())
            self.claim.refuse(whole)
            return
        if doomed:
            self.wrong("an unexpected answer", "a batch that must fail: %d %r" % (answer.status, answer.body[:200]))
        for group, line in zip(groups, lines):
            self.take_result(group, line)

    def take_result(self, group, line):
        if line["status"] >= 300:
            self.claim.refuse(group)
            if line["status"] >= 500:
                self.soak.refused(line["status"], line.get("code", ""), "an operation of a batch: %s" % line, time.monotonic())
            else:
                self.wrong("an unexpected answer", "batch: %s for %s" % (line, group.values or group.names))
            return
        self.soak.count("acknowledged")
        for key in group.values:
            if isinstance(key, New):
                self.keyed(key, line["key"])
        self.claim.apply(group)

    def push(self):
        made = []
        for _ in range(self.rng.randrange(1, 30)):
            val = self.claim.val(self.size())
            new, name = New(), self.claim.prefix + b"q:%012d" % val.seq
            made.append(({"op": "pair_put", "pair": b64(name), "value": b64(val.data())}, Group("push", {name: new}, {new: val})))
        body = "".join(json.dumps(line) + "\n" for line, _ in made).encode()
        self.put_batch(self.joined([g for _, g in made], "push"), [g for _, g in made], body, False)

    def drain(self):
        space = self.claim.prefix + b"q:"
        limit = self.rng.randrange(1, 40)
        names = sorted(n for n in self.claim.names if n.startswith(space))[:limit]
        groups = self.gone_groups("queue-drain", names)

        def send():
            answer = self.do("POST", "/reduce/queue-drain/%s?limit=%d" % (hexed(space), limit))
            return answer, answer.entries()[0]
        began = time.monotonic()
        _, lines = self.many("drain", groups, send)
        got = [unb64(line["pair"]) for line in lines]
        if got != names:
            # without room some items cannot be removed: they stay, and are not returned
            if not self.soak.rough(began) or len(set(got)) != len(got) or not set(got) <= set(self.claim.names):
                self.wrong("a wrong queue", "%d items, not %d" % (len(lines), len(names)))
            self.soak.count("drains that passed over items")
        for line in lines:
            name = unb64(line["pair"])
            data = unb64(line["payload"]) if line["payload"] is not None else None
            if name in self.claim.names and data != self.expected(name):
                self.wrong("a wrong queue", "%r: %r" % (name, (data or b"")[:40]))
        self.soak.count("acknowledged")
        for group in self.gone_groups("queue-drain", [n for n in got if n in self.claim.names]):
            self.claim.apply(group)

    def checkpoint(self):
        self.expect(self.link.call("POST", "/databases/%s/checkpoint" % self.claim.db), 200)


class LineWorker(KeyWorker):
    """Commands in one go, all on names and keys of their own, so that each is in doubt for itself."""

    def __init__(self, soak, tag, db):
        super().__init__(soak, tag, db)
        self.line = LineLink(soak, db)

    def command(self, used):
        kind = self.rng.choice(("INSERT", "INSERT", "EDIT", "DELETE", "PAIR_SET", "PAIR_SET", "PAIR_DEL", "READ", "PAIR_GET"))
        if self.full() and kind in ("INSERT", "PAIR_SET"):
            kind = self.rng.choice(("DELETE", "PAIR_DEL"))
        free = [k for k in self.rng.sample(list(self.claim.values), min(6, len(self.claim.values))) if k not in used]
        if kind == "INSERT" or kind in ("EDIT", "DELETE", "READ", "PAIR_SET") and not free:
            new, val = New(), self.claim.val(self.rng.choice(self.SIZES))
            return b"INSERT:%d %s" % (val.size, val.data()), Group("INSERT", values={new: val}), None
        if kind == "EDIT":
            used.add(free[0])
            val = self.claim.val(self.rng.choice(self.SIZES))
            return b"EDIT %d %s" % (free[0], val.data()), Group("EDIT", values={free[0]: val}), None
        if kind == "DELETE":
            used.add(free[0])
            return b"DELETE %d" % free[0], Group("DELETE", values={free[0]: None}), None
        if kind == "READ":
            used.add(free[0])
            val = self.claim.values[free[0]]
            return b"READ %d" % free[0], None, b"SUCCESS,size=%d,value=%s" % (val.size, val.data())
        name = self.new_name() if kind == "PAIR_SET" else self.any_name()
        if name is None or name in used:
            return None
        used.add(name)
        text = hexed(name).encode()
        if kind == "PAIR_SET":
            used.add(free[0])
            return b"PAIR_SET %s %d" % (text, free[0]), Group("PAIR_SET", names={name: free[0]}), None
        if kind == "PAIR_GET":
            return b"PAIR_GET " + text, None, b"SUCCESS,key=%d" % self.claim.names[name]
        return b"PAIR_DEL " + text, Group("PAIR_DEL", names={name: None}), None

    def step(self):
        used = set()
        made = [m for m in (self.command(used) for _ in range(self.rng.choice((1, 5, 30)))) if m]
        began = time.monotonic()
        answers = self.line.many([m[0] for m in made])
        self.soak.count("line commands", len(answers))
        self.soak.figures["bytes sent"] += sum(len(m[0]) for m in made)
        for (sent, group, want), answer in zip(made, answers):
            self.take(sent, group, want, answer, began)
        self.claim.doubts.extend(g for _, g, _ in made[len(answers):] if g is not None)
        if self.rng.random() < 0.1 and not self.claim.doubts:
            self.scan()

    def take(self, sent, group, want, answer, began):
        if answer.startswith(b"SUCCESS"):
            if want is not None and answer != want:
                self.wrong("a wrong read", "%r: %r" % (sent[:40], answer[:60]))
            if group is not None:
                self.soak.count("acknowledged")
                for key in group.values:
                    if isinstance(key, New):
                        self.keyed(key, int(answer[len(b"SUCCESS,key="):]))
                self.claim.apply(group)
            return
        word = answer[len(b"ERROR,"):].split(b" ")[0].decode("ascii", "replace")
        if word in ("io_error", "read_only", "outcome_unknown"):
            self.soak.refused(503, word, "%r" % sent[:30], began)
            if group is not None:
                group.sticky = True
                self.claim.doubts.append(group)
            return
        if word in ("key_not_found", "not_found") or word.startswith("invalid"):
            self.wrong("an unexpected answer", "%r: %r" % (sent[:60], answer[:80]))
            return
        self.soak.refused(507 if word == "disk_full" else 503, word, "%r" % sent[:30], began)
        if group is not None:
            self.claim.refuse(group)

    def scan(self):
        names = sorted(self.claim.names)
        answers = self.line.many([b"PAIR_SCAN %s -1" % hexed(self.claim.prefix).encode()])
        if not answers or not answers[0].startswith(b"SUCCESS,count="):
            if answers:
                self.soak.refused(503, answers[0][:60].decode("ascii", "replace"), "PAIR_SCAN", time.monotonic())
            return
        items = answers[0].partition(b"items=")[2]  # an empty page has none
        got = [bytes.fromhex(i.split(b":")[0].decode()) for i in items.split(b";") if i]
        if got != names:
            self.wrong("a wrong scan", "PAIR_SCAN: %d items, not %d" % (len(got), len(names)))


class Spy(Worker):
    """Reads what others write while they write it: what it sees must be there after a crash (durability sync)."""

    def step(self):
        claim = self.rng.choice(self.soak.claims)
        try:
            names = list(claim.names)
            keys = list(claim.values)
        except RuntimeError:  # it grew meanwhile
            return
        if self.rng.random() < 0.5 and names:
            answer = self.link.call("GET", "/pairs/%s?exact=true&values=true&db=%s" % (hexed(self.rng.choice(names)), claim.db))
            value = answer.json().get("value") if answer.status == 200 else None
            data = unb64(value) if value else b""
        elif keys:
            answer = self.link.call("GET", "/kv/%d?db=%s" % (self.rng.choice(keys[-20:]), claim.db), accept=OCTETS)
            data = answer.body if answer.status == 200 else b""
        else:
            return
        who = written_by(data)
        if who and who[0] == claim.tag:
            claim.spied.add(who[1])
        self.soak.count("spied")
        time.sleep(0.001)
