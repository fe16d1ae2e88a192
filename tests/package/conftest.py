"""Fixtures for what is installed and packed: the build under test, installed once into a directory of its own."""
import os
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def run(*command, **more):
    """The standard output of a command that must succeed."""
    more.setdefault("timeout", 300)
    code = more.pop("code", 0)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    assert done.returncode == code, "%s: exit code %d\n%s" % (" ".join(command), done.returncode, done.stdout)
    return done.stdout


def tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        pytest.skip("%s is not installed; deploy/install-deps.sh test deploy" % name)
    return path


@pytest.fixture(scope="session")
def build():
    """The build directory of the program under test."""
    program = os.environ.get("CHEETAH_DB")
    if not program:
        pytest.skip("CHEETAH_DB names no program")
    return os.path.dirname(os.path.abspath(program))


@pytest.fixture(scope="session")
def installed(build, tmp_path_factory):
    """What `cmake --install` makes of it."""
    prefix = str(tmp_path_factory.mktemp("prefix"))
    run("cmake", "--install", build, "--prefix", prefix)
    return prefix
