"""TLS: versions, ciphers, reloading under load, clients' certificates, and what is said of a key that others can read."""
import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import harness
import pytest
from harness import certificates

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def shown(folder):
    """What the servers show."""
    return certificates.self_signed(folder)


@pytest.fixture(scope="module")
def authority(folder):
    return certificates.Authority(folder)


@pytest.fixture(scope="module")
def secure(shown):
    """One server for the tests that change nothing."""
    server = harness.Server("--durability", "os", "--tls-cert", shown.cert, "--tls-key", shown.key, scheme="https",
                            cafile=shown.cert)
    yield server
    server.finish()


@pytest.fixture(scope="module")
def hasty(shown):
    """One that waits two seconds for a handshake."""
    server = harness.Server("--tls-cert", shown.cert, "--tls-key", shown.key, "--header-timeout", "2", "--idle-timeout", "3600", "--body-timeout", "3600",
                            scheme="https", cafile=shown.cert)
    yield server
    server.finish()


def ask(port, context, path="/version", headers="", timeout=harness.HANG):
    """(status, version, cipher, the server's certificate) of one request; raises what the handshake raises."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as plain, context.wrap_socket(plain, server_hostname="localhost") as tls:
        tls.sendall(("GET %s HTTP/1.1\r\nHost: localhost:%d\r\n%sConnection: close\r\n\r\n" % (path, port, headers)).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            part = tls.recv(65536)
            if not part:
                raise ConnectionResetError("ended after %r" % data)
            data += part
        return int(data.split()[1]), tls.version(), tls.cipher()[0], tls.getpeercert(binary_form=True)


def s_client(port, *words, stdin=b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
    """Was a request answered? With everything that OpenSSL knows, the weak too."""
    result = subprocess.run(["openssl", "s_client", "-ign_eof", "-connect", "127.0.0.1:%d" % port, *words], input=stdin, capture_output=True,
                            timeout=harness.HANG)
    return b"HTTP/1.1 200" in result.stdout


def refused(*flags, env=None):
    """Exit code and last line of a server that is to refuse its command line."""
    result = subprocess.run([harness.BINARY, "serve", "--listen", "127.0.0.1:0", "--line-listen", "none", *flags], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=harness.HANG, env=env)
    return result.returncode, result.stderr.splitlines()[-1]


# ---- versions and ciphers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version,spoken", [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_versions(secure, version, spoken):
    assert s_client(secure.port, version, "-cipher", "ALL:@SECLEVEL=0") == spoken


@pytest.mark.parametrize("cipher,spoken", [
    ("ECDHE-RSA-AES128-GCM-SHA256", True), ("ECDHE-RSA-AES256-GCM-SHA384", True), ("ECDHE-RSA-CHACHA20-POLY1305", True),
    # not forward secret
    ("AES128-GCM-SHA256", False), ("AES256-GCM-SHA384", False), ("AES128-SHA", False), ("AES256-SHA256", False), ("AES128-CCM", False),
    # not encrypted, not authenticated, weak, or older than need be
    ("eNULL", False), ("aNULL", False), ("ECDHE-RSA-AES128-SHA", False), ("ECDHE-RSA-AES256-SHA384", False), ("DHE-RSA-AES128-SHA", False),
    ("DHE-RSA-AES128-GCM-SHA256", False), ("PSK", False), ("CAMELLIA128-SHA", False)])
def test_ciphers(secure, cipher, spoken):
    assert s_client(secure.port, "-tls1_2", "-cipher", cipher + ":@SECLEVEL=0") == spoken


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_suites_of_13(secure, suite):
    assert s_client(secure.port, "-tls1_3", "-ciphersuites", suite)


def test_least_13(launch, shown):
    server = launch("--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-min", "1.3", scheme="https", cafile=shown.cert)
    assert ask(server.port, certificates.context(shown.cert))[1] == "TLSv1.3"
    with pytest.raises((ssl.SSLError, OSError)):
        ask(server.port, certificates.context(shown.cert, most=V12))


def test_own_ciphers(launch, shown):
    server = launch("--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-ciphers",
                    "NORMAL:-KX-ALL:+DHE-RSA:+ECDHE-RSA:-CIPHER-ALL:+AES-256-GCM:+AES-256-CBC", scheme="https", cafile=shown.cert)
    for cipher, spoken in [("ECDHE-RSA-AES256-GCM-SHA384", True), ("DHE-RSA-AES256-GCM-SHA384", True), ("ECDHE-RSA-AES256-SHA", True),
                           ("ECDHE-RSA-AES128-GCM-SHA256", False), ("AES256-GCM-SHA384", False)]:
        assert s_client(server.port, "-tls1_2", "-cipher", cipher + ":@SECLEVEL=0") == spoken, cipher
    assert not s_client(server.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), "the string allows it, --tls-min does not"
    assert s_client(server.port, "-tls1_3")


@pytest.mark.parametrize("string,says", [
    ("nonsense", "from 'nonsense' on"), ("NORMAL:+NOTHING-LIKE-IT", "from '+NOTHING-LIKE-IT' on"), ("NONE", "priority string"),
    ("NORMAL", "key exchange RSA"), ("SECURE256", "key exchange RSA"), ("PERFORMANCE:-VERS-TLS1.3", "key exchange RSA"),
    ("NORMAL:-RSA:+PSK", "key exchange PSK"), ("NORMAL:-RSA:+ANON-ECDH", "key exchange ANON-ECDH"), ("NORMAL:-RSA:+ANON-DH", "key exchange ANON-DH"),
    ("NORMAL:-RSA:+NULL", "NULL"), ("NORMAL:-RSA:+ARCFOUR-128", "ARCFOUR-128"), ("NORMAL:-RSA:+3DES-CBC", "3DES-CBC"),
    ("NORMAL:-RSA:+MD5", "MD5"), ("NORMAL:-RSA:-VERS-ALL:+VERS-TLS1.1", "no protocol"), ("NORMAL:-RSA:-CIPHER-ALL", "no"),
    ("NORMAL:-KX-ALL:-VERS-TLS1.3", "key exchange")])
def test_bad_ciphers(tmp_path, shown, string, says):
    code, text = refused("--data", str(tmp_path / "d"), "--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-ciphers", string)
    assert code == 2 and "--tls-ciphers" in text and says in text


def test_options_that_want_others(tmp_path, shown, authority):
    data = ["--data", str(tmp_path / "d")]
    pair = ["--tls-cert", shown.cert, "--tls-key", shown.key]
    assert refused(*data, *pair, "--tls-min", "1.1")[0] == 2
    for flags in (["--tls-ciphers", "PFS"], ["--line-tls"], ["--tls-client-ca", authority.cert]):
        code, text = refused(*data, *flags)
        assert code == 2 and flags[0] + " wants --tls-cert" in text
    code, text = refused(*data, *pair, "--tls-client-ca", authority.cert)
    assert code == 2 and "wants --tokens" in text
    assert refused(*data, "--tls-cert", shown.cert)[0] == 2
    for cert, key, status in ((shown.key, shown.key, 2), (shown.cert, shown.cert, 2), (shown.cert, authority.key, 2), (str(tmp_path / "none"), shown.key, 1)):
        code, text = refused(*data, "--tls-cert", cert, "--tls-key", key)
        assert code == status and "tls-cert" in text or "cannot open" in text
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:someone read *\n")
    code, text = refused(*data, *pair, "--tokens", str(tokens), "--tls-client-ca", str(tokens))
    assert code == 2 and "--tls-client-ca" in text


# ---- bad handshakes -----------------------------------------------------------------------------------------------------------


def test_plain_text_and_rubbish(hasty, shown):
    for text in (b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n", os.urandom(300), b"\x16\x03\x01\x00\xf0\x01\x00\x00\xec\x03\x03" + os.urandom(236)):
        with socket.create_connection(("127.0.0.1", hasty.port), timeout=harness.HANG) as plain:
            plain.sendall(text)
            try:
                assert b"HTTP/1.1 200" not in plain.recv(1000)
            except OSError:
                pass

    def answered():
        with contextlib.suppress(OSError):  # this program may be too late for it, too
            return ask(hasty.port, certificates.context(shown.cert))[0]

    assert harness.wait_for(answered) == 200


@pytest.mark.parametrize("start", [b"", b"\x16\x03\x01\x02"])
def test_half_a_handshake_ends(hasty, start):
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=harness.HANG) as plain:
        plain.sendall(start)
        try:
            assert plain.recv(100) == b"", "it was ended by --header-timeout"
        except ConnectionResetError:
            pass


class Talk:
    """A conversation with openssl s_client, which takes a line that begins with R, K or k for a command, if it reads it alone."""

    def __init__(self, port, *words):
        self.process = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        self.said = b""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        while part := os.read(self.process.stdout.fileno(), 65536):
            self.said += part

    def say(self, text, answer=None, times=1):
        """Says it, and waits until the answer has been seen so many times."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(text)
            self.process.stdin.flush()
        if answer:
            harness.wait_for(lambda: self.said.count(answer) >= times or not self.thread.is_alive(), what="%r: %r" % (answer, self.said))

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.thread.join()
        self.process.wait()
        self.process.stdout.close()
        return self.said


def test_no_renegotiation(secure):
    talk = Talk(secure.port, "-tls1_2")
    talk.say(b"R\n", b"RENEGOTIATING")
    talk.say(b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"HTTP/1.1")  # or the end
    said = talk.end()
    assert b"RENEGOTIATING" in said and b"HTTP/1.1 200" not in said


def test_no_resumption(secure, shown):
    """No tickets and no cache: a session that was recorded is of no use to whoever gets hold of the server's memory later."""
    context = certificates.context(shown.cert, most=V12)
    with socket.create_connection(("127.0.0.1", secure.port)) as plain, context.wrap_socket(plain, server_hostname="localhost") as tls:
        session = tls.session
    with socket.create_connection(("127.0.0.1", secure.port)) as plain, \
            context.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
        assert not tls.session_reused


# ---- requests are judged as without TLS -----------------------------------------------------------------------------------------


def conversation(port, context, data, until=lambda text: False):
    with socket.create_connection(("127.0.0.1", port), timeout=harness.HANG) as plain, context.wrap_socket(plain, server_hostname="localhost") as tls:
        tls.sendall(data)
        text = b""
        while not until(text):
            try:
                part = tls.recv(65536)
            except ConnectionResetError:
                break
            if not part:
                break
            text += part
        return text


@pytest.mark.parametrize("head,code", [
    ("Content-Length: 3\r\nContent-Length: 4\r\n", b"400"), ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"400"),
    ("Content-Length : 3\r\n", b"400"), ("Transfer-Encoding: gzip\r\n", b"501"), ("X: a\r\n b\r\n", b"400")])
def test_framing(secure, shown, head, code):
    text = conversation(secure.port, certificates.context(shown.cert),
                        ("POST /kv HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/octet-stream\r\n%s\r\nabcGET /version HTTP/1.1\r\n"
                         "Host: localhost:%d\r\n\r\n" % (secure.port, head, secure.port)).encode())
    assert text.startswith(b"HTTP/1.1 " + code) and text.count(b"HTTP/1.1 ") == 1, text


@pytest.mark.parametrize("version", [V12, V13])
def test_many_requests_in_one_write(secure, shown, version):
    """GnuTLS has more in its buffer than libmicrohttpd asks for, and the socket says nothing of it."""
    one = "PUT /pairs/p%d HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: application/octet-stream\r\nContent-Length: 700\r\n\r\n"
    data = b"".join((one % (i, secure.port)).encode() + b"v" * 700 for i in range(60))
    text = conversation(secure.port, certificates.context(shown.cert, least=version, most=version), data, lambda t: t.count(b"HTTP/1.1 ") == 60)
    assert text.count(b"HTTP/1.1 20") == 60


@pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 100000, 3000000])
def test_bodies(secure, size):
    client = secure.client(db="bodies")
    value = os.urandom(size)
    key = client.upsert(b"size:%d" % size, value)
    assert client.get("/kv/%d?db=bodies" % key, headers={"Accept": "application/octet-stream"}).body == value


def queued(port):
    """Bytes that clients of the port have sent and the server has not taken from its sockets."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [row.split() for row in table][1:]
    return sum(int(row[4].split(":")[1], 16) for row in rows if row[1].endswith(":%04X" % port) and row[3] == "01")


def test_new_keys_within_a_connection(secure):
    """TLS 1.3: the client changes its key between two requests, and asks the server to."""
    talk, request = Talk(secure.port, "-tls1_3"), b"GET /version HTTP/1.1\r\nHost: a:%d\r\n\r\n" % secure.port
    talk.say(request, b"HTTP/1.1 ", 1)
    talk.say(b"K\n", b"KEYUPDATE", 1)
    talk.say(request, b"HTTP/1.1 ", 2)
    talk.say(b"k\n", b"KEYUPDATE", 2)
    talk.say(request, b"HTTP/1.1 ", 3)
    said = talk.end()
    assert said.count(b"KEYUPDATE") == 2 and said.count(b"HTTP/1.1 ") == 3, said


@pytest.mark.parametrize("times", [1, 3])
def test_new_keys_and_a_request_at_once(secure, times):
    """What lies behind records without text is read with them: nobody tells of it again."""
    talk, request = Talk(secure.port, "-tls1_3"), b"GET /version HTTP/1.1\r\nHost: a:%d\r\n\r\n" % secure.port
    talk.say(request, b"HTTP/1.1 ", 1)
    harness.wait_for(lambda: queued(secure.port) == 0)
    secure.pause()
    try:
        for command in [b"K\n"] * times + [request]:
            before = queued(secure.port)
            talk.say(command)
            harness.wait_for(lambda: queued(secure.port) > before)
    finally:
        secure.go_on()
    harness.wait_for(lambda: talk.said.count(b"HTTP/1.1 ") == 2, what=talk.said)
    assert talk.end().count(b"HTTP/1.1 200") == 2


# ---- the certificate ------------------------------------------------------------------------------------------------------------


def put(pair, cert, key):
    """As a tool that renews certificates does: new files take the place of the old."""
    for path, source in ((cert, pair.cert), (key, pair.key)):
        with open(source, "rb") as file, open(path + ".new", "wb") as out:
            out.write(file.read())
        os.chmod(path + ".new", 0o600)
        os.rename(path + ".new", path)


def reload(server, event="reloaded", about="certificate"):
    before = len([line for line in server.log(event) if about in line["message"]])
    server.signal(signal.SIGHUP)
    harness.wait_for(lambda: len([line for line in server.log(event) if about in line["message"]]) > before, what=event)


def test_reload_under_load(launch, folder, tmp_path, shown):
    """New connections get the new certificate; those that are open go on, and nobody fails."""
    other = certificates.self_signed(folder, "other")
    both = tmp_path / "both.pem"
    both.write_text(open(shown.cert, encoding="ascii").read() + open(other.cert, encoding="ascii").read())
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    put(shown, cert, key)
    server = launch("--durability", "os", "--idle-timeout", "3600", "--tls-cert", cert, "--tls-key", key, scheme="https", cafile=str(both))
    over, errors, seen = threading.Event(), [], [0, 0]

    def work():
        context = certificates.context(both)
        while not over.is_set():
            try:
                status, _, _, der = ask(server.port, context)
                assert status == 200
                seen[der == other.der] += 1
            except BaseException as error:
                errors.append(error)

    stays = http.client.HTTPSConnection("127.0.0.1", server.port, context=certificates.context(both), timeout=harness.HANG)
    threads = [threading.Thread(target=work) for _ in range(4)]

    def on_the_old():
        stays.request("GET", "/version")
        answer = stays.getresponse()
        answer.read()
        assert answer.status == 200 and stays.sock.getpeercert(binary_form=True) == shown.der

    on_the_old()
    for thread in threads:
        thread.start()
    harness.wait_for(lambda: seen[0] > 10, what="requests with the first certificate")
    put(other, cert, key)
    reload(server)
    begun = seen[1]
    harness.wait_for(lambda: seen[1] > begun + 10, what="requests with the second")
    for i in range(10):
        put(shown if i % 2 == 0 else other, cert, key)
        reload(server)
    assert ask(server.port, certificates.context(both))[3] == other.der
    on_the_old()
    over.set()
    for thread in threads:
        thread.join()
    stays.close()
    assert not errors, errors[:3]
    assert seen[0] > 10 and seen[1] > 10


def test_a_bad_file_changes_nothing(launch, folder, tmp_path, shown, authority):
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    put(shown, cert, key)
    tokens = tmp_path / "tokens"
    tokens.write_text("first-token-0123456 read *\n")
    tokens.chmod(0o600)
    server = launch("--tls-cert", cert, "--tls-key", key, "--tokens", str(tokens), scheme="https", cafile=shown.cert)
    context = certificates.context(shown.cert)
    whole = open(shown.cert, "rb").read()
    for number, (bad_cert, bad_key) in enumerate([(b"", None), (b"rubbish", None), (whole[:len(whole) // 2], None), (None, b""),
                                                 (None, open(authority.key, "rb").read()), (b"x" * (2 << 20), None)]):
        put(shown, cert, key)
        if bad_cert is not None:
            open(cert, "wb").write(bad_cert)
        if bad_key is not None:
            open(key, "wb").write(bad_key)
        reload(server, "reload_failed", "the certificate that was in force stays")
        status, _, _, der = ask(server.port, context, "/databases", "Authorization: Bearer first-token-0123456\r\n")
        assert status == 200 and der == shown.der
    os.unlink(cert)
    tokens.write_text("second-token-012345 read *\n")
    reload(server, "reload_failed", "the certificate that was in force stays")
    assert ask(server.port, context, "/databases", "Authorization: Bearer first-token-0123456\r\n")[0] == 401, "the tokens were read nevertheless"
    client = server.client(token="second-token-012345", check=False)
    text = client.get("/metrics").body.decode()
    assert "cheetah_tls_reloads_failed_total 7" in text
    ends = subprocess.run(["openssl", "x509", "-in", shown.cert, "-noout", "-checkend", "0"], capture_output=True, check=False)
    assert ends.returncode == 0
    stated = float(next(line.split()[1] for line in text.splitlines() if line.startswith("cheetah_tls_certificate_expires_seconds")))
    assert abs(stated - (time.time() + 2 * 86400)) < 3600
    put(shown, cert, key)
    reload(server)


@pytest.mark.parametrize("mode,warned", [(0o600, False), (0o400, False), (0o640, False), (0o644, True), (0o604, True), (0o660, True)])
def test_a_key_that_others_can_read(launch, tmp_path, shown, mode, warned):
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    put(shown, cert, key)
    os.chmod(key, mode)
    server = launch("--tls-cert", cert, "--tls-key", key, scheme="https", cafile=shown.cert)
    if warned:
        harness.wait_for(lambda: server.log("tls_key_readable"), what="the warning")
    lines = server.log("tls_key_readable")
    assert bool(lines) == warned and all(line["level"] == "warn" and key in line["message"] for line in lines)


def test_an_expired_certificate_is_told(launch, folder, authority):
    old = authority.sign("old", use="serverAuth", first="-3", last="-1")
    server = launch("--tls-cert", old.cert, "--tls-key", old.key, ready=False)
    harness.wait_for(lambda: server.log("tls_certificate_expired"), what="the warning")


def test_a_certificate_of_centuries_is_not_called_expired(launch, authority):
    """Its end in nanoseconds is more than 64 bits hold."""
    pair = authority.sign("centuries", use="serverAuth", last=str(365 * 550))
    server = launch("--tls-cert", pair.cert, "--tls-key", pair.key, scheme="https", cafile=authority.cert)
    assert not server.log("tls_certificate_expired")


# ---- clients' certificates ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clients(authority, folder):
    """Who may do what, and who nothing."""
    stranger = certificates.Authority(folder, "stranger")
    return {"reader": authority.sign("reader"), "writer": authority.sign("writer"), "admin": authority.sign("admin"),
            "pinned": authority.sign("pinned", "/CN=with blanks in it"), "plain-use": authority.sign("plain-use", "/CN=reader", use=None),
            "expiring": authority.sign("expiring"), "lasting": authority.sign("lasting", "/CN=reader", last=str(365 * 1000)),
            "unlisted": authority.sign("unlisted"), "nameless": authority.sign("nameless", "/O=reader"),
            "two-names": authority.sign("two-names", "/CN=admin/CN=reader"),
            "server": authority.sign("server-use", "/CN=admin", use="serverAuth"), "old": authority.sign("old-client", "/CN=admin", first="-3", last="-1"),
            "early": authority.sign("early", "/CN=admin", first="+1", last="+2"), "foreign": stranger.sign("foreign", "/CN=admin")}


TOKENS = """cert:reader read *
cert:writer write mine,theirs
cert:admin admin *
cert:sha256:%s write *
cert:expiring read * expires=2020-01-01
token-for-someone-else admin *
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, shown, authority, clients):
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text(TOKENS % clients["pinned"].fingerprint)
    tokens.chmod(0o600)
    server = harness.Server("--durability", "os", "--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-client-ca", authority.cert, "--tokens",
                            str(tokens), scheme="https", cafile=shown.cert)
    server.tokens = tokens
    yield server
    server.finish()


def calls(server, shown, client, header=None, version=None):
    """The statuses of a read, a write and an admin's call, in database mine, on one connection."""
    context = certificates.context(shown.cert, client, least=version, most=version)
    connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=harness.HANG)
    connection._create_connection = lambda address, *more: socket.create_connection(("127.0.0.1", address[1]), *more)
    statuses = []
    for method, path, body in (("GET", "/databases", None), ("PUT", "/pairs/p?db=mine", b"v"), ("POST", "/databases/mine/checkpoint", None)):
        headers = {"Content-Type": "application/octet-stream"} if body else {}
        if header:
            headers["Authorization"] = header
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status // 100 * 100 if answer.status < 300 else answer.status)
    connection.close()
    return statuses


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("who,statuses", [
    ("reader", [200, 403, 403]), ("writer", [200, 200, 403]), ("admin", [200, 200, 200]), ("pinned", [200, 200, 403]), ("plain-use", [200, 403, 403]),
    ("lasting", [200, 403, 403]), ("expiring", [401, 401, 401]), ("unlisted", [401, 401, 401]), ("nameless", [401, 401, 401]),
    ("two-names", [401, 401, 401]), (None, [401, 401, 401])])
def test_rights_of_certificates(guarded, shown, clients, who, statuses, version):
    assert calls(guarded, shown, clients[who] if who else None, version=version) == statuses


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("who", ["server", "old", "early", "foreign"])
def test_bad_certificates_end_the_handshake(guarded, shown, clients, who, version):
    admin = guarded.client(token="token-for-someone-else", check=False)

    def count():
        return next(float(line.split()[1]) for line in admin.get("/metrics").body.decode().splitlines()
                    if line.startswith("cheetah_tls_client_certificates_refused_total"))

    before = count()
    context = certificates.context(shown.cert, clients[who], least=version, most=version)
    with pytest.raises((ssl.SSLError, ConnectionError)) as error, socket.create_connection(("127.0.0.1", guarded.port), timeout=harness.HANG) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            wrapped.recv(1)  # and nothing is sent: what is written to a connection that has ended is an error without a word
    assert "alert" in str(error.value).lower() or isinstance(error.value, ConnectionError)
    harness.wait_for(lambda: count() == before + 1, what="the count")
    harness.wait_for(lambda: guarded.log("client_certificate_refused"), what="the line of the log")


def test_a_token_beside_a_certificate_decides(guarded, shown, clients):
    assert calls(guarded, shown, clients["reader"], "Bearer token-for-someone-else") == [200, 200, 200]
    assert calls(guarded, shown, clients["admin"], "Bearer wrong-token-01234567") == [401, 401, 401], "it is what the client says of itself"
    assert calls(guarded, shown, None, "Bearer token-for-someone-else") == [200, 200, 200]
    for text in ("cert:admin", "admin", "sha256:" + clients["pinned"].fingerprint, "cert:sha256:" + clients["pinned"].fingerprint,
                 clients["pinned"].fingerprint, clients["pinned"].fingerprint[:32]):
        assert calls(guarded, shown, None, "Bearer " + text) == [401, 401, 401], "what stands in the file is no token"


def test_databases_of_certificates(guarded, shown, clients):
    context = certificates.context(shown.cert, clients["writer"])
    assert ask(guarded.port, context, "/pairs/*?count=true&db=other")[0] == 403
    assert ask(guarded.port, context, "/pairs/*?count=true&db=theirs")[0] in (200, 404)


def test_a_line_that_is_taken_out_ends_its_streams(launch, tmp_path, shown, authority, clients):
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:reader read *\ncert:admin admin *\n")
    server = launch("--durability", "os", "--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-client-ca", authority.cert, "--tokens", str(tokens),
                    scheme="https", cafile=shown.cert)
    assert not server.log("tokens_readable"), "nothing in it is secret"
    admin = http.client.HTTPSConnection("127.0.0.1", server.port, context=certificates.context(shown.cert, clients["admin"]), timeout=harness.HANG)
    lines = b"".join(json.dumps({"op": "pair_put", "pair": harness.b64(b"p%06d" % i), "value": harness.b64(b"v" * 900)}).encode() + b"\n" for i in range(30000))
    admin.request("POST", "/batch", lines, {"Content-Type": "application/x-ndjson"})
    assert admin.getresponse().read() and admin.sock
    context = certificates.context(shown.cert, clients["reader"])
    with socket.create_connection(("127.0.0.1", server.port), timeout=harness.HANG) as plain, context.wrap_socket(plain, server_hostname="localhost") as tls:
        tls.sendall(("GET /pairs/*?values=true HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % server.port).encode())
        text = tls.recv(16384)
        tokens.write_text("cert:admin admin *\n")
        reload(server, about="tokens")
        while not text.endswith(b"0\r\n\r\n"):
            part = tls.recv(16384)
            if not part:
                break
            text += part
            if len(text) >> 18 > (len(text) - len(part)) >> 18:
                time.sleep(0.05)  # slowly: the streams are looked at five times a second
        assert b'"unauthorized"' in text[-2000:], text[-500:]
        tls.sendall(("GET /databases HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % server.port).encode())
        assert tls.recv(100).startswith(b"HTTP/1.1 401")


def test_authorities_are_reloaded(launch, folder, tmp_path, shown, authority, clients):
    """An authority that was taken out is nobody's any more: for connections that begin after it."""
    tokens, cas = tmp_path / "tokens", tmp_path / "cas"
    tokens.write_text("cert:admin admin *\n")
    cas.write_text(open(authority.cert, encoding="ascii").read())
    server = launch("--durability", "os", "--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-client-ca", str(cas), "--tokens", str(tokens),
                    scheme="https", cafile=shown.cert)
    assert calls(server, shown, clients["admin"]) == [200, 200, 200]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        calls(server, shown, clients["foreign"])
    cas.write_text(open(folder / "stranger.pem", encoding="ascii").read())
    reload(server)
    assert calls(server, shown, clients["foreign"]) == [200, 200, 200]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        calls(server, shown, clients["admin"])
    cas.write_text("")
    reload(server, "reload_failed", "the certificate that was in force stays")
    assert calls(server, shown, clients["foreign"]) == [200, 200, 200]


def test_a_certificate_that_expires(launch, tmp_path, shown, authority):
    """On an open connection: its requests are answered 401 from then on."""
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:reader read *\n")
    server = launch("--durability", "os", "--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-client-ca", authority.cert, "--tokens", str(tokens),
                    scheme="https", cafile=shown.cert)

    def status():
        connection.request("GET", "/databases")
        answer = connection.getresponse()
        answer.read()
        return answer.status

    for seconds in (2, 4, 8, 16, 32, 64):  # as many as this machine needs for a request
        short = authority.sign("short-%d" % seconds, "/CN=reader", last=str(seconds / 86400))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=certificates.context(shown.cert, short), timeout=harness.HANG)
        try:
            if status() == 200:
                break
        except (ssl.SSLError, ConnectionError):
            pass  # it had expired before the handshake
        connection.close()
    assert connection.sock
    harness.wait_for(lambda: status() == 401, what="its end", pause=0.2)
    connection.close()


@pytest.mark.parametrize("line,says", [("cert: read *", "cert:"), ("cert:sha256:12 read *", "64 hexadecimal"), ("cert:sha256:%s0 read *" % ("a" * 64), "64 hexadecimal"),
                                       ("cert:a write *\ncert:a read *", "there already"), ("cert:" + "n" * 257 + " read *", "cert:")])
def test_bad_lines(tmp_path, line, says):
    tokens = tmp_path / "tokens"
    tokens.write_text(line + "\n")
    code, text = refused("--data", str(tmp_path / "d"), "--tokens", str(tokens))
    assert code == 2 and "token file, line" in text and says in text


def test_a_fingerprint_as_openssl_prints_it(launch, tmp_path, shown, authority, clients):
    text = subprocess.run(["openssl", "x509", "-in", clients["unlisted"].cert, "-noout", "-fingerprint", "-sha256"], capture_output=True, text=True,
                          check=True).stdout.strip().partition("=")[2]
    assert ":" in text
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:sha256:%s admin *\n" % text)
    server = launch("--durability", "os", "--tls-cert", shown.cert, "--tls-key", shown.key, "--tls-client-ca", authority.cert, "--tokens", str(tokens),
                    scheme="https", cafile=shown.cert)
    assert calls(server, shown, clients["unlisted"]) == [200, 200, 200]
    assert calls(server, shown, clients["reader"]) == [401, 401, 401]
