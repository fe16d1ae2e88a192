"""compose, Kubernetes, systemd, Dockerfile, shell scripts: parsed, and held against each other and the program's options."""
import os
import re
import shlex
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import yaml

import harness
import load
from conftest import ROOT, free_port, in_deploy, run, tool


def text_of(*names):
    with open(os.path.join(ROOT, *names), encoding="utf-8") as file:
        return file.read()


def options():
    """{name: ...} of `cheetah-db serve --help`."""
    names = set(re.findall(r"^  --([a-z-]+)", run(harness.BINARY, "serve", "--help"), re.M))
    assert {"listen", "data", "tokens"} <= names
    return names


def known_variables(names):
    wanted = {"CHEETAH_" + name.upper().replace("-", "_") for name in options()}
    unknown = set(names) - wanted
    assert not unknown, "no such options: %s" % unknown


# ---- compose -----------------------------------------------------------------------------------------------------------


def test_compose():
    compose = yaml.safe_load(text_of("deploy", "compose.yaml"))
    assert set(compose) == {"name", "services", "volumes"}
    server = compose["services"]["cheetah"]
    known_variables(server["environment"])
    assert all(isinstance(v, str) for v in server["environment"].values()), "compose takes strings"
    assert server["user"] == "10001:10001" and server["read_only"] and server["cap_drop"] == ["ALL"]
    assert server["healthcheck"]["test"] == ["CMD", "cheetah-db", "health"]
    assert os.path.exists(in_deploy(server["build"]["context"], "Dockerfile"))
    assert all(port.startswith("127.0.0.1:") for s in compose["services"].values() for port in s["ports"]), "anonymous: this machine only"
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or os.path.exists(in_deploy(source)), volume
    assert int(server["stop_grace_period"][:-1]) > int(server["environment"]["CHEETAH_DRAIN_SECONDS"]) * 2


# ---- Kubernetes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects():
    found = {}
    for name in yaml.safe_load(text_of("deploy", "kubernetes", "kustomization.yaml"))["resources"]:
        for document in yaml.safe_load_all(text_of("deploy", "kubernetes", name)):
            key = document["kind"], document["metadata"]["name"]
            assert key not in found
            found[key] = document
    return found


def test_kubernetes_selectors_meet_the_pods(objects):
    labels = objects["StatefulSet", "cheetah-db"]["spec"]["template"]["metadata"]["labels"]
    selectors = [o["spec"]["selector"] for k, o in objects.items() if k[0] == "Service"]
    selectors += [o["spec"]["selector"]["matchLabels"] for k, o in objects.items() if k[0] in ("StatefulSet", "PodDisruptionBudget")]
    selectors += [o["spec"]["podSelector"]["matchLabels"] for k, o in objects.items() if k[0] == "NetworkPolicy"]
    assert len(selectors) == 5
    for selector in selectors:
        assert selector and selector.items() <= labels.items()
    governing = objects["Service", objects["StatefulSet", "cheetah-db"]["spec"]["serviceName"]]
    assert governing["spec"]["clusterIP"] == "None", "a StatefulSet wants a headless service"


def test_kubernetes_pod(objects):
    template = objects["StatefulSet", "cheetah-db"]["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    known_variables(e["name"] for e in container["env"])
    env = {e["name"]: e["value"] for e in container["env"]}
    assert all(isinstance(v, str) for v in env.values())
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert env["CHEETAH_LISTEN"].endswith(":%d" % ports["http"])
    for kind, o in objects.items():
        if kind[0] == "Service":
            assert all(p["targetPort"] in ports for p in o["spec"]["ports"])
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounts["data"] == env["CHEETAH_DATA"] and env["CHEETAH_TOKENS"].startswith(mounts["tokens"] + "/")
    claims = [c["metadata"]["name"] for c in objects["StatefulSet", "cheetah-db"]["spec"]["volumeClaimTemplates"]]
    assert set(mounts) == set(claims) | {v["name"] for v in pod["volumes"]}
    assert pod["volumes"][0]["secret"]["defaultMode"] == 0o440, "the server refuses a token file that everyone may read"
    drain = int(env["CHEETAH_DRAIN_SECONDS"])
    ready = container["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < drain < pod["terminationGracePeriodSeconds"] / 2
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001 and pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def probe_answers(probe, port):
    """As the kubelet asks: once, from a new connection."""
    timeout = probe.get("timeoutSeconds", 1)
    try:
        if "tcpSocket" in probe:
            socket.create_connection(("127.0.0.1", port), timeout).close()
            return True
        with urllib.request.urlopen("http://127.0.0.1:%d%s" % (port, probe["httpGet"]["path"]), timeout=timeout) as answer:
            return 200 <= answer.status < 400
    except (OSError, urllib.error.URLError):
        return False


def test_kubernetes_liveness_probe_does_not_kill_a_busy_pod(objects, launch):
    """The server has all the connections that it takes; the pod is busy, not dead. One that starts is not dead either."""
    (container,) = objects["StatefulSet", "cheetah-db"]["spec"]["template"]["spec"]["containers"]
    server = launch("--max-connections", "8", "--drain-seconds", "0")
    holders = []

    def all_taken():  # one that came while a connection of the harness was still counted holds no place
        holders.append(harness.Raw(server.port).send("GET /kv HTTP/1.1\r\nHost: x\r\n"))
        return len(holders) >= 8 and not probe_answers({"httpGet": {"path": "/kv?limit=1"}}, server.port)

    harness.wait_for(all_taken, what="all connections taken")
    for _ in range(20):
        assert probe_answers(container["livenessProbe"], server.port)
        time.sleep(0.02)
    for raw in holders:
        raw.close()
    assert "startupProbe" not in container, "it would kill a pod that replays a long log"
    assert not probe_answers(container["livenessProbe"], free_port()), "the probe can fail"


def test_kubernetes_network_policy_names_who_may_ask(objects):
    """A rule without `from` lets everybody in."""
    policies = [o for k, o in objects.items() if k[0] == "NetworkPolicy"]
    assert policies
    for policy in policies:
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        for rule in policy["spec"]["ingress"]:
            assert rule["ports"] and rule["from"], rule
            for peer in rule["from"]:
                assert peer["podSelector"].get("matchLabels"), "an empty selector means all pods"
                assert "ipBlock" not in peer and ("namespaceSelector" not in peer or peer["namespaceSelector"].get("matchLabels"))


def test_kubernetes_probes_are_answered_without_a_token(objects, launch, tmp_path):
    """With the pod's arguments and environment (but for its paths), and a token file."""
    (container,) = objects["StatefulSet", "cheetah-db"]["spec"]["template"]["spec"]["containers"]
    tokens = tmp_path / "tokens"
    tokens.write_text("secret-secret-secret read *\n")
    tokens.chmod(0o440)
    env = {e["name"]: e["value"] for e in container["env"] if e["name"] not in ("CHEETAH_LISTEN", "CHEETAH_DATA", "CHEETAH_TOKENS")}
    server = launch("--listen", "0.0.0.0:0", "--drain-seconds", "0", env={**env, "CHEETAH_TOKENS": str(tokens)})
    client = server.client(check=False)
    assert container["readinessProbe"]["httpGet"]["port"] == "http"
    assert client.get(container["readinessProbe"]["httpGet"]["path"]).status == 200
    assert probe_answers(container["livenessProbe"], server.port)
    assert client.get("/kv?limit=1").status == 401 and client.get("/metrics").status == 401
    client.close()
    reader = server.client(token="secret-secret-secret", check=False)
    assert reader.get("/metrics").status == 200, "what prometheus.io/scrape needs"
    reader.close()


# ---- systemd -----------------------------------------------------------------------------------------------------------


def test_systemd_unit_verifies(tmp_path):
    program = tool("systemd-analyze")
    unit = tmp_path / "cheetah-db.service"
    unit.write_text(text_of("deploy", "systemd", "cheetah-db.service").replace("/usr/local/bin/cheetah-db", harness.BINARY))
    assert run(program, "verify", "--man=no", str(unit)) == ""
    assert run(program, "security", "--offline=true", "--threshold=20", str(unit), code=None).rstrip().endswith("OK 🙂")
    assert "exposure level" in run(program, "security", "--offline=true", "--threshold=20", str(unit))


def test_systemd_waits_until_the_server_says_so(tmp_path):
    """Type=notify, and no time after which a server that reads a long log is killed; tests/http/test_sockets.py has what is said."""
    unit = text_of("deploy", "systemd", "cheetah-db.service")
    assert re.search(r"^Type=notify$", unit, re.M) and re.search(r"^TimeoutStartSec=infinity$", unit, re.M)


def test_systemd_sockets(tmp_path):
    """The units verify, and what systemd passes under their names is listened on: the first connection starts the server."""
    analyze, activate = tool("systemd-analyze"), tool("systemd-socket-activate")
    (tmp_path / "cheetah-db.service").write_text(text_of("deploy", "systemd", "cheetah-db.service").replace("/usr/local/bin/cheetah-db", harness.BINARY))
    names = []
    for unit in ("cheetah-db-http.socket", "cheetah-db-line.socket"):
        text = text_of("deploy", "systemd", unit)
        (tmp_path / unit).write_text(text)
        assert run(analyze, "verify", "--man=no", str(tmp_path / unit)) == ""
        names.append(re.search(r"^FileDescriptorName=(.*)$", text, re.M).group(1))
        assert "Service=cheetah-db.service\n" in text
    ports = [free_port(), free_port()]
    command = [activate, *["--listen=127.0.0.1:%d" % port for port in ports], "--fdname=" + ":".join(names), harness.BINARY, "serve", "--data",
               str(tmp_path / "data"), "--listen", "systemd:" + names[0], "--line-listen", "systemd:" + names[1], "--drain-seconds", "0"]  # fmt: skip
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60
        while True:  # the first connection waits until the server is ready
            try:
                with urllib.request.urlopen("http://127.0.0.1:%d/readyz" % ports[0], timeout=120) as answer:
                    assert answer.status == 200
                    break
            except urllib.error.HTTPError as error:
                assert error.code == 503 and time.monotonic() < until
            except (ConnectionError, urllib.error.URLError):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", ports[1]), timeout=120) as line:
            line.sendall(b"INSERT:1 x\n")
            assert line.recv(100).startswith(b"SUCCESS")
    finally:
        process.terminate()
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said


def test_systemd_backup_units(launch, tmp_path):
    """They verify, and their command makes a backup."""
    program = tool("systemd-analyze")
    for name in ("cheetah-db-backup@.service", "cheetah-db-backup@.timer"):
        text = text_of("deploy", "systemd", name).replace("/usr/local/bin/cheetah-db", harness.BINARY)
        (tmp_path / name).write_text(text)
    for name in ("cheetah-db-backup@default.service", "cheetah-db-backup@default.timer"):
        assert run(program, "verify", "--man=no", str(tmp_path / name)) == ""
    server = launch()
    for key in ("ExecStart", "ExecStartPost"):
        run(*backup_command(key, tmp_path / "backups", "default", server.port))
    (made,) = os.listdir(tmp_path / "backups")
    assert made.startswith("default-") and made.endswith(".cheetah")


def backup_command(key, folder, database, port=0):
    (command,) = re.findall(r"^%s=(.*)$" % key, text_of("deploy", "systemd", "cheetah-db-backup@.service"), re.M)
    assert "%%" not in command and not set(re.findall(r"%(.)", command)) - {"i"}, "what systemd replaces"
    for old, new in {"${FOLDER}": str(folder), "${SERVER}": "http://127.0.0.1:%d" % port, "%i": database}.items():
        command = command.replace(old, new)
    return shlex.split(command.replace("/usr/local/bin/cheetah-db", harness.BINARY))


def test_systemd_backup_timer_deletes_old_backups_of_its_own_database_alone(tmp_path):
    """Names that begin with the database's name and a hyphen, that differ in case, that hold a time, files and folders of others."""
    when, young = "20261021T083312.345Z", "20261120T000000.001Z"
    mine = ["default-%s.cheetah" % when, "default-20260101T000000.000Z.cheetah"]
    kept = ["default-%s.cheetah" % young, "default-old-%s.cheetah" % when, "default-%s-%s.cheetah" % (when[:8], when),
            "default-20261021T083312-345Z-%s.cheetah" % when, "default--%s.cheetah" % when, "Default-%s.cheetah" % when, "default2-%s.cheetah" % when,
            "other-%s.cheetah" % when, "other-default-%s.cheetah" % when, "default-keep.cheetah", "default-%s.cheetah.txt" % when,
            "default-keep-this-one-x.cheetah", ".default.cheetah.part", "default"]
    old = time.time() - 40 * 86400
    for name in mine + kept:
        (tmp_path / name).write_text(name)
        if young not in name:
            os.utime(tmp_path / name, (old, old))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / mine[0]).write_text("")
    os.utime(tmp_path / "below" / mine[0], (old, old))
    run(*backup_command("ExecStartPost", tmp_path, "default"))
    assert sorted(os.listdir(tmp_path)) == sorted(kept + ["below"])
    assert os.listdir(tmp_path / "below") == [mine[0]]
    run(*backup_command("ExecStartPost", tmp_path, "default-old"))
    assert sorted(os.listdir(tmp_path)) == sorted(set(kept) - {"default-old-%s.cheetah" % when} | {"below"})


def test_systemd_backup_unit_is_hardened(tmp_path):
    """Like the server's: as a user of its own, and every line that the server's unit has against the rest of the system."""
    program = tool("systemd-analyze")
    unit = text_of("deploy", "systemd", "cheetah-db-backup@.service")
    path = tmp_path / "cheetah-db-backup@default.service"
    path.write_text(unit.replace("/usr/local/bin/cheetah-db", harness.BINARY))
    assert "exposure level" in run(program, "security", "--offline=true", "--threshold=20", str(path))
    rules = text_of("deploy", "systemd", "cheetah-db.service").partition("# It needs its data")[2].partition("[Install]")[0]
    for rule in re.findall(r"^\w+=.*$", rules, re.M):
        assert "\n%s\n" % rule in unit, rule
    user = re.search(r"^User=(.*)$", unit, re.M).group(1)
    assert user not in ("root", "cheetah-db") and "\nu %s " % user in text_of("deploy", "systemd", "cheetah-db.sysusers")
    folder = re.search(r"^Environment=FOLDER=(\S+)", unit, re.M).group(1)
    assert "\nReadWritePaths=-%s\n" % folder in unit and re.search(r"^ExecStartPre=\+/usr/bin/install -d -m 0700 -o %s " % user, unit, re.M)


def test_systemd_system_calls(tmp_path):
    """What a server under load, draining and stopping asks of the kernel is what the unit allows."""
    strace, analyze = tool("strace"), tool("systemd-analyze")

    def expand(group):
        names, seen = set(), run(analyze, "syscall-filter", group)
        for word in re.findall(r"^    ([@\w-]+)$", seen, re.M):
            names |= expand(word) if word.startswith("@") else {word}
        return names

    unit = text_of("deploy", "systemd", "cheetah-db.service")
    allowed = set()
    for value in re.findall(r"^SystemCallFilter=(.*)$", unit, re.M):
        for group in value.lstrip("~").split():
            allowed = allowed - expand(group) if value.startswith("~") else allowed | expand(group)
    allowed |= expand("@default")
    assert "epoll_wait" in allowed and "setpriority" not in allowed and "chown" not in allowed

    trace = tmp_path / "trace"
    wrapper = tmp_path / "traced"
    wrapper.write_text('#!/bin/sh\nexec %s -f -qq -o %s -e signal=none %s "$@"\n' % (strace, trace, harness.BINARY))
    wrapper.chmod(0o755)
    # strace passes signals on when it is itself detached from the terminal's group; the server is its child
    server = harness.Server("--drain-seconds", "0", binary=str(wrapper))
    try:
        load.load_sample(server)
        client = server.client()
        for question in load.QUESTIONS:
            assert client.request(question[0], question[1], question[2]).status == 200
        assert client.post("/databases/default/checkpoint").status == 200
        assert client.post("/reduce/smooth/cnt:?orders=1-3&topk=20").status == 200
        assert client.put("/databases/other").status in (200, 201)
        assert client.delete("/databases/other?confirm=other").status in (200, 204)
        client.close()
    finally:
        pid = int(run("ps", "-o", "pid=", "--ppid", str(server.process.pid)).split()[0])
        os.kill(pid, signal.SIGTERM)
        server.wait()
        server.directory.cleanup()
    used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.M))
    assert len(used) > 30 and {"fdatasync", "epoll_wait", "execve"} <= used, used
    assert used <= allowed, used - allowed


def test_systemd_configuration_is_read(tmp_path):
    for commented in (True, False):
        text = text_of("deploy", "systemd", "cheetah-db.conf")
        if not commented:
            text = re.sub(r"^#(?=[a-z-]+ = )", "", text, flags=re.M)
        file = tmp_path / "cheetah-db.conf"
        file.write_text(text)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
        shown = run(harness.BINARY, "serve", "--print-config", env={**clean, "CHEETAH_CONFIG": str(file)})
        assert re.search(r"^data = /var/lib/cheetah-db +# file$", shown, re.M), shown
        assert bool(re.search(r"^tokens = /etc/cheetah-db/tokens +# file$", shown, re.M)) == (not commented)
    unit = text_of("deploy", "systemd", "cheetah-db.service")
    known_variables(re.findall(r"^Environment=(\w+)=", unit, re.M))
    assert "u cheetah-db " in text_of("deploy", "systemd", "cheetah-db.sysusers")


# ---- Dockerfile, scripts -------------------------------------------------------------------------------------------------


def test_dockerfile_copies_what_the_build_needs():
    dockerfile, ignore = text_of("Dockerfile"), text_of(".dockerignore")
    known_variables(re.findall(r"\b(CHEETAH_[A-Z_]+)=", dockerfile))
    for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.M):
        for source in line.split()[:-1]:
            path = "deploy/install-deps.sh" if source.startswith("deploy/") else source
            assert os.path.exists(os.path.join(ROOT, source)) and "!" + path in ignore, source
    # the libraries of the last stage are those that the program is linked with
    packages = {"libmicrohttpd.so.12": "libmicrohttpd12", "libgnutls.so.30": "libgnutls30", "libjansson.so.4": "libjansson4", "libb2.so.1": "libb2-1",
                "libcurl.so.4": "libcurl4", "libb64.so.0d": "libb64-0d", "libedit.so.2": "libedit2", "libzstd.so.1": "libzstd1", "libz.so.1": "zlib1g"}
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", harness.BINARY))) - {"libc.so.6", "libm.so.6"}
    assert needed == set(packages), "Dockerfile and this test name the packages"
    for package in packages.values():
        assert re.search(r"\s%s\s" % re.escape(package), dockerfile), package


def test_shell_scripts():
    run(tool("shellcheck"), *sorted(in_deploy(n) for n in os.listdir(in_deploy()) if n.endswith(".sh")))
