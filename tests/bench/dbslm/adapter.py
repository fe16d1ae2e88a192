#!/usr/bin/python3
"""adapter: what the hot path costs DB-SLM when its own level 1 stays (cheetah_http.dbslm.CheetahHotPathAdapter): the time of a training
with the adapter over that of one in memory alone. On a quiet machine.

    DBSLM_SRC=... DBSLM_NEW_SRC=... CHEETAH_DB=build/release/cheetah-db tests/bench/dbslm/adapter.py TEXT [CHARACTERS]

SQLite in memory in both; medians of three interleaved rounds. Exit code 1: over 1.3 times.
"""
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile

from bench import CLIENT, serve

MOST, ROUNDS = 1.3, 3
PROGRAM = """
import json, sys, time
from db_slm import DBSLMEngine, pipeline
if len(sys.argv) > 3:
    from cheetah_http import Client
    from cheetah_http.dbslm import CheetahHotPathAdapter
    adapter = CheetahHotPathAdapter(Client(sys.argv[3], database=sys.argv[4]))
    pipeline.build_cheetah_adapter = lambda settings: adapter
text = open(sys.argv[1], encoding="utf-8").read()[: int(sys.argv[2])]
engine = DBSLMEngine(":memory:", ngram_order=3)
begin = time.perf_counter()
tokens = engine.train_from_text(text)
if len(sys.argv) > 3:
    adapter.flush()
print(json.dumps({"tokens": tokens, "seconds": time.perf_counter() - begin}))
"""


def run(source, text, characters, *where):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DBSLM_", "CHEETAH_", "PYTHON"))}
    env.update(PYTHONPATH=os.pathsep.join([CLIENT, os.path.join(source, "src")]), PYTHONHASHSEED="0", DBSLM_BACKEND="sqlite")
    done = subprocess.run([sys.executable, "-c", PROGRAM, text, str(characters), *where], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    text, characters, missed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50_000, False
    print("| | tokens | in memory | with the adapter | ratio | at most |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        server, url = serve(folder)
        try:
            for name in ("DBSLM_SRC", "DBSLM_NEW_SRC"):
                if not os.environ.get(name):
                    print("| %s is not set: left out | | | | | |" % name)
                    continue
                alone, ours = [], []
                for i in range(ROUNDS):
                    alone.append(run(os.environ[name], text, characters))
                    ours.append(run(os.environ[name], text, characters, url, "%s-%d" % (name, i)))
                ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(alone, ours))
                missed |= ratio > MOST
                print("| %s | %d | %.2f s | %.2f s | %.2f x | %.1f x%s |" % (
                    name, ours[0]["tokens"], statistics.median(a["seconds"] for a in alone), statistics.median(b["seconds"] for b in ours), ratio, MOST,
                    ": **missed**" if ratio > MOST else ""))  # fmt: skip
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
