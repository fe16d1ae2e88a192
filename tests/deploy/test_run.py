"""deploy/run.sh: the first command of the README."""
import os
import pty
import select
import shutil
import signal
import subprocess

import harness
import pytest
from conftest import ROOT, in_deploy, run


def test_run_sh_help_builds_nothing(tmp_path):
    assert "deploy/run.sh [OPTION ...]" in run(in_deploy("run.sh"), "--help", cwd=tmp_path)
    assert os.listdir(tmp_path) == []


def test_run_sh_serves_from_any_directory(tmp_path):
    """In a copy of the checkout, so that nobody's build is touched; the data is in the caller's directory."""
    copy, here = tmp_path / "checkout", tmp_path / "elsewhere"
    here.mkdir()
    for name in ("src", "include", "openapi", "deploy", "cmake", "console/dist"):
        shutil.copytree(os.path.join(ROOT, name), copy / name)
    for name in ("CMakeLists.txt", "CMakePresets.json"):
        shutil.copy(os.path.join(ROOT, name), copy)
    (copy / "tests").mkdir()
    (copy / "tests" / "CMakeLists.txt").write_text("")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
    process = subprocess.Popen([str(copy / "deploy" / "run.sh"), "--listen", "127.0.0.1:0", "--port-file", "port",
                                "--line-listen", "none", "--drain-seconds", "0"], cwd=here, env=clean,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        harness.wait_for(lambda: (here / "port").exists() and (here / "port").read_text() or process.poll() is not None, 300, "the server")
        assert process.poll() is None, process.stderr.read()
        run(harness.BINARY, "health", "--wait", "20", "--connect", "127.0.0.1:" + (here / "port").read_text().strip())
        assert (here / "cheetah_data").is_dir() and not (copy / "cheetah_data").exists()
    finally:
        process.terminate()
        errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors  # the server took the script's place: SIGTERM reached it


@pytest.mark.parametrize("flags, env, text", [((), {}, True), (("--log-format", "json"), {}, False), ((), {"CHEETAH_LOG_FORMAT": "json"}, False)])
def test_on_a_terminal_the_log_is_text(tmp_path, flags, env, text):
    """Run with stand-ins for what installs and builds: what is said on a terminal, and that it names the program."""
    root, tools = tmp_path / "checkout", tmp_path / "tools"
    for folder in (root / "deploy", root / "build" / "release", tools):
        folder.mkdir(parents=True)
    shutil.copy(in_deploy("run.sh"), root / "deploy")
    os.symlink(harness.BINARY, root / "build" / "release" / "cheetah-db")
    for name in (root / "deploy" / "install-deps.sh", tools / "cmake"):
        name.write_text("#!/bin/sh\n")
        name.chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
    master, slave = pty.openpty()
    process = subprocess.Popen([str(root / "deploy" / "run.sh"), "--listen", "127.0.0.1:0", "--line-listen", "none", "--drain-seconds", "0", *flags],
                               cwd=tmp_path, env=dict(clean, PATH="%s:%s" % (tools, clean["PATH"]), **env), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    seen = b""
    try:
        while b"ready" not in seen:
            assert select.select([master], [], [], 60)[0], seen
            seen += os.read(master, 65536)
    finally:
        process.terminate()
        process.wait(120)
        os.close(master)
    assert str(root / "build" / "release" / "cheetah-db").encode() in seen
    assert (b'{"time"' not in seen) == text, seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_install_deps_that_is_interrupted(tmp_path, number):
    """While it installs, no service may start; none of that is left. With stand-ins, and another place for the file that forbids it."""
    tools, policy, script, begun = tmp_path / "tools", tmp_path / "policy-rc.d", tmp_path / "install-deps.sh", tmp_path / "begun"
    tools.mkdir()
    with open(in_deploy("install-deps.sh")) as file:
        script.write_text(file.read().replace("/usr/sbin/policy-rc.d", str(policy)))
    for name, text in (("dpkg-query", "exit 1"), ("id", "echo 0"), ("apt-get", "touch %s\nexec sleep 60" % begun)):
        (tools / name).write_text("#!/bin/sh\n%s\n" % text)
        (tools / name).chmod(0o755)
    process = subprocess.Popen(["sh", str(script), "deploy"], env=dict(os.environ, PATH="%s:%s" % (tools, os.environ["PATH"])),
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        harness.wait_for(begun.exists, 60, "the installation")
        assert policy.exists()
    finally:
        os.killpg(process.pid, number)  # as a terminal does
        process.wait(120)
    assert process.returncode == 1 and not policy.exists()
