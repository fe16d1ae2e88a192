"""The server is killed and started again while the client works: scans go on, no insert is lost or done twice."""
import subprocess
import threading
import time

import pytest
from conftest import url_of
from harness import certificates
from proxy import Proxy

from cheetah_http import Client, ConnectionLost, Forbidden, Retry, Unauthorized
from cheetah_http.dbslm import CheetahHotPathAdapter, hash_tokens

PATIENT = Retry(attempts=200, first=0.05, factor=1.0)


class Crashing:
    """A server behind a proxy that keeps its port; killed and started again every now and then."""

    def __init__(self, launch):
        self.server = launch("--shards", "2", "--access-log", "false")
        self.proxy = Proxy(self.server.port)
        self.stopped, self.crashes = threading.Event(), 0
        self.thread = threading.Thread(target=self._work)

    def __enter__(self):
        self.thread.start()
        return self

    def _work(self):
        while not self.stopped.wait(0.3 * 1.3**self.crashes):  # at last long enough for any disk
            self.server.kill()
            self.server.restart()
            self.proxy.target = self.server.port
            self.crashes += 1

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        self.proxy.__exit__()

    def until(self, crashes):
        return self.crashes < crashes


def test_no_insert_is_lost_or_done_twice(launch):
    known, unknown, number = {}, [], 0
    with Crashing(launch) as crashing, Client(crashing.proxy.url, retry=PATIENT) as db:
        while crashing.until(3) or len(known) < 30:
            value = b"value %d" % number
            number += 1
            try:
                known[db.insert(value)] = value
            except ConnectionLost as error:
                assert error.may_have_happened
                unknown.append(value)
                while not db.ready():
                    time.sleep(0.01)
    with Client(url_of(crashing.server)) as db:
        stored = {row.key: row.value for row in db.values()}
    assert all(stored.get(key) == value for key, value in known.items())
    others = [value for key, value in stored.items() if key not in known]
    assert len(others) == len(set(others)) and set(others) <= set(unknown)


def test_scans_and_published_rows_survive(launch):
    with Crashing(launch) as crashing, Client(crashing.proxy.url, retry=PATIENT) as db:
        names = [b"n:%05d" % i for i in range(3000)]
        with db.batch(max_operations=500) as batch:
            for name in names:
                batch.pair_put(name, b"v" + name)
        rows = 0
        with CheetahHotPathAdapter(db, batch_rows=200, flush_seconds=0) as adapter:
            while crashing.until(3) or rows < 1000:
                adapter.publish_context(hash_tokens([rows]), 1, [rows])
                adapter.publish_counts(2, hash_tokens([rows]), [(rows, 1)])
                rows += 1
                if rows % 500 == 0:
                    assert [row.pair for row in db.pairs(b"n:", page_size=700)] == names
        found = []
        for row in db.pairs(b"n:", values=True, page_size=100):
            assert row.value == b"v" + row.pair
            found.append(row.pair)
            time.sleep(0.0005)
        assert found == names
    with Client(url_of(crashing.server)) as db:
        assert db.count(b"ctx:") == db.count(b"ctxv:") == db.count(b"cnt:2:") == rows
        adapter = CheetahHotPathAdapter(db)
        assert sorted(row.record.followers[0][0] for row in db.counts(b"cnt:2:")) == list(range(rows))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "1",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                   check=True, capture_output=True)  # fmt: skip
    return cert, key


def test_tls(launch, certificate):
    cert, key = certificate
    server = launch("--tls-cert", cert, "--tls-key", key, scheme="https", cafile=cert)
    with Client("https://127.0.0.1:%d" % server.port, verify=cert) as db:
        assert db.read(db.insert(b"secret")) == b"secret"
    with Client("https://127.0.0.1:%d" % server.port, retry=Retry(attempts=0)) as db, pytest.raises(ConnectionLost):
        db.health()


def test_client_certificates(launch, tmp_path, certificate):
    cert, key = certificate
    authority = certificates.Authority(tmp_path)
    reader, writer = authority.sign("reader"), authority.sign("writer")
    tokens = tmp_path / "tokens"
    tokens.write_text("cert:reader read *\ncert:writer write *\n")
    server = launch("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", authority.cert, "--tokens", str(tokens), scheme="https", cafile=cert)
    url = "https://127.0.0.1:%d" % server.port
    with Client(url, verify=cert, cert=writer.files) as db:
        key_of = db.insert(b"secret")
    with Client(url, verify=certificates.context(cert), cert=reader.files) as db:
        assert db.read(key_of) == b"secret"
        with pytest.raises(Forbidden):
            db.insert(b"more")
    with Client(url, verify=cert) as db, pytest.raises(Unauthorized):
        db.read(key_of)


def test_threads_share_a_client(db):
    keys, errors = [], []

    def work(number):
        try:
            for i in range(50):
                key = db.insert(b"%d/%d" % (number, i))
                keys.append(key)
                assert db.read(key) == b"%d/%d" % (number, i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and sorted(keys) == list(range(1, 401))
