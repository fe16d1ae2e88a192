"""Fixtures of the tests of the tools."""
import pytest
from tooling import start
from harness import finish_all


@pytest.fixture
def launch():
    """Starts servers; they are stopped when the test is over."""
    servers = []

    def launched(*flags, **more):
        servers.append(start(*flags, **more))
        return servers[-1]

    yield launched
    finish_all(servers)
