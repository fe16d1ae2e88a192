"""Clients' certificates that were revoked: --tls-client-crl, read again on SIGHUP."""
import http.client
import json
import signal
import socket
import ssl
import subprocess
import time

import harness
import pytest
from harness import certificates, line

REFUSED = (ssl.SSLError, ConnectionError)


class Setting:
    """Two authorities with a client each, the list of both, and a token file that lets both write."""

    def __init__(self, folder):
        self.folder = folder
        self.shown = certificates.self_signed(folder)
        self.authorities = [certificates.Authority(folder, name) for name in ("one", "two")]
        self.clients = [authority.sign("client-" + authority.name, "/CN=same") for authority in self.authorities]
        self.cas, self.crl, self.tokens = folder / "cas.pem", folder / "crl.pem", folder / "tokens"
        self.cas.write_text("".join(open(authority.cert, encoding="ascii").read() for authority in self.authorities))
        self.tokens.write_text("cert:same admin *\n")
        self.write()

    def flags(self, *more):
        return ["--tls-cert", self.shown.cert, "--tls-key", self.shown.key, "--tls-client-ca", str(self.cas), "--tls-client-crl", str(self.crl),
                "--tokens", str(self.tokens), *more]

    def write(self, authorities=None, last="+2"):
        texts = []
        for authority in authorities or self.authorities:
            authority.crl(self.folder / "one.crl", last)
            texts.append((self.folder / "one.crl").read_text())
        self.crl.write_text("".join(texts))

    def context(self, number):
        return certificates.context(self.shown.cert, self.clients[number])

    def connect(self, server, number):
        return http.client.HTTPSConnection("127.0.0.1", server.port, context=self.context(number), timeout=harness.HANG)

    def status(self, server, number, connection=None):
        connection = connection or self.connect(server, number)
        connection.request("GET", "/databases")
        answer = connection.getresponse()
        answer.read()
        return answer.status


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path)


def reload(server, event="reloaded"):
    before = len([one for one in server.log(event) if "certificate" in one["message"]])
    server.signal(signal.SIGHUP)
    harness.wait_for(lambda: len([one for one in server.log(event) if "certificate" in one["message"]]) > before, what=event)


def start(launch, setting, *more):
    return launch("--durability", "os", *setting.flags(*more), scheme="https", cafile=setting.shown.cert, env={"CHEETAH_LINE_LISTEN": "127.0.0.1:0"})


def test_a_revoked_certificate(launch, setting):
    """Refused in the handshake; and who is connected already is nobody any more: his requests, his stream, his commands."""
    port_file = setting.folder / "line-port"
    server = start(launch, setting, "--line-tls", "--line-port-file", str(port_file))
    assert [setting.status(server, number) for number in (0, 1)] == [200, 200]
    lines = b"".join(json.dumps({"op": "pair_put", "pair": harness.b64(b"p%06d" % i), "value": harness.b64(b"v" * 900)}).encode() + b"\n" for i in range(12000))
    kept = [setting.connect(server, number) for number in (0, 1)]
    kept[0].request("POST", "/batch", lines, {"Content-Type": "application/x-ndjson"})
    assert b'"failed":0' in kept[0].getresponse().read()
    assert [setting.status(server, number, kept[number]) for number in (0, 1)] == [200, 200]
    with socket.create_connection(("127.0.0.1", server.port), timeout=harness.HANG) as plain, setting.context(0).wrap_socket(plain, server_hostname="localhost") as tls, \
            line.Line(int(port_file.read_text()), context=setting.context(0)) as commands:
        tls.sendall(("GET /pairs/*?values=true HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % server.port).encode())
        text = tls.recv(16384)
        assert commands.ask("PAIR_GET p000001").startswith(b"SUCCESS")
        setting.authorities[0].revoke(setting.clients[0])
        setting.write()
        reload(server)
        assert [setting.status(server, number, kept[number]) for number in (0, 1)] == [401, 200]
        assert commands.ask("PAIR_GET p000001") == b"ERROR,unauthorized"
        while not text.endswith(b"0\r\n\r\n"):
            part = tls.recv(16384)
            if not part:
                break
            text += part
            if len(text) >> 18 > (len(text) - len(part)) >> 18:
                time.sleep(0.05)  # slowly: the streams are looked at five times a second
        assert b'"unauthorized"' in text[-2000:], text[-500:]
    with pytest.raises(REFUSED):
        setting.status(server, 0)
    assert setting.status(server, 1) == 200
    harness.wait_for(lambda: [one for one in server.log("client_certificate_refused") if "revoked" in one["message"]], what="its line in the log")
    server.stop()
    server.start(ready=False)
    harness.wait_for(lambda: setting.status(server, 1) == 200, what="the second start")
    with pytest.raises(REFUSED):
        setting.status(server, 0)


def test_a_list_that_is_none_changes_nothing(launch, setting, tmp_path):
    setting.authorities[0].revoke(setting.clients[0])
    setting.write()
    server = start(launch, setting)
    stranger = certificates.Authority(tmp_path, "stranger")
    good = setting.crl.read_text()

    def foreign():
        setting.write([setting.authorities[1], stranger])

    for write in (lambda: setting.crl.write_text(""), lambda: setting.crl.write_text("rubbish"), lambda: setting.crl.write_text(good[:len(good) // 3]), foreign,
                  setting.crl.unlink):  # fmt: skip
        write()
        reload(server, "reload_failed")
        assert setting.status(server, 1) == 200
        with pytest.raises(REFUSED):
            setting.status(server, 0)
        text = subprocess.run([harness.BINARY, "serve", "--data", str(tmp_path / "none"), "--listen", "127.0.0.1:0", "--line-listen", "none", *setting.flags()],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=harness.HANG, check=False)
        assert text.returncode == (2 if setting.crl.exists() else 1) and "crl" in text.stderr.splitlines()[-1]
    assert "--tls-client-crl wants --tls-client-ca" in subprocess.run(
        [harness.BINARY, "serve", "--data", str(tmp_path / "none"), "--listen", "127.0.0.1:0", "--tls-client-crl", str(setting.crl)], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=harness.HANG, check=False).stderr  # fmt: skip
    setting.write([setting.authorities[1]])  # the first has no list now: nothing of its is revoked
    reload(server)
    assert [setting.status(server, number) for number in (0, 1)] == [200, 200]


def test_an_overdue_list_is_told_and_holds(launch, setting):
    setting.authorities[0].revoke(setting.clients[0])
    setting.write(last="-1")
    server = start(launch, setting)
    harness.wait_for(lambda: server.log("tls_crl_overdue"), what="the warning")
    assert setting.status(server, 1) == 200
    with pytest.raises(REFUSED):
        setting.status(server, 0)
