"""HTTP/1.1 with nothing but the standard library: connections that are kept, one request at a time on each.

    address.py    where a server is: TCP, TLS or a unix socket
    http1.py      the bytes of requests and answers, without a socket
    waiting.py    Pool: for threads
    asyncio.py    AsyncPool: for asyncio
    by_httpx.py   the same interface over an httpx client of the caller's
    errors.py     what goes wrong below HTTP

A pool has send(call, stream), close() and url. A test (test_transport.py) asks all of them the same.
"""
