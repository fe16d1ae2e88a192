"""tooling: what the tests of the tools share: servers with both ports on free numbers, the tool as a process, data to copy."""
import json
import os
import random
import subprocess
import time

from harness import BINARY, Server, b64, hexed, ndjson, unb64, wait_for  # noqa: F401

FLAGS = ("--line-listen", "127.0.0.1:0", "--access-log", "false")
MARKER = b"\0cheetah-import"


def start(*flags, **more):
    return Server(*FLAGS, *flags, **more)


def url(server):
    return "%s://127.0.0.1:%d" % (server.scheme, server.port)


def environment(env=None):
    return dict({k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}, **(env or {}))


def spawn(*args, env=None, **more):
    more = dict({"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}, **more)
    return subprocess.Popen([BINARY, *map(str, args)], env=environment(env), **more)


def tool(*args, env=None, timeout=300, check=0):
    """Runs cheetah-db; check: the exit code it must have."""
    done = subprocess.run([BINARY, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, env=environment(env),
                          timeout=timeout)
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    if check is not None:
        assert done.returncode == check, (args, done.returncode, done.stdout[-1000:], done.stderr[-1000:])
    return done


def export(server, path, *flags, check=0, **more):
    done = tool("export", path, "--connect", url(server), *flags, check=check, **more)
    return done if check else read(path)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def batches(client, operations, size=5000):
    for i in range(0, len(operations), size):
        answer = client.batch(operations[i:i + size], results="false")
        assert answer.status == 200 and answer.end["failed"] == 0, answer


def fill(client, pairs=2000, seed=1, value_bytes=300):
    """Plain data: pairs with values, some keys with several names, some deleted."""
    rng = random.Random(seed)
    names = sorted({rng.randbytes(rng.randrange(1, 24)) for _ in range(pairs)})
    batches(client, [{"op": "pair_put", "pair": b64(name), "value": b64(rng.randbytes(rng.randrange(1, value_bytes)))} for name in names])
    lines = client.get("/pairs/*").entries()
    again = rng.sample(lines, len(lines) // 10)
    batches(client, [{"op": "pair_set", "pair": b64(b"again:" + unb64(line["pair"])), "key": line["key"]} for line in again])
    gone = rng.sample(lines, len(lines) // 20)
    batches(client, [{"op": "pair_del", "pair": line["pair"], "values": True} for line in gone])
    return names


def awkward(client):
    """Whatever a copy may get wrong: names and values of every kind, shared keys, dangling ones, holes, values without a pair."""
    every = bytes(range(256))
    names = [b"\0", b"\xff", every, b"\0" * 4096, b"\xff" * 4096, every * 16, b"*", b"x", b"x00", b"a/b?c&d=e%20+", "gr\u00fc\u00df".encode(), b"\n",
             b"\r\n", b'"', b"\\", b" ", b"MDEy"]
    values = [b"\0", b"\n", every * 5, b"a", b"\xff" * 70000, random.Random(2).randbytes(3 << 20), b'{"json":1}', b"aGVsbG8="]
    batches(client, [{"op": "pair_put", "pair": b64(name), "value": b64(values[i % len(values)])} for i, name in enumerate(names)])
    alone = [client.insert(value) for value in values]
    client.map(b"shared 1", alone[0])
    client.map(b"shared 2", alone[0])
    client.map(b"shared 3", alone[0])
    client.map(b"dangling 1", 77777)
    client.map(b"dangling 2", 77777)
    assert client.delete("/kv/%d" % alone[2]).status == 204
    client.map(b"deleted", alone[2])
    holes = [client.insert(b"hole") for _ in range(50)]
    for key in holes[:40]:
        assert client.delete("/kv/%d" % key).status == 204
    assert client.put("/kv/%d" % alone[3], b"another length", headers={"Content-Type": "application/octet-stream"}).status == 200


def contents(client):
    """Everything: ({name: key}, {key: value})."""
    pairs = {unb64(line["pair"]): line["key"] for line in client.get("/pairs/*").entries()}
    values = {line["key"]: unb64(line["value"]) for line in client.get("/kv").entries()}
    return pairs, values


def summary(done):
    return json.loads(done.stdout)


def kill_as_it_goes(client, command, times, rng):
    """Starts the import, kills it a moment after its state in the database has changed, and again; how often that worked."""
    path, last, killed = "/pairs/" + hexed(MARKER) + "?exact=true&values=true", None, 0
    for _ in range(times):
        process = spawn(*command)
        while process.poll() is None:
            answer = client.get(path)
            if answer.status == 200 and answer.json()["value"] != last:
                last = answer.json()["value"]
                time.sleep(rng.uniform(0, 0.02))
                break
        process.kill()
        process.communicate()
        killed += client.get(path).status == 200
    return killed
