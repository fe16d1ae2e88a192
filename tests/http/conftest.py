"""Fixtures: one shared server, a database a test, and a factory for servers with other flags.

    CHEETAH_DB=build/release/cheetah-db /usr/bin/python3 -m pytest -q tests/http
"""
import itertools
import re

import harness
import pytest

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items):
    skip = pytest.mark.skip(reason="long; set CHT_TEST_LONG=1")
    for item in items:
        if "long" in item.keywords and not harness.LONG:
            item.add_marker(skip)
    harness.rados.leave_out(items)


@pytest.fixture(scope="session")
def server():
    """The shared server: nothing is synced, which no test of the contract depends on."""
    shared = harness.Server("--durability", "os", "--shards", "3", "--access-log", "false")
    yield shared
    shared.finish()


@pytest.fixture
def name(request):
    """A database name of this test's own."""
    text = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:40].strip("-")
    return "%s-%d" % (text, next(_numbers))


@pytest.fixture
def client(server, name):
    """A client of the shared server, on an empty database of its own."""
    client = server.client(db=name)
    assert client.put("/databases/" + name).status == 201
    yield client
    client.delete("/databases/" + name, confirm=name)
    client.close()


@pytest.fixture
def launch():
    """Starts servers: launch("--max-connections", "4"). They are stopped when the test is over."""
    servers = []

    def start(*flags, **more):
        server = harness.Server(*flags, **more)
        servers.append(server)
        return server

    yield start
    harness.finish_all(servers)


@pytest.fixture(scope="session")
def need(server):
    """Skips a test whose route the server does not have yet: need("POST", "/predict")."""

    def check(path):
        client = server.client(check=False)
        answer = client.get(path)
        client.close()
        if answer.status == 404 and answer.json().get("code") in ("not_found", "unknown_reducer_mode"):
            pytest.skip("the server has no %s yet" % path)

    return check
