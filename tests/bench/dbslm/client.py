#!/usr/bin/python3
"""client: today's Python client of DB-SLM, unmodified, against its own engine and against our line port, which it tells DURABILITY interval.
One command at a time, it waits for each answer. On a quiet machine.

    CHEETAH_BINDER=.../cheetah/binders/python CHEETAH_SERVER=.../cheetah/cheetah-server CHEETAH_DB=build/release/cheetah-db \\
        tests/bench/dbslm/client.py [PAIRS]

CHEETAH_BINDER is a checkout of the client, CHEETAH_SERVER the engine built from it (`go build -o cheetah-server ./src`). Medians of three
interleaved rounds, of the time of each step and of all. Exit code 1: less than twice as fast in all.
"""
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

WANTED, ROUNDS = 2.0, 3
PROGRAM = """
import json, random, sys, time
from cheetah_db import CheetahClient, kv
port, pairs = int(sys.argv[1]), int(sys.argv[2])
rng, spent = random.Random(1), {}
names = ["ctx:%016x" % rng.getrandbits(64) for _ in range(pairs)]
value = "x" * 64

def step(name, call):
    begin = time.perf_counter()
    call()
    spent[name] = time.perf_counter() - begin

with CheetahClient("127.0.0.1", port, database="bench%d" % random.SystemRandom().getrandbits(30)) as conn:
    step("put_value", lambda: [kv.put_value(conn, name, value) for name in names])
    step("put_value, again", lambda: [kv.put_value(conn, name, value + "y", upsert=True) for name in names])
    step("get_value", lambda: [kv.get_value(conn, name) for name in names])
    batch = [("b" + name, value) for name in names * 5]
    batch = [("%s%d" % (name, i), text) for i, (name, text) in enumerate(batch)]
    step("put_values_batch of 500", lambda: [kv.put_values_batch(conn, batch[i : i + 500]) for i in range(0, len(batch), 500)])
    step("scan_all", lambda: list(kv.scan_all(conn, "bctx:")))
    assert kv.get_value(conn, names[0]) == value + "y"
print(json.dumps(spent))
"""

TRAINING = """
import json, sys, time
from db_slm import DBSLMEngine
from db_slm.settings import load_settings
text = open(sys.argv[1], encoding="utf-8").read()[: int(sys.argv[2])]
engine = DBSLMEngine(sys.argv[3], ngram_order=3)
assert type(engine.hot_path).__module__.endswith("adapters.cheetah"), type(engine.hot_path)
begin = time.perf_counter()
tokens = engine.train_from_text(text)
print(json.dumps({"tokens": tokens, "training": time.perf_counter() - begin}))
"""


def listening(path, process):
    """The port that a server has written to a file."""
    while not (os.path.exists(path) and re.fullmatch(r"\d+\n", open(path, encoding="ascii").read())):
        if process.poll() is not None:
            sys.exit("client: the server ended")
        time.sleep(0.05)
    return int(open(path, encoding="ascii").read())


def ours(folder):
    line = os.path.join(folder, "line")
    server = subprocess.Popen([os.environ["CHEETAH_DB"], "serve", "--data", os.path.join(folder, "data"), "--listen", "127.0.0.1:0", "--line-listen",
                               "127.0.0.1:0", "--line-port-file", line, "--access-log", "false", "--durability", "interval"], stderr=subprocess.DEVNULL)  # fmt: skip
    return server, listening(line, server)


def theirs(folder):
    """Started by the client's own helper."""
    program = ("import sys; from cheetah_db.server import start_server\n"
               "s = start_server(binary_path=sys.argv[1], data_dir=sys.argv[2], cwd=sys.argv[2], port=int(sys.argv[3]), build=False)\n"
               "print(s.port, flush=True); sys.stdin.read(); s.stop()")  # fmt: skip
    data, port = os.path.join(folder, "theirs"), free_port()
    os.mkdir(data)
    process = subprocess.Popen([sys.executable, "-c", program, os.environ["CHEETAH_SERVER"], data, str(port)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, env=environment())  # fmt: skip
    return process, int(process.stdout.readline())


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def environment():
    return {**os.environ, "PYTHONPATH": os.environ["CHEETAH_BINDER"], "PYTHONDONTWRITEBYTECODE": "1"}


def python(program, *arguments, env):
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit("client: %s" % done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def alone(port, pairs):
    return python(PROGRAM, port, pairs, env=environment())


def trained(port, text, characters, database):
    source = os.path.join(os.environ["DBSLM_NEW_SRC"], "src")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("DBSLM_", "PYTHON"))}
    env.update(PYTHONPATH=os.pathsep.join([source, os.environ["CHEETAH_BINDER"]]), PYTHONHASHSEED="0", DBSLM_BACKEND="cheetah-db",
               DBSLM_CHEETAH_HOST="127.0.0.1", DBSLM_CHEETAH_PORT=str(port), DBSLM_CHEETAH_DATABASE=database)  # fmt: skip
    return python(TRAINING, text, characters, ":memory:", env=env)


def show(rounds):
    ratio = 0.0
    for name in rounds[0][0]:
        ratio = statistics.median(a[name] / b[name] for a, b in rounds)
        print("| %s | %.3f s | %.3f s | %.2f x |" % (name, statistics.median(a[name] for a, _ in rounds), statistics.median(b[name] for _, b in rounds), ratio))
    return ratio


def main():
    text, characters, pairs = sys.argv[1], *(int(n) for n in (sys.argv[2:] + ["15000", "2000"][len(sys.argv) - 2 :]))
    steps, trainings = [], []
    with tempfile.TemporaryDirectory() as folder:
        (server, our_port), (other, their_port) = ours(folder), theirs(folder)
        try:
            for i in range(ROUNDS):
                steps.append((alone(their_port, pairs), alone(our_port, pairs)))
                trainings.append(tuple(trained(port, text, characters, "train%d" % i) for port in (their_port, our_port)))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
            other.communicate("")
    print("| | its own engine | cheetah-db | ratio |\n|---|---|---|---|")
    show(steps)
    tokens = trainings[0][0]["tokens"]
    return 0 if show([({"training of %d tokens" % tokens: a["training"]}, {"training of %d tokens" % tokens: b["training"]}) for a, b in trainings]) >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
