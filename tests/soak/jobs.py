"""jobs: the load that is no single read or write: statistics, databases that come and go, backups."""
import copy
import json
import os
import shutil
import time

import reference

from link import Doubt, Refused, hexed
from state import Seen
from workers import NDJSON, OCTETS, Worker


ORDER, TOPK = 3, 20


class ModelWorker(Worker):
    """Counts, smooths and asks in a database of its own; tests/lm/reference.py says what must be in it."""

    def __init__(self, soak, tag, db):
        super().__init__(soak, tag)
        self.db = db
        self.fresh()
        soak.models.append(self)

    def fresh(self):
        self.documents = []       # counted
        self.doubt = None         # documents of a call in doubt; "dropped" for a drop
        self.smoothed = None      # how many documents the last smoothing saw; None: unknown
        self.exists = False

    def blocked(self):
        return self.doubt is not None

    def step(self):
        if len(self.documents) > 150:
            self.drop()
            return
        dice = self.rng.random()
        if dice < 0.45 or not self.documents:
            self.count_ngrams()
        elif dice < 0.60:
            self.smooth()
        else:
            self.ask()
        time.sleep(self.rng.uniform(0, 0.05))

    def count_ngrams(self):
        made = [[min(150, int(1.3 ** self.rng.uniform(0, 20))) for _ in range(self.rng.randrange(2, 40))] for _ in range(self.rng.randrange(1, 6))]
        body = "".join(json.dumps({"tokens": tokens}) + "\n" for tokens in made).encode()
        smoothed, self.smoothed = self.smoothed, None
        self.soak.count("call ngrams")
        try:
            answer = self.link.call("POST", "/ngrams?order=%d&db=%s" % (ORDER, self.db), body, NDJSON)
        except Refused:
            self.smoothed = smoothed
            raise
        except Doubt as doubt:
            self.doubt = (made, doubt.sticky)
            raise
        if answer.status != 200 or answer.json()["tokens"] != sum(map(len, made)):
            self.wrong("an unexpected answer", "ngrams: %d %r" % (answer.status, answer.body[:200]))
        self.soak.count("acknowledged")
        self.documents += made
        self.exists = True

    def smooth(self):
        self.smoothed = None
        self.soak.count("call smooth")
        answer = self.link.call("POST", "/reduce/smooth/cnt:?orders=1-%d&topk=%d&db=%s" % (ORDER, TOPK, self.db))
        if answer.status != 200:
            self.wrong("an unexpected answer", "smooth: %d %r" % (answer.status, answer.body[:200]))
            return
        lines = [json.loads(line) for line in answer.body.split(b"\n") if line]
        if lines and "error" in lines[-1]:
            self.soak.refused(lines[-1]["error"].get("status", 0), lines[-1]["error"].get("code"), "smooth: %s" % lines[-1], time.monotonic())
            return
        answer.entries()
        self.smoothed = len(self.documents)

    def ask(self):
        self.soak.count("call predict")
        tokens = self.rng.choice(self.documents)[:self.rng.randrange(1, 5)]
        answer = self.link.call("POST", "/predict?db=" + self.db, json.dumps({"tokens": tokens, "k": 5}).encode(), "application/json")
        if answer.status != 200:  # before the first smoothing it may say that there is nothing to ask
            if self.smoothed is not None:
                self.wrong("an unexpected answer", "predict: %d %r" % (answer.status, answer.body[:200]))
        elif self.smoothed is not None and not answer.json()["candidates"]:
            self.wrong("a wrong prediction", "%s: %r" % (tokens, answer.body[:200]))

    def drop(self):
        self.soak.count("call drop")
        try:
            answer = self.link.call("DELETE", "/databases/%s?confirm=%s" % (self.db, self.db))
        except Doubt as doubt:
            self.doubt = ("dropped", doubt.sticky)
            raise
        if answer.status == 204:
            self.fresh()
        elif answer.status != 409:
            self.wrong("an unexpected answer", "drop: %d %r" % (answer.status, answer.body[:200]))

    # ---- the checker's ----

    @staticmethod
    def expected(documents, smoothed):
        model = reference.Model(ORDER, TOPK)
        for document in documents:
            model.add(document)
        if smoothed:
            model.smooth()
        return {n: v for n, v in model.pairs().items() if smoothed or n[:4] in (b"cnt:", b"ctx:") or n[:5] == b"ctxv:"}

    def verify(self, names, restarted):
        """names: all databases. Looks before anything is decided."""
        seen = self.soak.look(self.db) if self.db in names else None
        worlds = {"known": (self.documents, self.exists)}
        if self.doubt is not None:
            what, sticky = self.doubt
            worlds["doubtful"] = ([], False) if what == "dropped" else (self.documents + what, True)
        why = ""
        for world, (documents, exists) in worlds.items():
            why = self.differs(seen, documents, exists, self.smoothed is not None and world == "known")
            if not why:
                if self.doubt is not None and (world == "doubtful" or restarted or not self.doubt[1]):
                    self.soak.count("in doubt: done" if world == "doubtful" else "in doubt: not done")
                    dropped = self.doubt[0] == "dropped" and world == "doubtful"
                    self.doubt = None
                    if dropped:
                        self.fresh()
                    else:
                        self.documents, self.exists = list(documents), seen is not None
                return
        self.wrong("wrong statistics", "%d documents%s: %s" % (len(self.documents), ", a call in doubt" if self.doubt else "", why))
        self.soak.to_drop.append(self.db)
        self.fresh()

    def differs(self, seen, documents, exists, smoothed):
        if seen is None:
            return "the database is not there" if exists else ""
        if not documents:
            return "%d pairs in a database that was dropped" % len(seen.names) if seen.names else ""
        want = self.expected(documents, smoothed)
        kinds = (b"cnt:", b"ctx:") if not smoothed else (b"cnt:", b"ctx:", b"prob:", b"topk:", b"cont:")
        have = {n: seen.values.get(k) for n, k in seen.names.items() if n.startswith(kinds) or n.startswith(b"ctxv:")}
        if not smoothed:
            want = {n: v for n, v in want.items() if n.startswith(kinds) or n.startswith(b"ctxv:")}
        if want == have:
            return ""
        odd = [n for n in want.keys() | have.keys() if want.get(n) != have.get(n)]
        return "%d of %d pairs differ, for example %r" % (len(odd), len(want), sorted(odd)[:3])


class TenantWorker(Worker):
    """Databases that are made, written, checkpointed and dropped, one call at a time."""

    def __init__(self, soak, tag):
        super().__init__(soak, tag)
        self.held = {}      # name: {pair: value}
        self.doubt = None   # (kind, name, pair, value, sticky)
        self.number = 0
        soak.tenants.append(self)

    def blocked(self):
        return self.doubt is not None

    def guarded(self, kind, name, send, pair=None, value=None):
        try:
            return send()
        except Doubt as doubt:
            self.doubt = (kind, name, pair, value, doubt.sticky)
            raise

    def step(self):
        time.sleep(self.rng.uniform(0.05, 0.3))
        dice = self.rng.random()
        if dice < 0.06 and "foreign" not in self.soak.args.without:
            self.foreign()
        elif len(self.held) < 3 and dice < 0.35:
            self.create()
        elif self.held and dice < 0.55:
            self.drop(self.rng.choice(list(self.held)))
        elif self.held:
            self.put(self.rng.choice(list(self.held)))

    def create(self):
        self.number += 1
        name = "%s-%d" % (self.tag, self.number)
        self.soak.count("call create")
        if self.rng.random() < 0.5:
            body = json.dumps({"shards": self.rng.randrange(1, 5)}).encode()
            try:
                answer = self.guarded("create", name, lambda: self.link.call("PUT", "/databases/" + name, body, "application/json"))
            except Refused as refusal:
                if refusal.status:
                    self.doubt = ("create", name, None, None, False)  # made, empty, and then not opened for want of descriptors
                raise
            if answer.status != 201:
                self.wrong("an unexpected answer", "create: %d %r" % (answer.status, answer.body[:200]))
            self.held[name] = {}
        else:
            self.put(name)

    def put(self, name):
        """A write makes a database that is not there."""
        pair, value = b"n%d" % self.rng.randrange(20), b"%d of %s" % (self.rng.getrandbits(60), name.encode())
        target = "/pairs/%s?db=%s" % (hexed(pair), name)
        try:
            answer = self.guarded("put", name, lambda: self.link.call("PUT", target, value, OCTETS), pair, value)
        except Refused as refusal:
            if name not in self.held and refusal.status:
                self.doubt = ("create", name, None, None, False)  # it may be there, empty
            raise
        if answer.status not in (200, 201):
            self.wrong("an unexpected answer", "put: %d %r" % (answer.status, answer.body[:200]))
            return
        self.soak.count("acknowledged")
        self.held.setdefault(name, {})[pair] = value

    def drop(self, name):
        self.soak.count("call drop")
        answer = self.guarded("drop", name, lambda: self.link.call("DELETE", "/databases/%s?confirm=%s" % (name, name)))
        if answer.status == 204:
            del self.held[name]
        elif answer.status != 409:
            self.wrong("an unexpected answer", "drop: %d %r" % (answer.status, answer.body[:200]))

    def foreign(self):
        """Folders of the same place that are no databases must stay what they are; soak.py looks at them."""
        name = self.rng.choice(("foreign", "elsewhere"))
        try:
            if self.rng.random() < 0.5:
                answer = self.link.call("PUT", "/pairs/x00?db=" + name, b"x", OCTETS)
            else:
                answer = self.link.call("PUT", "/databases/" + name)
        except (Refused, Doubt):
            return
        if answer.status < 400:
            self.wrong("a foreign folder became a database", "%s: %d" % (name, answer.status))

    # ---- the checker's ----

    def verify(self, names, restarted):
        """names: all databases. Looks before anything is decided."""
        seen = {name: self.soak.contents(name) for name in names if name.startswith(self.tag + "-")}
        look = seen.get
        if self.doubt is not None and (restarted or not self.doubt[4]):
            self.settle(names, look)
        for name in [n for n in names if n.startswith(self.tag + "-") and n not in self.held]:
            if self.doubt is None or self.doubt[1] != name:
                self.wrong("a database that was dropped is there", name)
                self.soak.to_drop.append(name)
        for name in list(self.held):
            if self.doubt is not None and self.doubt[1] == name:
                continue
            if name not in names:
                self.wrong("a lost database", name)
                del self.held[name]
            elif look(name) != self.held[name]:
                self.wrong("a lost pair", "database %s: %r, not %r" % (name, look(name), self.held[name]))
                self.held[name] = look(name)

    def settle(self, names, look):
        kind, name, pair, value, _ = self.doubt
        self.doubt = None
        self.soak.count("in doubt: done" if (name in names) != (kind == "drop") else "in doubt: not done")
        if name not in names:
            if kind == "drop":
                self.held.pop(name, None)
            return  # a create or first write that did not happen; others are seen as lost by verify
        if kind != "put":
            self.held.setdefault(name, {})
            return
        now = look(name)
        with_it = dict(self.held.get(name, {}), **{})
        with_it[pair] = value
        self.held[name] = with_it if now == with_it else self.held.get(name, {})


class BackupWorker(Worker):
    """Backups of databases in use; what nobody touched meanwhile must be in them exactly."""

    def step(self):
        db = self.rng.choice(("default", "second"))
        folder = os.path.join(self.soak.work, "backups")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        before = [(c, dict(c.names), dict(c.values)) for c in self.soak.claims if c.db == db]
        began, crashes, port = time.monotonic(), self.soak.crashes, self.soak.server.port
        if not port:
            raise Refused(0, "down")
        done = self.soak.tool("backup", folder, "--database", db, "--connect", "http://127.0.0.1:%d" % port)
        self.soak.count("backups" if done.returncode == 0 else "backups that failed")
        if done.returncode == 0:
            made = [n for n in os.listdir(folder) if n.endswith(".cheetah")]
            if len(made) != 1:
                self.wrong("a bad backup", "files: %s" % os.listdir(folder))
            else:
                self.verify(os.path.join(folder, made[0]), db, before)
        elif not self.soak.over and (time.sleep(1) or crashes == self.soak.crashes) and self.soak.server.port == port and not self.soak.rough(began):
            self.wrong("a backup failed", done.stderr[-300:])

    def run(self):
        """Outside the gate, which a backup would hold for seconds."""
        while not self.soak.over:
            time.sleep(self.rng.uniform(1, 5))
            if not self.soak.server.port:
                continue
            try:
                self.step()
            except (Refused, Doubt):
                pass
            except Exception as error:
                self.wrong("the soak itself", "backup: %r" % error)
                self.soak.trace()

    def untouched(self, before):
        """What each claim had at the start of the backup and still has, once every call under way then has ended."""
        marks = {w: w.steps for w in self.soak.workers if hasattr(w, "claim")}
        end = time.monotonic() + 30
        while any(w.steps == n and not w.claim.doubts for w, n in marks.items()):
            if time.monotonic() > end or self.soak.over:
                return None
            time.sleep(0.01)
        names, values = {}, {}
        for claim, old_names, old_values in before:
            doubts = list(claim.doubts)
            odd_names = {n for g in doubts for n in g.names}
            odd_keys = {k for g in doubts for k in g.values}
            now_names, now_values = dict(claim.names), dict(claim.values)
            names.update({n: k for n, k in old_names.items() if now_names.get(n) == k and n not in odd_names})
            values.update({k: v for k, v in old_values.items() if now_values.get(k) is v and k not in odd_keys})
        return names, values

    def verify(self, path, db, before):
        sure = self.untouched(before) if self.rng.random() < 0.35 else None
        done = self.soak.tool("restore", path, "--verify")
        if done.returncode != 0:
            self.wrong("a bad backup", done.stderr[-300:])
            return
        if sure is None:
            return
        names, values = copy.copy(sure[0]), copy.copy(sure[1])
        place = os.path.join(self.soak.work, "restored")
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place)
        done = self.soak.tool("restore", path, "--data", place, "--database", "default")
        if done.returncode != 0:
            self.wrong("a bad backup", "restore: %d %s" % (done.returncode, done.stderr[-300:]))
            return
        server = self.soak.new_server(place, "restored")
        if server.start() is not None:
            self.wrong("a bad backup", "the restored database does not start")
            return
        try:
            seen = self.soak.look("default", port=server.port)
        finally:
            server.stop()
        assert isinstance(seen, Seen)
        lost = [n for n, k in names.items() if seen.names.get(n) != k] + [k for k, v in values.items() if seen.values.get(k) != v.data()]
        if lost:
            self.wrong("a bad backup", "%d of %d untouched names and values differ: %r" % (len(lost), len(names) + len(values), lost[:3]))
        self.soak.count("backups restored and compared")
        self.soak.count("compared in backups", len(names) + len(values))
        shutil.rmtree(place, ignore_errors=True)


