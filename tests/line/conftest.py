"""Fixtures of the tests of the line protocol. The server and the clients are those of tests/support/harness.

    CHEETAH_DB=build/release/cheetah-db /usr/bin/python3 -m pytest -q tests/line
"""
import pytest
from harness import line as client
from harness import rados


def pytest_collection_modifyitems(items):
    rados.leave_out(items)


@pytest.fixture
def launch():
    """launch(*flags) starts a server with the line protocol on; all are stopped at the end."""
    servers = []

    def start(*flags, **more):
        server = client.LineServer(*flags, **more)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.finish()


@pytest.fixture(scope="module")
def server():
    one = client.LineServer()
    yield one
    one.finish()


names = iter(range(1, 100000))


@pytest.fixture
def line(server):
    """A connection with a database of its own."""
    with server.line() as connection:
        assert connection.ask("DATABASE t%d" % next(names)).startswith(b"SUCCESS,")
        yield connection
