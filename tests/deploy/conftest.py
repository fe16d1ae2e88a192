"""Fixtures for what is in deploy/: servers of tests/support/harness, foreign programs on free ports, skips for tools
that are not installed (deploy/install-deps.sh deploy has them all).

    CHEETAH_DB=build/release/cheetah-db /usr/bin/python3 -m pytest -q tests/deploy
"""
import os
import shutil
import subprocess

import harness
import pytest
from harness import free_port  # noqa: F401

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), os.pardir, os.pardir))
DEPLOY = os.path.join(ROOT, "deploy")


def tool(name):
    """The path of a program, or a skip that says where it comes from."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip("%s is not installed; deploy/install-deps.sh deploy" % name)
    return path


def run(*command, code=0, **more):
    """The standard output of a command; its exit code must be `code` (None: any)."""
    more.setdefault("timeout", 120)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    assert code is None or done.returncode == code, "%s: exit code %d\n%s" % (" ".join(command), done.returncode, done.stdout)
    return done.stdout


def in_deploy(*names):
    return os.path.join(DEPLOY, *names)


@pytest.fixture
def launch():
    """Starts servers: launch("--drain-seconds", "3"). They are stopped when the test is over."""
    servers = []

    def start(*flags, **more):
        servers.append(harness.Server(*flags, **more))
        return servers[-1]

    yield start
    errors = []
    for server in servers:
        try:
            server.finish()
        except AssertionError as error:
            errors.append(error)
    assert not errors, errors


@pytest.fixture
def spawn():
    """Starts foreign programs in the foreground; they are ended when the test is over."""
    processes = []

    def start(*command, **more):
        more.setdefault("stdin", subprocess.DEVNULL)
        processes.append(subprocess.Popen(command, **more))
        return processes[-1]

    yield start
    for process in processes:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
