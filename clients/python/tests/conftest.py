"""Fixtures: the real server, an empty database a test, a proxy that cuts connections.

    CHEETAH_DB=build/release/cheetah-db /usr/bin/python3 -m pytest -q clients/python/tests
"""
import itertools
import os
import re

import pytest

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(os.path.dirname(PACKAGE))
import harness
from proxy import Proxy

from cheetah_http import Client, Retry

_numbers = itertools.count(1)
QUICK = Retry(attempts=8, first=0.01, longest=0.1)


@pytest.fixture(scope="session")
def server():
    shared = harness.Server("--durability", "os", "--shards", "3", "--access-log", "false")
    yield shared
    shared.finish()


@pytest.fixture
def launch():
    """Starts servers with other flags; they are stopped when the test is over."""
    servers = []

    def start(*flags, **more):
        servers.append(harness.Server(*flags, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.finish()


def url_of(server):
    return "http://127.0.0.1:%d" % server.port


@pytest.fixture
def name(request):
    text = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:40].strip("-")
    return "%s-%d" % (text, next(_numbers))


@pytest.fixture
def db(server, name):
    """A client of an empty database of its own."""
    with Client(url_of(server), database=name, retry=QUICK) as client:
        client.create_database(name)
        yield client
        client.drop_database(name)


@pytest.fixture
def proxy(server):
    """A proxy in front of the shared server."""
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
def far(proxy, db):
    """The client of the test's database, by way of the proxy."""
    with Client(proxy.url, database=db.database, retry=QUICK, timeout=10) as client:
        yield client
