"""What a database costs: disk, descriptors, threads, memory; closing what is not used; what a kill left of many."""
import http.client
import json
import os
import signal
import subprocess
import threading
import time

import harness
import pytest
from harness import HANG, wait_for

MIB = 1 << 20


def descriptors(server):
    return len(os.listdir("/proc/%d/fd" % server.process.pid))


def threads(server):
    return len(os.listdir("/proc/%d/task" % server.process.pid))


def status(server, field):
    """A field of /proc/PID/status in bytes."""
    with open("/proc/%d/status" % server.process.pid, encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


def disk(server, name):
    text = subprocess.run(["du", "-sk", os.path.join(server.data, name)], check=True, capture_output=True, text=True).stdout
    return int(text.split()[0]) * 1024


def write(server, name, n=1):
    client = server.client(check=False)
    for i in range(n):
        answer = client.post("/kv?db=" + name, b"value %d" % i)
        assert answer.status == 201, answer.body
    client.close()


def test_a_new_database(launch):
    """At most 1 MiB of disk, 16 descriptors and no thread, created, after the first write and after some hundred."""
    server = launch("--access-log", "false", "--idle-close-seconds", "0")
    write(server, "default")
    write(server, "warm", 20)
    before, running = descriptors(server), threads(server)
    client = server.client(check=False)
    assert client.put("/databases/new").status == 201
    assert disk(server, "new") <= MIB
    for n in (1, 300):
        write(server, "new", n)
        if n > 1:  # until then each shard that was written to also keeps the space that its checkpoint's journal can take
            assert client.post("/databases/new/checkpoint").status == 200
        assert disk(server, "new") <= MIB
        wait_for(lambda: descriptors(server) <= before + 16, what="few descriptors, once the last connection is closed")
    # Of all databases together: one that commits, one that checkpoints. Others that had more to do at a time end when they have had nothing for a while.
    wait_for(lambda: threads(server) <= running + 2, what="few threads")
    client.close()


def test_many_open_databases(launch):
    """All of them together cost little more than one."""
    n = 60
    server = launch("--access-log", "false", "--durability", "os", "--idle-close-seconds", "0")
    write(server, "first", 5)
    space, memory, running, files = status(server, "VmData"), server.rss(), threads(server), descriptors(server)
    for i in range(n):
        write(server, "d%d" % i)
    assert server.comes_to("cheetah_databases_open", n + 2)
    wait_for(lambda: threads(server) <= running + 4, what="few threads")
    wait_for(lambda: descriptors(server) - files <= n + 16, what="descriptors: the log's, and a few that all share")
    assert status(server, "VmData") - space <= n * 16 * MIB
    assert harness.SANITIZED or server.rss() - memory <= n * 2 * MIB


def test_idle_databases_are_closed(launch):
    """One that is not used is closed without a trace, opens when it is used, and default stays open."""
    server = launch("--idle-close-seconds", "1", "--durability", "os", "--log-level", "debug", "--scrub-bytes-per-second", "0")  # it opens what is closed
    files = descriptors(server)
    for i in range(20):
        write(server, "idle%d" % i, 3)
    wait_for(lambda: server.metric("cheetah_databases_closed_total") >= 20, what="closing")
    assert server.comes_to("cheetah_databases_open", 1)
    wait_for(lambda: descriptors(server) <= files + 16, what="few descriptors")
    client = server.client(check=False)
    names = [d for d in client.get("/databases").json()["databases"]]
    assert len(names) == 21
    assert server.metric("cheetah_databases_open") == 1  # neither /metrics nor the list opens any
    for i in range(20):
        page = client.get("/kv?db=idle%d" % i)
        assert page.status == 200 and page.body.count(b'"key"') >= 3, page.body
    client.close()
    assert not [line for line in server.log() if line["level"] == "error"]


def test_open_time(launch):
    """What was closed opens in milliseconds of a processor."""
    server = launch("--access-log", "false", "--durability", "os")
    for i in range(40):
        write(server, "t%d" % i, 10)
    server.stop()
    server.restart()
    client = server.client(check=False)
    assert server.metric("cheetah_databases_open") <= 3  # default, and what the scrub looks at
    times = []
    for i in range(40):
        start = server.cpu()
        assert client.get("/kv?db=t%d" % i).status == 200
        times.append(server.cpu() - start)
    client.close()
    assert sorted(times)[20] < 0.1, times


def test_killed_under_load(launch):
    """Databases that were killed while they were written to: ready at once, each has what was acknowledged, whoever comes first."""
    n = 200 if harness.LONG else 40
    server = launch("--access-log", "false", "--idle-close-seconds", "1")
    acknowledged = [[] for _ in range(n)]
    stop = threading.Event()

    def writer(first):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)
        try:
            while not stop.is_set():
                for i in range(first, n, 4):
                    connection.request("PUT", "/pairs/n%d?db=k%d" % (len(acknowledged[i]), i), b"v%d" % len(acknowledged[i]))
                    answer = connection.getresponse()
                    body = answer.read()
                    assert answer.status == 201, body
                    acknowledged[i].append(len(acknowledged[i]))
        except (http.client.HTTPException, OSError):
            pass  # killed

    crowd = [threading.Thread(target=writer, args=(k,)) for k in range(4)]
    for one in crowd:
        one.start()
    wait_for(lambda: all(acknowledged), what="a write to each")
    server.signal(signal.SIGKILL)
    server.process.wait()
    stop.set()
    for one in crowd:
        one.join()
    server.start()
    assert server.cpu() < 10, "it has not opened them all before it was ready"
    errors = []

    def reader(first):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)
        for i in range(first, n, 4):
            for at in acknowledged[i]:
                connection.request("GET", "/pairs/n%d?db=k%d&exact=true&values=true" % (at, i))
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or json.loads(body)["value"] != harness.b64(b"v%d" % at):
                    errors.append((i, at, answer.status, body))
        connection.close()

    crowd = [threading.Thread(target=reader, args=(k,)) for k in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert not errors, errors[:3]
    wait_for(lambda: server.metric("cheetah_databases_open") <= 2, what="recovered ones are closed again")


def test_closing_and_using_at_once(launch):
    """Many databases created, written to, read, dropped, while they are closed under the clients: nothing is lost, nothing fails."""
    n, rounds = (400, 8) if harness.LONG else (48, 3)
    server = launch("--access-log", "false", "--idle-close-seconds", "1", "--durability", "interval", "--scrub-bytes-per-second", "1G")
    errors = []

    def client(first):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)

        def ask(method, target, body=None, ok=(200, 201, 204)):
            connection.request(method, target, body)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status not in ok:
                errors.append((method, target, answer.status, data))
            return data

        for r in range(rounds):
            for i in range(first, n, 4):
                ask("PUT", "/pairs/round%d?db=c%d" % (r, i), b"%d of %d" % (r, i))
                if i % 7 == 0:
                    time.sleep(0.2)
            for i in range(first, n, 4):
                for old in range(r + 1):
                    data = ask("GET", "/pairs/round%d?db=c%d&exact=true&values=true" % (old, i))
                    if harness.b64(b"%d of %d" % (old, i)).encode() not in data:
                        errors.append((i, old, data))
            time.sleep(1.5)
        for i in range(first, n, 8):  # the others are closed at the end, if not before
            ask("DELETE", "/databases/c%d?confirm=c%d" % (i, i))
        connection.close()

    crowd = [threading.Thread(target=client, args=(k,)) for k in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert not errors, errors[:3]
    wait_for(lambda: server.metric("cheetah_databases_closed_total") >= n / 2, what="closing")
    assert not [line for line in server.log() if line["level"] == "error"]


def test_few_descriptors(launch, tmp_path):
    """With as few descriptors as it starts with everything still works: page files share a dozen."""
    few, fewer = tmp_path / "few", tmp_path / "fewer"
    for path, limit in ((few, 344), (fewer, 343)):
        path.write_text('#!/bin/sh\nulimit -n %d\nexec "%s" "$@"\n' % (limit, harness.BINARY))
        path.chmod(0o755)
    server = launch("--http-threads", "2", "--max-connections", "16", "--access-log", "false", "--durability", "os", "--idle-close-seconds", "2",
                    binary=str(few))
    with pytest.raises(AssertionError, match="the limit of open files is 343, at least 344 are needed"):
        launch("--http-threads", "2", binary=str(fewer))
    client = server.client(check=False)
    for i in range(60):
        write(server, "f%d" % i, 5)
        assert client.post("/databases/f%d/checkpoint" % i).status == 200
    for i in range(60):
        assert client.get("/kv?db=f%d" % i).status == 200
    client.close()
