"""DURABILITY interval|sync: of what one connection writes."""
import time
import urllib.request

import pytest


def syncs(server):
    with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % server.port) as response:
        rows = [row for row in response.read().decode().splitlines() if row.startswith("cheetah_fsync_total{")]
    return sum(int(row.split()[1]) for row in rows)


def written(server, line, n, what="INSERT value"):
    """Syncs while n commands are sent one after the other, each after the answer to the one before."""
    before = syncs(server)
    for _ in range(n):
        assert line.ask(what).startswith(b"SUCCESS,"), what
    return syncs(server) - before


@pytest.mark.parametrize("mode", ["sync", "interval"])
def test_durability_of_a_connection(launch, mode):
    server = launch("--durability", mode, "--sync-interval-ms", "1000", "--shards", "2")
    with server.line() as one, server.line() as two:
        assert one.ask("DURABILITY interval") == b"SUCCESS,durability=interval" and two.ask("durability SYNC") == b"SUCCESS,durability=sync"
        begun = time.monotonic()
        few = written(server, one, 300) + written(server, one, 50, 'PAIR_PUT_BATCH items=[{"k":"k","v":"v"}]') + written(server, one, 50, 'BATCH INSERT items=["v"]')
        assert few <= 3 + 3 * (time.monotonic() - begun)
        assert written(server, two, 50) >= 50 and written(server, two, 20, 'PAIR_PUT_BATCH items=[{"k":"k","v":"v"}]') >= 20
        assert two.ask("READ 300") == b"SUCCESS,size=5,value=value"  # others read it at once
        assert one.many(["DURABILITY sync", "INSERT v", "DURABILITY interval", "INSERT v"])[0::2] == [b"SUCCESS,durability=sync", b"SUCCESS,durability=interval"]
        for text in ("DURABILITY", "DURABILITY os", "DURABILITY sync now"):
            assert one.ask(text) == b"ERROR,invalid_durability (interval or sync)"
        last = one.ask("INSERT last")
    server.kill()  # the process alone: nothing is lost
    server.restart()
    with server.line() as line:
        assert line.ask("READ " + last.decode().split("=")[1]) == b"SUCCESS,size=4,value=last"
        assert written(server, line, 20) >= (20 if mode == "sync" else 0)  # a new connection has the server's
