"""After a burst memory and disk go back to the system within a minute, without anybody asking: after a large commit, after many
streams, after the deletion of a namespace. Memory is that of the process alone (RssAnon), without what it shares with files."""
import re
import time

import harness
import pytest
from harness import Server, b64, hexed, rados, wait_for

pytestmark = pytest.mark.skipif(harness.SANITIZED, reason="a sanitizer keeps memory that was freed")
MIB = 1 << 20
STREAMS = 200 if harness.LONG else 40
PAIRS = 100000 if harness.LONG else 50000
VALUE = 1000
KEPT = 24 * MIB  # what may stay of a burst
MINUTE = 60


def anonymous_memory(server):
    with open("/proc/%d/status" % server.process.pid, encoding="ascii") as file:
        return int(re.search(r"^RssAnon:\s*(\d+) kB", file.read(), re.M).group(1)) * 1024


def file_bytes(server):
    return server.client().get("/databases/default").json()["file_bytes"]


@pytest.fixture(scope="module")
def burst():
    server = Server("--durability", "os", "--access-log", "false", "--idle-timeout", "3600")
    server.before = anonymous_memory(server)
    server.empty = file_bytes(server)
    value = b64(b"v" * VALUE)
    bodies = ["".join('{"op":"pair_put","pair":"%s","value":"%s"}\n' % (b64(b"m:%08d" % i), value) for i in range(start, start + 10000)).encode()
              for start in range(0, PAIRS, 10000)]
    for _ in range(10):  # written again, if a machine that is busy gave time for a checkpoint in between: from before it memory is given back
        server.peak = 0
        for body in bodies:
            answer = server.client().post("/batch", body, headers={"Content-Type": "application/x-ndjson"}, results="false")
            assert answer.end == {"count": 10000, "failed": 0}
            server.peak = max(server.peak, anonymous_memory(server))
        if server.peak >= server.before + PAIRS * VALUE:
            break
    yield server
    server.finish()


def goes_back(server, peak, at_least):
    assert peak >= server.before + at_least, "this burst shows nothing: %d MiB" % (peak // MIB)
    begin = time.monotonic()
    wait_for(lambda: anonymous_memory(server) <= server.before + KEPT, MINUTE, "memory after the burst", 0.2)
    print("%d MiB, %d MiB after %.1f s" % (peak // MIB, anonymous_memory(server) // MIB, time.monotonic() - begin))


def test_after_large_commits(burst):
    if rados.WANTED:  # nothing is held once it is written, and the bytes in the cluster are not known
        goes_back(burst, burst.peak, 0)
    else:
        goes_back(burst, burst.peak, PAIRS * VALUE)  # pages that are changed are the process's own
        assert file_bytes(burst) > burst.empty + PAIRS * VALUE  # it was a checkpoint that gave them back


def test_after_many_streams(burst):
    raws = []
    for _ in range(STREAMS):
        raws.append(burst.raw(receive_buffer=8192))
        raws[-1].send("GET /pairs/%s?values=true HTTP/1.1\r\nHost: localhost\r\n\r\n" % hexed(b"m:"))
    peak = 0

    def are_full():
        nonlocal peak
        peak = max(peak, anonymous_memory(burst))
        return peak >= burst.before + STREAMS * MIB

    wait_for(are_full, what="streams to fill their memory", pause=0.1)
    for raw in raws:
        raw.close()
    goes_back(burst, peak, STREAMS * MIB)


def test_after_a_namespace(burst):
    full = file_bytes(burst)
    answer = burst.client().delete("/pairs/%s" % hexed(b"m:"), recursive="true", values="true")
    assert answer.json()["pairs_deleted"] == answer.json()["values_deleted"] == PAIRS
    kept = (full - burst.empty) // 10
    wait_for(lambda: file_bytes(burst) <= burst.empty + kept, MINUTE, "space after the namespace", 0.5)
    print("%d KiB, %d KiB after" % (full // 1024, file_bytes(burst) // 1024))
    wait_for(lambda: anonymous_memory(burst) <= burst.before + KEPT, MINUTE, "memory after the namespace", 0.2)
