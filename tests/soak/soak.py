#!/usr/bin/env python3
"""soak: the load of workers.py and jobs.py on one server with two data directories, the events that disturb it, the checks.
README.md says what is checked. Started by run.sh, which gives it a mount name space.
"""
import argparse
import collections
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import link
from disk import Disk
from jobs import BackupWorker, ModelWorker, TenantWorker
from link import Doubt, Link, Refused, unb64
from state import Findings, Seen, unclaimed, written_by
from workers import HttpWorker, LineWorker, Spy

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START = 120.0  # seconds a start may take
GRACE = 15.0   # seconds after a condition has passed in which writes may still be refused
FLAGS = ("--listen", "127.0.0.1:0", "--line-listen", "127.0.0.1:0", "--access-log", "false", "--drain-seconds", "0", "--checkpoint-log-bytes", "8M",
         "--dirty-bytes", "16M", "--log-level", "info")


class Closed(Exception):
    """The database cannot be opened while there is no room: it is looked at later."""


class Gate:
    """Open while the load runs; close() returns when no worker is inside a call."""

    def __init__(self):
        self.condition, self.open_, self.inside = threading.Condition(), False, 0

    def enter(self):
        with self.condition:
            if not self.open_:
                return False
            self.inside += 1
            return True

    def leave(self):
        with self.condition:
            self.inside -= 1
            self.condition.notify_all()

    def open(self):
        with self.condition:
            self.open_ = True

    def close(self, seconds):
        with self.condition:
            self.open_ = False
            return self.condition.wait_for(lambda: self.inside == 0, seconds)


class Server:
    def __init__(self, soak, data, name):
        self.soak, self.name, self.data = soak, name, data
        self.port = self.line_port = 0
        self.log = os.path.join(soak.work, name + ".log")
        self.ports = [os.path.join(soak.work, name + suffix) for suffix in (".port", ".line")]
        self.process, self.durability = None, "sync"

    def start(self):
        """None when it is ready, else its exit code."""
        self.port = self.line_port = 0
        for path in self.ports:
            if os.path.exists(path):
                os.unlink(path)
        command = [self.soak.binary, "serve", "--data", self.data, *FLAGS, "--port-file", self.ports[0], "--line-port-file", self.ports[1],
                   "--durability", self.durability]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.soak.env, cwd=self.soak.work)
        end = time.monotonic() + START
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return self.process.returncode
            ports = [self.read(path) for path in self.ports]
            if all(ports) and self.ready(ports[0]):
                self.port, self.line_port = ports
                return None
            time.sleep(0.01)
        self.soak.findings.add("a start takes too long", "over %d s" % START)
        self.kill()
        return -9

    @staticmethod
    def read(path):
        try:
            with open(path, encoding="ascii") as file:
                text = file.read()
        except FileNotFoundError:
            return 0
        return int(text) if text.endswith("\n") else 0

    def ready(self, port):
        probe = link.http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            probe.request("GET", "/readyz")
            return probe.getresponse().status == 200
        except (OSError, link.http.client.HTTPException):
            return False
        finally:
            probe.close()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.port = self.line_port = 0

    def stop(self, seconds=120):
        """SIGTERM; the exit code."""
        if not self.alive():
            return self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.soak.findings.add("a stop takes too long", "over %d s" % seconds)
            self.kill()
            code = -9
        self.port = self.line_port = 0
        return code

    def tail(self, lines=6):
        with open(self.log, "rb") as file:
            file.seek(max(0, os.path.getsize(self.log) - 4000))
            return b"\n".join(file.read().splitlines()[-lines:]).decode("utf-8", "replace")


class Soak:
    def __init__(self, args):
        self.args, self.seed, self.binary = args, args.seed, args.binary
        self.rng = random.Random(args.seed)
        self.work = tempfile.mkdtemp(prefix="cht_soak.")
        self.began = time.monotonic()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
        self.findings = Findings(self.say)
        self.figures, self.counts_lock = collections.Counter(), threading.Lock()
        self.gate, self.over, self.crashes = Gate(), False, 0
        self.claims, self.models, self.tenants, self.workers, self.to_drop = [], [], [], [], []
        self.conditions, self.passed_at, self.deletes = set(), {}, [0, 0]
        self.unseen = set()  # databases and workers that nobody looked at since the start
        self.keys = {}  # database: a bit a key that was given out
        kind = args.disk if os.environ.get("CHT_SOAK_MOUNTS") else "plain"
        self.disks = [Disk(self.work, name, kind, args.disk != "auto") for name in "ab"]
        self.outside = os.path.join(self.work, "outside")
        self.server = Server(self, ",".join(d.data for d in self.disks), "server")
        self.link = Link(self, "soak")

    # ---- what the workers use ----

    def say(self, text):
        print("[%6.1f] %s" % (time.monotonic() - self.began, text), flush=True)

    def trace(self):
        print(traceback.format_exc(), flush=True)

    def count(self, what, n=1):
        with self.counts_lock:
            self.figures[what] += n

    def given(self, db, key):
        """Notes that a key was given out; False where it had been already."""
        with self.counts_lock:
            bits = self.keys.setdefault(db, bytearray())
            if key // 8 >= len(bits):
                bits.extend(bytes(key // 8 + 4096 - len(bits)))
            fresh = not bits[key // 8] >> key % 8 & 1
            bits[key // 8] |= 1 << key % 8
            return fresh

    def rough(self, since):
        """Was there, at or after that moment, a condition in which calls may be refused?"""
        return bool(self.conditions) or any(at + GRACE > since for at in self.passed_at.values())

    def refused(self, status, code, what, began):
        self.count("refused: %d %s" % (status, code))
        if status == 500 or code in ("io_error", "read_only", "outcome_unknown", "corrupt_value"):
            self.findings.add("%s" % code, what)
        elif code in ("draining", "starting", "closed", "down", "database_busy"):
            return
        elif not self.rough(began):
            self.findings.add("refused without a reason", "%d %s: %s" % (status, code, what))

    def deleted(self, ok):
        with self.counts_lock:
            self.deletes[0 if ok else 1] += 1

    def tool(self, *args):
        return subprocess.run([self.binary, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env,
                              text=True, errors="replace")

    def new_server(self, data, name):
        return Server(self, data, name)

    # ---- looking ----

    def ask(self, target, port=None):
        connection = link.http.client.HTTPConnection("127.0.0.1", port or self.server.port, timeout=link.PATIENCE)
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def look(self, db, port=None):
        """All of a database; None if it is not there."""
        parts = []
        for target in ("/pairs/*?db=" + db, "/kv?db=" + db):
            status, body = self.ask(target, port)
            if status == 404:
                return None
            if status in (503, 507) and self.conditions:
                raise Closed("%s: %d" % (target, status))
            lines = [json.loads(line) for line in body.split(b"\n") if line]
            if status != 200 or not lines or "end" not in lines[-1]:
                raise Doubt("%s: %d %r" % (target, status, body[-300:]))
            parts.append(lines[:-1])
        names = {unb64(line["pair"]): line["key"] for line in parts[0]}
        values = {line["key"]: unb64(line["value"]) for line in parts[1]}
        if len(names) != len(parts[0]) or len(values) != len(parts[1]):
            self.findings.add("a wrong scan", "%s: something comes twice" % db)
        return Seen(names, values)

    def verify(self, restarted):
        """With nothing under way: what became of the doubtful; then all that is there against all that is known."""
        if not self.gate.close(link.PATIENCE + 30):
            self.findings.add("a worker hangs", "%d calls" % self.gate.inside)
        try:
            self.verify_all(restarted)
        except (OSError, link.http.client.HTTPException, Doubt, ValueError) as error:
            self.findings.add("looking failed", "%r; the server %s: %s" % (error, "runs" if self.server.alive() else "is gone", self.server.tail(3)))
        self.gate.open()

    def verify_all(self, restarted):
        durable = self.server.durability == "sync"
        status, body = self.ask("/databases")
        databases = json.loads(body)["databases"]
        if restarted:
            self.unseen = {"default", "second"} | {w.name for w in self.models + self.tenants}
        for db in ("default", "second"):
            try:
                seen, claims = self.look(db), [c for c in self.claims if c.db == db]
            except Closed:
                self.count("databases not opened on a full disk")
                continue
            fresh = db in self.unseen
            self.unseen.discard(db)
            if seen is None:
                self.findings.add("a lost database", db)
                seen = Seen({}, {})
            for claim in claims:
                claim.settle(seen, fresh, durable, self.findings, self.count)
                claim.compare(seen, self.findings)
            self.strays(db, seen, claims)
            self.count("names compared", len(seen.names))
            self.count("values compared", len(seen.values))
        for worker in self.models + self.tenants:
            try:
                worker.verify(databases, worker.name in self.unseen)
                self.unseen.discard(worker.name)
            except Closed:
                self.count("databases not opened on a full disk")
        self.look_outside()
        if restarted:
            self.look_for_leftovers(databases)
        for name in self.to_drop:
            self.link.call("DELETE", "/databases/%s?confirm=%s" % (name, name))
        self.to_drop.clear()
        self.count("verifications")

    def contents(self, db):
        seen = self.look(db)
        return {n: seen.values.get(k) for n, k in seen.names.items()} if seen else None

    def strays(self, db, seen, claims):
        prefixes = tuple(c.prefix for c in claims)
        for name in seen.names:
            if not name.startswith(prefixes):
                self.findings.add("a pair of nobody", "%s: %r" % (db, name[:60]))
        for key, data in unclaimed(seen, claims).items():
            who = written_by(data)
            ours = [c for c in claims if who and c.tag == who[0]]
            kind = "a refused value is there" if ours and who[1] in ours[0].refused else "a value of nobody"
            self.findings.add(kind, "%s: key %d: %r" % (db, key, data[:40]))
            if not self.args.gentle:  # told once
                self.ask_delete(db, key)

    def ask_delete(self, db, key):
        try:
            self.link.call("DELETE", "/kv/%d?db=%s" % (key, db))
        except (Refused, Doubt):
            pass

    def look_outside(self):
        for path in (os.path.join(self.disks[0].data, "foreign", "precious"), os.path.join(self.outside, "precious")):
            try:
                with open(path, "rb") as file:
                    if file.read() == b"precious":
                        continue
            except OSError:
                pass
            self.findings.add("foreign data destroyed", path)
            self.plant()

    def plant(self):
        for folder in (os.path.join(self.disks[0].data, "foreign"), self.outside):
            if os.path.isfile(folder):
                os.unlink(folder)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, "precious"), "wb") as file:
                file.write(b"precious")
        there = os.path.join(self.disks[1].data, "elsewhere")
        if not os.path.lexists(there):
            os.symlink(self.outside, there)

    def look_for_leftovers(self, databases):
        for disk in self.disks:
            for entry in os.scandir(disk.data):
                if entry.is_dir(follow_symlinks=False) and entry.name not in databases and entry.name not in ("foreign", "lost+found"):
                    self.findings.add("a folder of no database is left", "%s: %s" % (entry.path, os.listdir(entry.path)[:5]))
                    shutil.rmtree(entry.path)

    # ---- events ----

    def check_offline(self):
        done = self.tool("check", *[d.data for d in self.disks])
        self.count("offline checks")
        if done.returncode != 0:
            self.findings.add("check", "exit %d: %s %s" % (done.returncode, done.stdout[-600:], done.stderr[-300:]))

    def up(self, may_be_refused=False):
        """Starts; True when it is ready."""
        self.server.durability = self.rng.choice(("sync", "sync", "sync", "interval", "os"))
        code = self.server.start()
        if code is None:
            self.count("starts")
            return True
        if may_be_refused and code == 1:
            self.count("starts refused on a full disk")
        else:
            self.findings.add("a start failed", "exit %s: %s" % (code, self.server.tail()))
        return False

    def down(self):
        """Kills or stops the server under load."""
        self.crashes += 1
        if not self.server.alive():
            self.findings.add("the server ended by itself", "%s: %s" % (self.server.process.returncode, self.server.tail()))
        elif self.rng.random() < 0.7:
            self.server.kill()
            self.count("SIGKILL")
        else:
            began = time.monotonic()
            code = self.server.stop()
            self.count("SIGTERM")
            if code != 0 and not (code == 1 and self.rough(began)):
                self.findings.add("a stop failed", "exit %d: %s" % (code, self.server.tail()))
        self.server.port = self.server.line_port = 0

    def begin(self, condition):
        self.conditions.add(condition)

    def passed(self, condition):
        self.conditions.discard(condition)
        self.passed_at[condition] = time.monotonic()

    def cycle(self):
        self.down()
        if self.rng.random() < 0.35:
            self.gate.close(link.PATIENCE + 30)
            self.check_offline()
        if not self.up():
            self.recover()
        self.verify(True)

    def recover(self):
        """A start that failed without a reason: once more, then the soak is over."""
        if not self.up():
            raise SystemExit("soak: the server does not start any more")

    def full_disk(self):
        disks = self.rng.choice(([self.disks[0]], [self.disks[1]], self.disks))
        self.begin("full")
        self.deletes = [0, 0]
        leave = self.rng.choice((0, 0, 64 << 10, 1 << 20, 4 << 20))
        if not all(d.fill(leave) for d in disks):
            self.passed("full")
            return
        self.count("full-disk episodes")
        end = time.monotonic() + self.rng.uniform(2, 8)
        restarted = False
        while time.monotonic() < end:
            time.sleep(self.rng.uniform(0.2, 1.5))
            for disk in disks:
                disk.fill(0)
            self.revive(disks)
            if self.rng.random() < 0.2:
                self.down()
                self.count("crashes on a full disk")
                if not self.up(may_be_refused=True):
                    break
                restarted = True
                self.verify(True)
            elif self.doubtful():
                self.verify(False)
        if self.deletes[1] >= 20 and self.deletes[0] == 0:
            self.findings.add("nothing can be deleted on a full disk", "%d refused%s" % (self.deletes[1], ", after a crash on it" if restarted else ""))
        for disk in disks:
            disk.empty()
        self.passed("full")
        if not self.server.alive():
            if not self.up():
                self.recover()
            self.verify(True)
        else:
            self.writable_again("a full disk")
            self.verify(False)

    def revive(self, disks):
        """A server that ended during an episode: told, and started again."""
        if not self.server.alive():
            self.findings.add("the server ended by itself", "%s on a full disk (%s): %s" % (
                self.server.process.returncode, "".join(d.name for d in disks), self.server.tail()))
            self.crashes += 1
            self.server.port = self.server.line_port = 0
            if self.up(may_be_refused=True):
                self.verify(True)

    def writable_again(self, what):
        """Every database takes writes again soon after the condition has passed, without a restart."""
        for db in ("default", "second", self.models[0].db):
            end = time.monotonic() + GRACE - 3
            last = ""
            while True:
                try:
                    answer = self.link.call("POST", "/batch?db=" + db, b'{"op":"pair_set","pair":"YWdhaW4=","key":1}\n{"op":"pair_del","pair":"YWdhaW4="}\n',
                                            "application/x-ndjson")
                    if answer.status == 200 and answer.entries()[1]["failed"] == 0:
                        break
                    last = repr(answer.body[:200])
                except (Refused, Doubt) as error:
                    last = str(error)
                if time.monotonic() > end:
                    self.findings.add("writes are still refused", "%s: %.0f s after %s: %s" % (db, GRACE - 3, what, last))
                    self.crashes += 1
                    self.server.kill()
                    if not self.up():
                        self.recover()
                    self.verify(True)
                    return
                time.sleep(0.1)

    def few_descriptors(self):
        """RLIMIT_NOFILE falls to what is open just now, for a while."""
        pid = self.server.process.pid
        try:
            old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            now = max(int(n) for n in os.listdir("/proc/%d/fd" % pid)) + 1
            self.begin("descriptors")
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (now + self.rng.randrange(0, 4), old[1]))
        except OSError:  # it ended meanwhile, or is another's
            self.passed("descriptors")
            return
        self.count("episodes without descriptors")
        time.sleep(self.rng.uniform(1, 5))
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
        except OSError:
            pass
        self.passed("descriptors")
        if self.server.alive():
            self.writable_again("descriptors were to be had")
        self.verify_live()

    def missing_disk(self):
        """The server is down, a disk is not mounted: a start is refused and has changed nothing; then the disk is back."""
        self.down()
        self.gate.close(link.PATIENCE + 30)
        disk = self.rng.choice(self.disks)
        before = [d.picture() for d in self.disks]
        disk.take_away()
        if self.rng.random() < 0.5:  # one of it is there: not the mount point, somebody else's disk
            os.mkdir(os.path.join(disk.data, "lost+found"))
        code = self.server.start()
        if code is None:
            self.findings.add("a start without a disk", "disk %s: it is ready" % disk.name)
            self.server.stop()
        elif code not in (1, 2, 3):
            self.findings.add("a start without a disk", "disk %s: exit %s: %s" % (disk.name, code, self.server.tail()))
        made = [n for n in disk.bring_back() if n != "lost+found"]
        after = [d.picture() for d in self.disks]
        changed = [n for a, b in zip(before, after) for n in a.keys() | b.keys() if self.unlike(n, a.get(n), b.get(n))]
        if changed and code is not None:
            self.findings.add("a refused start changed the disks", "%d: %s" % (len(changed), sorted(changed)[:8]))
        self.count("files made in the place of a missing disk", len(made))
        self.count("starts without a disk")
        if not self.up():
            self.recover()
        self.verify(True)

    @staticmethod
    def unlike(name, before, after):
        if os.path.basename(name) == "LOCK" and before and after:  # it is opened to be locked
            return before[0] != after[0]
        return before != after

    def doubtful(self):
        return any(c.doubts for c in self.claims) or any(w.doubt is not None for w in self.models + self.tenants)

    def verify_live(self):
        if not self.server.alive():
            self.cycle()
            return
        self.verify(False)
        if self.doubtful():  # a call that only a restart decides
            self.cycle()

    def stopped_twice(self):
        """A second SIGTERM ends it at once."""
        self.crashes += 1
        self.server.process.send_signal(signal.SIGTERM)
        time.sleep(self.rng.uniform(0, 0.3))
        began = time.monotonic()
        code = self.server.stop(30)
        self.count("second SIGTERM")
        if code != 0:
            self.findings.add("a stop failed", "exit %d after a second SIGTERM, %.1f s: %s" % (code, time.monotonic() - began, self.server.tail()))
        if not self.up():
            self.recover()
        self.verify(True)

    # ---- the whole ----

    def workers_of(self):
        out = [HttpWorker(self, "h%d" % i, db) for i, db in enumerate(("default", "default", "second", "second"))]
        out += [LineWorker(self, "l%d" % i, db) for i, db in enumerate(("default", "second"))]
        out += [ModelWorker(self, "m0", "model"), TenantWorker(self, "t0"), Spy(self, "s0"), Spy(self, "s1"), BackupWorker(self, "b0")]
        return out

    def prepare(self):
        self.plant()
        if not self.up():
            raise SystemExit("soak: it does not start: " + self.server.tail())
        self.link.call("PUT", "/databases/second", b'{"shards":3}', "application/json")
        self.workers = self.workers_of()
        for worker in self.workers:
            worker.start()
        self.gate.open()

    def run(self, minutes):
        events = (("cycle", 40), ("full_disk", 22), ("few_descriptors", 6), ("missing_disk", 5), ("verify_live", 8), ("stopped_twice", 3))
        events = [(n, w) for n, w in events if n not in self.args.without]
        end, told = time.monotonic() + 60 * minutes, time.monotonic()
        while time.monotonic() < end and not (self.args.stop_at_first and self.findings.all):
            time.sleep(self.rng.uniform(0.5, 6))
            if not self.server.alive() or self.doubtful():
                self.verify_live()
            event = self.rng.choices([n for n, _ in events], [w for _, w in events])[0]
            if self.args.events:
                self.say("event " + event)
            getattr(self, event)()
            if time.monotonic() - told > 60:
                told = time.monotonic()
                self.say(self.line())

    def finish(self):
        """A clean stop, a check, one more start, all of it once more."""
        self.verify_live()
        self.gate.close(link.PATIENCE + 30)
        time.sleep(max(0.0, GRACE - 5 if self.rough(time.monotonic()) else 0))
        code = self.server.stop()
        if code != 0:
            self.findings.add("a stop failed", "exit %d at the end: %s" % (code, self.server.tail()))
        self.check_offline()
        if not self.up():
            self.recover()
        self.verify(True)
        self.gate.close(link.PATIENCE + 30)
        self.over = True
        if self.server.stop() != 0:
            self.findings.add("a stop failed", "at the very end: " + self.server.tail())
        self.check_offline()

    def line(self):
        f = self.figures
        calls = sum(n for k, n in f.items() if k.startswith("call ")) + f["line commands"]
        return "%d calls, %d acknowledged, %d kills, %d stops, %d full disks, %d verifications, %d checks, %.1f MB sent, %d findings" % (
            calls, f["acknowledged"], f["SIGKILL"], f["SIGTERM"] + f["second SIGTERM"], f["full-disk episodes"], f["verifications"], f["offline checks"],
            f["bytes sent"] / 1e6, len(self.findings.all))

    def report(self):
        print("\nseed %d, %.1f minutes, disks %s, program %s" % (self.seed, (time.monotonic() - self.began) / 60, " and ".join(d.kind for d in self.disks),
                                                                  self.binary))
        for name, n in sorted(self.figures.items()):
            print("  %-44s %d" % (name, n))
        print(self.line())
        for kind, n in sorted(self.findings.kinds.items()):
            print("  FINDINGS %-42s %d" % (kind, n))
        if all(d.kind == "plain" for d in self.disks):
            print("no disk was full: mounts are not allowed here")
        print("%d findings" % len(self.findings.all), flush=True)

    def keep(self):
        """What is needed to look into findings: logs, and the data while they are small."""
        where = self.args.keep or os.path.join(ROOT, "build", "soak-%d" % self.seed)
        shutil.rmtree(where, ignore_errors=True)
        os.makedirs(where)
        for name in os.listdir(self.work):
            if name.endswith(".log") or name.startswith("core"):
                shutil.copy(os.path.join(self.work, name), where)
        for disk in self.disks:
            subprocess.run(["cp", "-a", "--sparse=always", disk.data, os.path.join(where, "disk-" + disk.name)], check=False)
        print("logs and data: " + where, flush=True)

    def clean(self):
        for server in [self.server]:
            if server.alive():
                server.kill()
        for disk in self.disks:
            disk.close()
        shutil.rmtree(self.work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(prog="tests/soak/run.sh")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--binary", default=os.environ.get("CHEETAH_DB") or os.path.join(ROOT, "build", "release", "cheetah-db"))
    parser.add_argument("--disk", choices=("auto", "tmpfs", "ext4", "plain"), default="auto")
    parser.add_argument("--keep", help="where logs and data go if there are findings (default build/soak-SEED)")
    parser.add_argument("--without", action="append", default=[], help="an event that does not happen (cycle, full_disk, ...)")
    parser.add_argument("--stop-at-first", action="store_true")
    parser.add_argument("--events", action="store_true", help="say each event")
    parser.add_argument("--gentle", action="store_true", help="leave values of nobody where they are")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    if not os.access(args.binary, os.X_OK):
        raise SystemExit("soak: no program: " + args.binary)
    soak = Soak(args)
    print("seed %d, %s, disks %s" % (args.seed, args.binary, " and ".join(d.kind for d in soak.disks)), flush=True)
    code = 2
    try:
        soak.prepare()
        soak.run(args.minutes)
        soak.finish()
        code = 1 if soak.findings.all else 0
    finally:
        soak.over = True
        soak.report()
        if soak.findings.all or code == 2:
            soak.keep()
        soak.clean()
    return code


if __name__ == "__main__":
    sys.exit(main())
