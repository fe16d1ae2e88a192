"""The line protocol over TLS: --line-tls, clients' certificates, and no AUTH in clear beyond loopback."""
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
TOKEN = "writer-token-0123456789"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def shown(folder):
    return certificates.self_signed(folder)


@pytest.fixture(scope="module")
def authority(folder):
    return certificates.Authority(folder)


def start(launch, shown, *flags):
    server = launch("--tls-cert", shown.cert, "--tls-key", shown.key, "--line-tls", *flags, scheme="https", cafile=shown.cert)
    server.context = certificates.context(shown.cert)
    return server


@pytest.fixture
def secure(launch, shown):
    return start(launch, shown, "--durability", "os")


@pytest.mark.parametrize("version", [V12, V13])
def test_commands(secure, shown, version):
    with secure.line(context=certificates.context(shown.cert, least=version, most=version)) as line:
        assert line.ask("INSERT hello") == b"SUCCESS,key=1"
        assert line.ask("READ 1") == b"SUCCESS,size=5,value=hello"
        value = os.urandom(3 << 20).replace(b"\n", b".")
        line.send(b"INSERT:%d %s\n" % (len(value), value))
        assert line.answer() == b"SUCCESS,key=2"
        assert line.ask("READ 2") == b"SUCCESS,size=%d,value=%s" % (len(value), value)
        assert line.ask("EXIT") is None


@pytest.mark.parametrize("version", [V12, V13])
def test_many_in_flight(secure, shown, version):
    """More commands than a record holds, and more answers than the socket takes."""
    with secure.line(context=certificates.context(shown.cert, least=version, most=version)) as line:
        value = b"v" * 3000
        line.send(b"INSERT " + value + b"\n")
        assert line.answer() == b"SUCCESS,key=1"
        line.send(b"READ 1\n" * 20000)
        time.sleep(1)  # the server's records find no room by now
        for _ in range(20000):
            assert line.answer() == b"SUCCESS,size=3000,value=" + value
        answers = line.many(["INSERT %d" % i for i in range(5000)])
        assert answers == [b"SUCCESS,key=%d" % (i + 2) for i in range(5000)]


def test_the_end_of_a_client(secure):
    """What came before an end is answered, whether the client said it as TLS does or only closed its side; half a line is not executed."""
    with secure.line(context=secure.context) as line:
        line.send(b"INSERT a\nINSERT half")
        assert line.answer() == b"SUCCESS,key=1"
        with socket.socket(fileno=os.dup(line.socket.fileno())) as below:
            below.shutdown(socket.SHUT_WR)
        assert line.closed()
    line = secure.line(context=secure.context)
    line.send(b"INSERT b\nINSERT half")
    try:
        line.socket.settimeout(10)
        line.socket.unwrap()
    except (ssl.SSLError, OSError):
        pass  # the answer comes before the other side's end
    line.close()
    harness.wait_for(lambda: secure.metric("cheetah_line_connections_open") == 0, what="the end of both")
    with secure.line(context=secure.context) as line:
        assert line.ask("READ 2") == b"SUCCESS,size=1,value=b"
        assert line.ask("READ 3") == b"ERROR,key_not_found"


def test_new_keys_within_a_connection(secure):
    with subprocess.Popen(["openssl", "s_client", "-tls1_3", "-connect", "127.0.0.1:%d" % secure.line_port], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # fmt: skip
        told = []
        reader = threading.Thread(target=lambda: told.extend(iter(lambda: os.read(process.stdout.fileno(), 65536), b"")))
        reader.start()
        try:
            for sent, mark, times in ((b"INSERT a", b"SUCCESS,key=1", 1), (b"K", b"KEYUPDATE", 1), (b"INSERT b", b"SUCCESS,key=2", 1), (b"k", b"KEYUPDATE", 2),
                                      (b"read 2", b"SUCCESS,size=1,value=b", 1)):  # fmt: skip
                process.stdin.write(sent + b"\n")  # K is a command of openssl's if it is read alone
                process.stdin.flush()
                harness.wait_for(lambda: b"".join(told).count(mark) >= times, what="%r in %r" % (mark, told))
        finally:
            process.kill()
            process.wait()
            reader.join()
    assert b"".join(told).count(b"KEYUPDATE") == 2


@pytest.mark.parametrize("text", [b"INSERT plain\nAUTH " + TOKEN.encode() + b"\n", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 500], ids=["commands", "HTTP", "rubbish"])
def test_plain_text_is_no_handshake(secure, text):
    with secure.line() as line:
        line.send(text)
        assert line.closed()
    with secure.line(context=secure.context) as line:
        assert line.ask("READ 1") == b"ERROR,key_not_found"


@pytest.mark.parametrize("words", [("-tls1_1",), ("-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"), ("-tls1_2", "-cipher", "aNULL:@SECLEVEL=0")])
def test_what_is_not_spoken(secure, words):
    result = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % secure.line_port, *words], input=b"", capture_output=True, timeout=120, check=False)
    assert result.returncode != 0
    with secure.line(context=secure.context) as line:
        assert line.ask("READ 1") == b"ERROR,key_not_found"


def test_the_server_stops_while_a_handshake_waits(secure):
    with socket.create_connection(("127.0.0.1", secure.line_port)) as half:
        half.sendall(b"\x16\x03\x01\x02")
        harness.wait_for(lambda: secure.metric("cheetah_line_connections_open") == 1, what="the connection")
        begun = time.monotonic()
        secure.stop()
        assert time.monotonic() - begun < 8


def test_beyond_the_limit_there_is_no_plain_answer(launch, shown):
    server = start(launch, shown, "--line-connections", "1")
    with server.line(context=server.context) as first:
        assert first.ask("READ 1") == b"ERROR,key_not_found"
        with pytest.raises((ssl.SSLError, OSError)), server.line(context=server.context):
            pass
        with server.line() as plain:
            assert plain.answer() is None


# ---- who the client is ------------------------------------------------------------------------------------------------------


def test_certificates_and_tokens(launch, tmp_path, shown, authority):
    reader, writer, unlisted = (authority.sign(name) for name in ("reader", "writer", "unlisted"))
    foreign = certificates.Authority(tmp_path, "stranger").sign("foreign", "/CN=writer")
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:reader read *\ncert:writer write default\n%s write *\n" % TOKEN)
    tokens.chmod(0o600)
    server = start(launch, shown, "--durability", "os", "--tls-client-ca", authority.cert, "--tokens", str(tokens))

    def line(client=None):
        return server.line(context=certificates.context(shown.cert, client))

    with line(writer) as one:
        assert one.ask("INSERT x") == b"SUCCESS,key=1"
        assert one.ask("DATABASE other") == b"ERROR,forbidden"
        one.send(b"INSERT:2000 " + b"v" * 2000 + b"\n")
        assert one.answer() == b"SUCCESS,key=2", "it is no stranger: its lines may be long"
    with line(reader) as one:
        assert one.ask("READ 1") == b"SUCCESS,size=1,value=x"
        assert one.ask("INSERT y") == b"ERROR,forbidden"
        assert one.ask("AUTH wrong-token-0123456789") == b"ERROR,unauthorized"
        assert one.ask("READ 1") == b"SUCCESS,size=1,value=x", "what the certificate allows is not lost"
        assert one.ask("AUTH " + TOKEN) == b"SUCCESS,authenticated"
        assert one.ask("INSERT y") == b"SUCCESS,key=3"
    for client in (unlisted, None):
        with line(client) as one:
            assert one.ask("READ 1") == b"ERROR,unauthorized"
            assert one.ask("AUTH " + TOKEN) == b"SUCCESS,authenticated"
            assert one.ask("READ 1") == b"SUCCESS,size=1,value=x"
    with pytest.raises((ssl.SSLError, OSError, AssertionError)), line(foreign) as one:
        assert one.ask("READ 1") is not None
    with line(writer) as one:
        assert one.ask("READ 1") == b"SUCCESS,size=1,value=x"
        tokens.write_text("cert:reader read *\n")
        server.signal(signal.SIGHUP)
        harness.wait_for(lambda: server.log("reloaded"), what="the reload")
        assert one.ask("READ 1") == b"ERROR,unauthorized"


@pytest.mark.parametrize("version", [V12, V13])
def test_a_slow_handshake(launch, tmp_path, shown, authority, version):
    """Its certificate counts, though the server has looked at the connection before it came."""
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:slow write *\n")
    tokens.chmod(0o600)
    server = start(launch, shown, "--durability", "os", "--tls-client-ca", authority.cert, "--tokens", str(tokens))
    context = certificates.context(shown.cert, authority.sign("slow"), least=version, most=version)
    came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(came, goes, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", server.line_port), timeout=120) as plain:

        def until_done(what):
            while True:
                try:
                    return what()
                except ssl.SSLWantReadError:
                    plain.sendall(goes.read())
                    time.sleep(1.2)  # it is looked at twice a second
                    came.write(plain.recv(65536))

        until_done(tls.do_handshake)
        plain.sendall(goes.read())
        tls.write(b"INSERT x\n")
        plain.sendall(goes.read())
        assert until_done(lambda: tls.read(100)) == b"SUCCESS,key=1\n"


def test_reload(launch, folder, tmp_path, shown):
    other = certificates.self_signed(folder, "other")
    cert, key = tmp_path / "cert", tmp_path / "key"

    def put(pair):
        cert.write_bytes(open(pair.cert, "rb").read())
        key.write_bytes(open(pair.key, "rb").read())
        key.chmod(0o600)

    put(shown)
    server = start(launch, certificates.Pair(cert, key))
    with server.line(context=certificates.context(shown.cert)) as old:
        assert old.ask("INSERT x") == b"SUCCESS,key=1"
        put(other)
        server.signal(signal.SIGHUP)
        harness.wait_for(lambda: [line for line in server.log("reloaded") if "certificate" in line["message"]], what="the reload")
        with server.line(context=certificates.context(other.cert)) as new:
            assert new.ask("READ 1") == b"SUCCESS,size=1,value=x"
        assert old.ask("READ 1") == b"SUCCESS,size=1,value=x"


# ---- beyond loopback ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_no_auth_in_clear_beyond_loopback(launch, tmp_path, shown, address):
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKEN + " write *\n")
    tokens.chmod(0o600)
    for more in ([], ["--allow-anonymous"], ["--tls-cert", shown.cert, "--tls-key", shown.key]):
        result = subprocess.run([harness.BINARY, "serve", "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"), "--line-listen", address, "--tokens",
                                 str(tokens), *more], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 2 and "line-listen" in result.stderr and "--line-tls" in result.stderr and "in clear" in result.stderr
    server = start(launch, shown, "--line-listen", address, "--tokens", str(tokens))
    with server.line(context=server.context) as line:
        assert line.ask("AUTH " + TOKEN) == b"SUCCESS,authenticated"
    assert not server.log("line_plain")


def test_plain_without_tokens_is_told(launch):
    server = launch("--line-listen", "0.0.0.0:0", "--allow-anonymous")
    harness.wait_for(lambda: server.log("line_plain"), what="the log line")


# ---- the shell ------------------------------------------------------------------------------------------------------------------


def shell(server, *flags, text, token=None):
    env = {k: v for k, v in os.environ.items() if not k.startswith("CHEETAH_")}
    if token:
        env["CHEETAH_TOKEN"] = token
    return subprocess.run([harness.BINARY, "shell", "--connect", "127.0.0.1:%d" % server.line_port, *flags], input=text.encode(), capture_output=True,
                          timeout=120, env=env, check=False)


def test_shell(secure, shown, authority):
    result = shell(secure, "--tls-ca", shown.cert, text="INSERT hello\nREAD 1\n" * 3000)
    assert result.returncode == 0 and result.stderr == b""
    assert result.stdout.splitlines()[-2:] == [b"SUCCESS,key=3000", b"SUCCESS,size=5,value=hello"]
    assert len(result.stdout.splitlines()) == 6000
    assert shell(secure, "--tls-ca", shown.cert, text="EXIT\n").returncode == 0
    for flags, says in ((["--tls"], b"NOT trusted"), (["--tls-ca", authority.cert], b"NOT trusted"), (["--tls-ca", "/none"], b"certificate")):
        result = shell(secure, *flags, text="READ 1\n")
        assert result.returncode in (1, 2) and result.stdout == b"" and says in result.stderr, result.stderr
    result = shell(secure, "--tls-cert", shown.cert, text="READ 1\n")
    assert result.returncode == 2 and b"go together" in result.stderr
    assert b"SUCCESS" not in shell(secure, text="READ 1\n").stdout, "plain"


def test_the_shell_wants_the_name_that_it_asked_for(launch, folder, tmp_path):
    cert, key = tmp_path / "cert", tmp_path / "key"
    certificates.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=elsewhere",
                         "-addext", "subjectAltName=DNS:elsewhere")
    server = launch("--tls-cert", str(cert), "--tls-key", str(key), "--line-tls", ready=False)
    result = shell(server, "--tls-ca", str(cert), text="READ 1\n")
    assert result.returncode == 1 and b"name" in result.stderr and result.stdout == b""


def test_shell_with_a_certificate(launch, tmp_path, shown, authority):
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:shell write *\n")
    server = start(launch, shown, "--tls-client-ca", authority.cert, "--tokens", str(tokens))
    client = authority.sign("shell")
    result = shell(server, "--tls-ca", shown.cert, "--tls-cert", client.cert, "--tls-key", client.key, text="INSERT x\n")
    assert result.stdout == b"SUCCESS,key=1\n" and result.returncode == 0, result
    result = shell(server, "--tls-ca", shown.cert, text="INSERT x\n")
    assert result.stdout == b"ERROR,unauthorized\n"
