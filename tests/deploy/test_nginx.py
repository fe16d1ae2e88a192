"""deploy/nginx: Debian's nginx with the configuration that ships; only addresses and the log's place are exchanged."""
import time

import pytest

import load
from conftest import free_port, in_deploy, run, tool
from harness import wait_for
from proxied import Front, check_backpressure, check_framing, check_names_pass_through, check_request_ids, check_upload_is_not_collected, fill_with_64_mib

MAIN = """daemon off;
%(user)s
pid %(place)s/nginx.pid;
error_log %(place)s/error.log;
events { worker_connections 1024; }
http {
    client_body_temp_path %(place)s/body;
    proxy_temp_path %(place)s/proxy;
    fastcgi_temp_path %(place)s/fastcgi;
    uwsgi_temp_path %(place)s/uwsgi;
    scgi_temp_path %(place)s/scgi;
    include %(place)s/cheetah.conf;
}
"""


def configure(place, front, a, b):
    with open(in_deploy("nginx", "cheetah.conf"), encoding="utf-8") as file:
        text = file.read()
    for old, new in (("127.0.0.1:8081", "127.0.0.1:%d" % a), ("127.0.0.1:8082", "127.0.0.1:%d" % b),
                     ("listen 8080;", "listen 127.0.0.1:%d;" % front.port),
                     ("listen 127.0.0.1:8079;", "listen 127.0.0.1:%d;" % front.writer_port),
                     ("/var/log/nginx/", "%s/" % place)):
        assert old in text, old
        text = text.replace(old, new)
    (place / "cheetah.conf").write_text(text)
    root = run("id", "-u").strip() == "0"
    (place / "nginx.conf").write_text(MAIN % {"place": place, "user": "user root;" if root else ""})
    return str(place / "nginx.conf")


@pytest.fixture
def proxy(spawn, tmp_path):
    def start(a, b):
        program = tool("nginx")
        front = Front(free_port(), free_port())
        config = configure(tmp_path, front, a.port, b.port)
        run(program, "-t", "-c", config, "-e", "stderr")
        front.process = spawn(program, "-c", config, "-e", str(tmp_path / "error.log"))
        wait_for(lambda: front.answers("/readyz") or front.process.poll() is not None, what="nginx")
        assert front.process.poll() is None, (tmp_path / "error.log").read_text()
        return front

    return start


def test_the_configuration_is_accepted_as_it_is(tmp_path):
    program = tool("nginx")
    front = Front(free_port(), free_port())
    text = run(program, "-t", "-c", configure(tmp_path, front, 8081, 8082), "-e", "stderr")
    assert "test is successful" in text and "[warn]" not in text, text


def test_names_ids_and_streams(launch, proxy):
    a, b = launch("--durability", "os"), launch("--durability", "os")
    front = proxy(a, b)
    check_names_pass_through(front, zero=False)
    check_request_ids(front, [a, b])
    fill_with_64_mib(front)
    check_backpressure(front, a, port=front.writer_port)
    check_upload_is_not_collected(front, a, port=front.writer_port)


def test_ambiguous_forms(launch, proxy, tmp_path):
    a = launch("--durability", "os")
    check_framing(proxy(a, a), a, (tmp_path / "cheetah.log").read_text)


def test_a_zero_byte_needs_hex(launch, proxy):
    """As the head of the file says."""
    a = launch()
    front = proxy(a, a)
    client = front.client()
    assert client.put("/pairs/x610062", b"v").status == 201
    assert client.get("/pairs/x610062?exact=true").status == 200
    assert client.get("/pairs/a%00b?exact=true").status == 400
    for port in (front.port, front.writer_port):
        closed = front.client(port)
        assert closed.get("/metrics").status == 404 and closed.get("/metrics?x=1").status == 404
        closed.close()
    client.close()


def test_connections_to_the_servers_are_kept(launch, proxy):
    a = launch()
    front = proxy(a, a)
    client = front.client()
    for _ in range(5):
        client.get("/kv?limit=1")
    before = a.metric("cheetah_connections_open")
    for _ in range(300):
        assert client.get("/kv?limit=1").status == 200
    assert a.metric("cheetah_connections_open") <= before + 2
    client.close()


def test_a_restart_costs_no_read_an_error(launch, proxy):
    a = launch("--drain-seconds", "1", "--listen", "127.0.0.1:%d" % free_port())
    b = launch("--drain-seconds", "0")
    for server in (a, b):
        load.load_sample(server)
    expected = load.answers_of(a)
    front = proxy(a, b)
    running = load.Load(front.port, expected)
    try:
        time.sleep(0.5)
        a.stop()
        time.sleep(1)
        before = len(a.lines)
        a.restart()
        wait_for(lambda: any('"path":"/predict"' in line for line in a.lines[before:]) and running.answers > 500, what="it is asked again after its restart")
    finally:
        running.stop()
    assert not running.failures, running.failures[:10]
