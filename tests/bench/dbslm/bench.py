#!/usr/bin/python3
"""bench: DB-SLM with level 1 in the engine against DB-SLM on SQLite, both unchanged. On a quiet machine.

    DBSLM_SRC=... DBSLM_NEW_SRC=... CHEETAH_DB=build/release/cheetah-db tests/bench/dbslm/bench.py TEXT [CHARACTERS]

DBSLM_SRC is a checkout of DB-SLM 0b81371, DBSLM_NEW_SRC of the newest. SQLite is in a file, as DB-SLM's programs have it, and the engine
syncs (--durability sync): that is compared with the targets. The same with SQLite in memory, which nobody gets back, is shown beside it.
For each: seconds of counting and smoothing the text (store.ingest and smoother.rebuild_all), of the whole training
(train_from_text), of 500 single log probabilities, and the ratios. Exit code 1: a ratio misses its target.
"""
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
CLIENT = os.path.join(ROOT, "clients", "python", "src")
TARGETS = {"DBSLM_SRC": (40, 25), "DBSLM_NEW_SRC": (15, 8)}  # counting and smoothing; the whole training

PROGRAM = """
import json, sys, time
from db_slm import DBSLMEngine
text = open(sys.argv[1], encoding="utf-8").read()[: int(sys.argv[2])]
engine = DBSLMEngine(sys.argv[3], ngram_order=3)
spent = [0.0]

def timed(call):
    def run(*a, **k):
        begin = time.perf_counter()
        try:
            return call(*a, **k)
        finally:
            spent[0] += time.perf_counter() - begin
    return run

engine.store.ingest, engine.smoother.rebuild_all = timed(engine.store.ingest), timed(engine.smoother.rebuild_all)
begin = time.perf_counter()
tokens = engine.train_from_text(text)
whole = time.perf_counter() - begin
ids = engine.tokenizer.encode(" ".join(text.split()[:500]), add_special_tokens=False)[:500]
begin = time.perf_counter()
for i in range(1, len(ids)):
    engine.store.token_log_probability(ids[max(0, i - 2) : i], ids[i])
print(json.dumps({"tokens": tokens, "level1": spent[0], "training": whole, "questions": time.perf_counter() - begin,
                  "store": type(engine.store).__module__}))
"""


def run(source, text, characters, url, database=":memory:"):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DBSLM_", "CHEETAH_", "PYTHON"))}
    env.update(PYTHONPATH=os.pathsep.join([CLIENT, os.path.join(source, "src")]), PYTHONHASHSEED="0", DBSLM_BACKEND="sqlite")
    if url is not None:
        site = os.path.join(CLIENT, "cheetah_http", "dbslm", "site")
        env.update(DBSLM_BACKEND="cheetah-db", CHEETAH_DBSLM=url, PYTHONPATH=site + os.pathsep + env["PYTHONPATH"])
    done = subprocess.run([sys.executable, "-c", PROGRAM, text, str(characters), database], env=env, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if found["store"].startswith("cheetah_http") != (url is not None):
        sys.exit("bench: the wrong store: " + found["store"])
    return found


def serve(folder):
    """(process, url) of a server of its own."""
    path = os.path.join(folder, "port")
    server = subprocess.Popen([os.environ["CHEETAH_DB"], "serve", "--data", os.path.join(folder, "data"), "--listen", "127.0.0.1:0",
                               "--port-file", path, "--line-listen", "none", "--access-log", "false"], stderr=subprocess.DEVNULL)  # fmt: skip
    while not (os.path.exists(path) and re.fullmatch(r"\d+\n", open(path, encoding="ascii").read())):
        time.sleep(0.05)
    url = "http://127.0.0.1:" + open(path, encoding="ascii").read().strip()
    while True:
        try:
            urllib.request.urlopen(url + "/readyz").close()
            return server, url
        except OSError:
            time.sleep(0.05)


def main():
    text, characters, missed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200_000, False
    print("| | tokens | | SQLite | engine | ratio | wanted |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        server, url = serve(folder)
        try:
            for name, targets in TARGETS.items():
                if not os.environ.get(name):
                    print("| %s is not set: left out | | | | | | |" % name)
                    continue
                for place in ("file", "memory"):
                    ours, theirs = (run(os.environ[name], text, characters, where, ":memory:" if place == "memory" else
                                        os.path.join(folder, "%s-%s.db" % (name, where is None))) for where in (url, None))  # fmt: skip
                    for what, wanted in (("level1", targets[0]), ("training", targets[1]), ("questions", 0.5)):
                        ratio = theirs[what] / ours[what]
                        bad = ratio < wanted and place == "file"
                        missed |= bad
                        print("| %s, %s | %d | %s | %.3f s | %.3f s | %.1f x | %s |" % (name, place, ours["tokens"], what, theirs[what], ours[what], ratio,
                              "" if place == "memory" else "%s x%s" % (wanted, ": **missed**" if bad else "")))  # fmt: skip
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
