#!/usr/bin/python3
"""bench: what the Python client costs: CPU of this process for a read, beside http.client, which is what the standard library has; reads a
second of the async client by how many are in flight.

    PYTHONPATH=tests/support:clients/python/src tests/bench/python/bench.py [--reads N] [--binary build/release/cheetah-db]

Rounds in turn, the least of each: what another program on the machine takes is not in it. Prints lines of `name us/read ratio`.
"""
import argparse
import asyncio
import http.client
import os
import time

import harness
from cheetah_http import AsyncClient, Client

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def cpu(call, reads):
    """Microseconds of CPU a call."""
    begun = time.process_time()
    for _ in range(reads):
        call()
    return (time.process_time() - begun) / reads * 1e6


def plain(port, key):
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def read():
        connection.request("GET", "/kv/%d" % key, headers={"Accept": "application/octet-stream"})
        answer = connection.getresponse()
        return answer.read()

    return read


async def in_flight(url, key, width, reads):
    """Reads a second, and CPU of one, with that many under way at any time."""
    async with AsyncClient(url) as db:
        left = reads

        async def one():
            nonlocal left
            while left > 0:
                left -= 1
                await db.read(key)

        await asyncio.gather(*(db.read(key) for _ in range(width)))
        begun, used = time.perf_counter(), time.process_time()
        await asyncio.gather(*(one() for _ in range(width)))
        return reads / (time.perf_counter() - begun), (time.process_time() - used) / reads * 1e6


def measure(url, port, key, reads, rounds=5):
    """{name: least us a read}."""
    with Client(url) as db:
        calls = {"http.client": plain(port, key), "read": lambda: db.read(key)}
        assert calls["http.client"]() == calls["read"]() == b"x" * 100
        try:
            import httpx

            session = httpx.Client(base_url=url)
            other = Client(http=session)
            calls["read, http=httpx.Client"] = lambda: other.read(key)
        except ImportError:
            pass
        return {name: min(cpu(call, reads) for _ in range(rounds)) for name, call in calls.items()}


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--reads", type=int, default=3000)
    words.add_argument("--binary", default=os.path.join(ROOT, "build", "release", "cheetah-db"))
    given = words.parse_args()
    os.environ["CHEETAH_DB"] = given.binary
    server = harness.Server("--durability", "os", "--access-log", "false")
    url = "http://127.0.0.1:%d" % server.port
    try:
        with Client(url) as db:
            key = db.insert(b"x" * 100)
        figures = measure(url, server.port, key, given.reads)
        for name, us in figures.items():
            print("%-26s %7.1f us of CPU a read, %5.2f x http.client" % (name, us, us / figures["http.client"]))
        for width in (1, 4, 16, 64):
            best = [asyncio.run(in_flight(url, key, width, given.reads)) for _ in range(3)]
            print("async, %3d in flight        %7.1f us of CPU a read, %6.0f reads a second" % (width, min(b[1] for b in best), max(b[0] for b in best)))
    finally:
        server.finish()


if __name__ == "__main__":
    main()
