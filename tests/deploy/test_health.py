"""`cheetah-db health`: what containers, units and scripts ask whether the server is ready."""
import os
import signal
import subprocess

import harness
from conftest import free_port, run


def health(*arguments, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
    done = subprocess.run([harness.BINARY, "health", *arguments], env={**clean, **env}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120)
    return done.returncode, done.stdout.strip()


def test_ready_and_draining(launch):
    server = launch("--drain-seconds", "300")
    here = "127.0.0.1:%d" % server.port
    assert health("--connect", here) == (0, "ready")
    assert health("--connect", here, "--live") == (0, "alive")
    server.signal(signal.SIGTERM)
    harness.wait_for(lambda: health("--connect", here)[0] == 1, 60, "not ready")
    assert health("--connect", here, "--live") == (0, "alive")
    server.signal(signal.SIGTERM)  # it ends at once
    assert server.wait() == 0
    assert health("--connect", here)[0] == 1 and health("--connect", here, "--live")[0] == 1


def test_the_address_comes_from_the_configuration(launch, tmp_path):
    server = launch()
    for host in ("127.0.0.1", "0.0.0.0", ""):
        assert health(CHEETAH_LISTEN="%s:%d" % (host, server.port)) == (0, "ready"), host
    file = tmp_path / "cheetah.conf"
    file.write_text("listen = 127.0.0.1:%d\n" % server.port)
    assert health(CHEETAH_CONFIG=str(file)) == (0, "ready")


def test_wait():
    port = free_port()
    assert health("--wait", "1", CHEETAH_LISTEN="127.0.0.1:%d" % port)[0] == 1
    waiting = subprocess.Popen([harness.BINARY, "health", "--wait", "60", "--connect", "127.0.0.1:%d" % port],
                               stdout=subprocess.PIPE, text=True)
    server = harness.Server("--listen", "127.0.0.1:%d" % port)
    assert waiting.communicate(timeout=120)[0] == "ready\n" and waiting.returncode == 0
    server.finish()


def test_over_tls_with_a_certificate_of_another_name(launch, tmp_path):
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
        "-subj", "/CN=cheetah.example", "-keyout", key, "-out", cert)
    os.chmod(key, 0o600)
    server = launch("--tls-cert", cert, "--tls-key", key, ready=False)
    environment = {"CHEETAH_LISTEN": "0.0.0.0:%d" % server.port, "CHEETAH_TLS_CERT": cert, "CHEETAH_TLS_KEY": key}
    assert health("--wait", "20", **environment) == (0, "ready")
    code, text = health("--connect", "https://127.0.0.1:%d" % server.port, "--tls-ca", cert)
    assert code == 1 and "cert" in text.lower(), text  # a server that is named is verified


def test_usage():
    assert health("now")[0] == 2
    assert health("--wait", "never")[0] == 2
    assert health(CHEETAH_LISTEN="nowhere")[0] == 2
    assert health("--connect", "ftp://example.org")[0] == 2
