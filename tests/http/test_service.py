"""Health, metrics, version, the contract itself; HEAD, 405, problems, unknown routes, request ids, the access log."""
import json
import os
import re
import socket
import time
from collections import Counter
from email.utils import parsedate_to_datetime

import harness
import pytest
import requests
import yaml
from harness import ROOT, b64, contract, wait_for

OPEN = ["/healthz", "/readyz", "/version", "/metrics", "/openapi.yaml"]


@pytest.mark.parametrize("path", OPEN)
def test_service_calls(server, path):
    client = server.client()
    assert client.get(path).status == 200
    answer = client.get(path + "?anything=goes&x=%31&limit=0")
    assert answer.status == 200, "these ignore query parameters"
    head = client.head(path)
    assert head.status == 200 and head.body == b""


def test_version(server):
    text = server.client().get("/version").json()["version"]
    assert re.match(r"\d+\.\d+", text)


def test_openapi(server):
    answer = server.client().get("/openapi.yaml")
    document = yaml.safe_load(answer.body)
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == set(contract().document["paths"])


def test_metrics(client, server):
    client.upsert(b"a", b"v")
    client.scan()
    client.get("/kv/99999")
    answer = server.client().get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    names = set()
    for line in answer.body.decode().splitlines():
        if line.startswith("#"):
            assert re.match(r"# (HELP|TYPE) cheetah_\w+ ", line), line
        elif line:
            match = re.fullmatch(r'(cheetah_\w+)(\{(?:\w+="(?:[^"\\]|\\.)*",?)*\})? ([-+0-9.eE]+|[+-]Inf|NaN)', line)
            assert match, line
            names.add(match.group(1))
    for name in ("cheetah_http_requests_total", "cheetah_http_request_seconds_bucket", "cheetah_http_request_seconds_sum",
                 "cheetah_http_request_seconds_count", "cheetah_streams_open", "cheetah_stream_entries_total", "cheetah_stream_bytes_total",
                 "cheetah_commits_total", "cheetah_commit_operations_total", "cheetah_fsync_seconds_total", "cheetah_checkpoint_seconds_total",
                 "cheetah_dirty_bytes", "cheetah_log_bytes", "cheetah_corrupt_values_total", "cheetah_database_pairs",
                 "cheetah_database_values", "cheetah_database_bytes"):
        assert name in names, name


def requests_total(server, method, status, route):
    return sum(value for name, value in server.metrics().items() if name.startswith("cheetah_http_requests_total{")
               and 'method="%s"' % method in name and 'status="%s"' % status in name and route in name)


def routes():
    """(method, label) of every row of the table of calls."""
    with open(os.path.join(ROOT, "src", "http", "routes.c"), encoding="utf-8") as file:
        rows = re.findall(r'\.method = HTTP_METHOD_(\w+),.*?\.label = "([^"]+)"', file.read(), re.S)
    assert len(rows) > 20 and len(set(rows)) == len(rows)
    return rows


def requests_by_route(server):
    """{(method, label): how many were answered}, whatever the status. Reading it counts one more GET /metrics."""
    counts = Counter()
    for name, value in server.metrics().items():
        match = re.fullmatch(r'cheetah_http_requests_total\{route="([^"]*)",method="([^"]*)",status="\d*"\}', name)
        if match:
            counts[match.group(2), match.group(1)] += value
    return counts


PARTS = {"key": "1", "pair": "x61", "prefix": "x61", "mode": "counts", "name": "no-such", "file": "console.js", "table": "t"}


@pytest.mark.parametrize("method,label", routes(), ids=lambda part: part)
def test_every_route_has_a_count_of_its_own(launch_once, method, label):
    path = re.sub(r"\{(\w+)\}", lambda match: PARTS[match.group(1)], label)
    own, reading = (method, label), ("GET", "/metrics")
    before = requests_by_route(launch_once)
    launch_once.client(check=False).request(method, path)
    rises = wait_for(lambda: (lambda now: now[own] > before[own] and now - before)(requests_by_route(launch_once)), what="the count")
    del rises[reading]
    assert rises == ({own: 1} if own != reading else {})


@pytest.fixture(scope="module")
def launch_once():
    """A server that nobody else asks anything."""
    own = harness.Server("--durability", "os", "--access-log", "false")
    wait_for(lambda: requests_total(own, "GET", 200, "/readyz"), what="what the start asked: a request is counted after it was answered")
    yield own
    own.finish()


def test_metrics_count(launch):
    server = launch("--durability", "os")  # nobody else asks it anything that is counted late
    client = server.client(db="counted")
    assert client.put("/databases/counted").status == 201
    for n in range(1, 12):
        client.get("/kv/12345678")
    wait_for(lambda: requests_total(server, "GET", 404, "/kv/{key}") == n, what="the count of requests")
    names = ("cheetah_stream_entries_total", "cheetah_stream_bytes_total", "cheetah_commits_total", "cheetah_commit_operations_total")
    before = {name: server.metric(name) for name in names}
    client.put_all({b"a%d" % i: b"v" for i in range(20)})
    client.scan()
    for name, least in zip(names, (20, 20 * 20, 1, 20)):
        wait_for(lambda: server.metric(name) >= before[name] + least, what=name)
    after = server.metrics()
    assert after['cheetah_database_pairs{database="%s"}' % client.db] == 20
    assert after['cheetah_database_values{database="%s"}' % client.db] == 20
    assert after['cheetah_database_bytes{database="%s"}' % client.db] > 0


def test_the_histogram_adds_up(server):
    for _ in range(3):
        server.client().get("/healthz")
    rows = {name: value for name, value in server.metrics().items() if name.startswith("cheetah_http_request_seconds")}
    groups = {}
    for name, value in rows.items():
        match = re.fullmatch(r'cheetah_http_request_seconds_bucket\{(.*)\}', name)
        if match:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match.group(1)))
            bound = float(labels.pop("le").replace("+Inf", "inf"))
            groups.setdefault(tuple(sorted(labels.items())), []).append((bound, value))
    assert groups
    for buckets in groups.values():
        buckets.sort()
        assert buckets[-1][0] == float("inf")
        assert [v for _, v in buckets] == sorted(v for _, v in buckets), "buckets are cumulative"


def test_no_route_in_the_metrics_is_made_by_a_client(client, server):
    """Labels must not grow with what clients ask for."""
    for i in range(20):
        client.get("/no/such/route%d" % i)
        client.get("/pairs/some%d" % i, exact="true")
    text = server.client().get("/metrics").body.decode()
    assert "route7" not in text and "some7" not in text


GETS = ["/kv/1", "/kv", "/kv?keys=1,2", "/pairs/*", "/pairs/p?exact=true", "/pairs/p?exact=true&values=true", "/pairs/p?count=true", "/reduce/payloads/*",
        "/reduce/counts/p?decode=true", "/databases", "/databases/default", "/healthz", "/readyz", "/version", "/metrics", "/openapi.yaml",
        "/kv/999", "/kv/abc", "/pairs/none?exact=true", "/reduce/nope/a", "/nothing", "/kv?limit=0", "/pairs/x1", "/"]


@pytest.mark.parametrize("path", GETS)
def test_head_answers_as_get_without_a_body(client, server, path):
    client.put_new(b"p", b"value")
    get, head = client.get(path), client.head(path)
    assert head.status == get.status and head.body == b""
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    if "Content-Length" in head.headers and path not in ("/metrics", "/databases"):
        for _ in range(9):  # a checkpoint by itself may come between the two
            if head.headers["Content-Length"] == get.headers["Content-Length"]:
                break
            get, head = client.get(path), client.head(path)
        assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert client.get("/kv/1").status == 200, "the connection goes on"


def test_head_of_raw_bytes(client):
    client.put_new(b"p", b"value")
    head = client.head("/kv/1", headers={"Accept": "application/octet-stream"})
    assert head.headers["Content-Type"] == "application/octet-stream" and head.headers["Content-Length"] == "5"


def test_head_does_not_drain(client):
    client.upsert(b"q:1", b"v")
    client.head("/reduce/queue-drain/q:")
    assert len(client.scan()) == 1


@pytest.mark.parametrize("path,allowed,wrong", [
    ("/kv", "GET HEAD POST", "PUT DELETE PATCH"), ("/kv/1", "GET HEAD PUT DELETE", "POST PATCH"),
    ("/pairs/p", "GET HEAD PUT DELETE", "POST PATCH"), ("/batch", "POST", "GET HEAD PUT DELETE"), ("/pairs", "POST", "GET HEAD PUT DELETE"),
    ("/reduce/counts/p", "GET HEAD", "POST PUT DELETE"), ("/reduce/queue-drain/p", "GET HEAD POST", "PUT DELETE"), ("/reduce/associations/p", "GET HEAD", "POST PUT DELETE"),
    ("/healthz", "GET HEAD", "POST PUT DELETE"), ("/readyz", "GET HEAD", "POST"), ("/metrics", "GET HEAD", "POST"),
    ("/version", "GET HEAD", "POST"), ("/openapi.yaml", "GET HEAD", "POST DELETE"), ("/databases", "GET HEAD", "POST PUT DELETE"),
    ("/databases/a", "GET HEAD PUT DELETE", "POST"), ("/databases/default/checkpoint", "POST", "GET PUT")])
def test_wrong_method(server, path, allowed, wrong):
    client = server.client()
    for method in wrong.split() + ["BREW"]:
        answer = client.request(method, path)
        assert answer.status in (405,) if method != "BREW" else answer.status in (405, 501, 400), (method, answer)
        if answer.status == 405:
            assert {word.strip() for word in answer.headers["Allow"].split(",")} - {"OPTIONS"} == set(allowed.split()), method
            if method != "HEAD":
                assert answer.code == "method_not_allowed"


@pytest.mark.parametrize("path", ["/nothing", "/console/../metrics", "/consoles", "/kv/1/2", "/kvs", "/Kv", "/pair", "/reduce", "/databases/a/b", "/batch/",
                                  "/healthz/", "/databases/default/checkpoint/x", "//kv", "/kv/../healthz", "/%6bv", "/openapi.yml"])
def test_unknown_routes(server, path):
    client = server.client()
    for method in ("GET", "DELETE"):
        answer = client.request(method, path)
        assert answer.status in (404, 400) and answer.code in ("not_found", "invalid_key"), path


def test_kv_with_a_slash_is_not_a_key(server):
    answer = server.client().get("/kv/")
    assert answer.status in (400, 404) and answer.code in ("invalid_key", "not_found")


def test_problems(client):
    answer = client.get("/kv/42")
    assert answer.headers["Content-Type"].split(";")[0] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "about:blank" and problem["title"] == "Not Found" and problem["status"] == 404
    assert problem["code"] == "key_not_found" and "42" in problem["detail"]
    for path, title in (("/kv/abc", "Bad Request"), ("/nothing", "Not Found")):
        assert client.get(path).json()["title"] == title
    assert client.request("DELETE", "/batch").json()["title"] == "Method Not Allowed"


def test_details_are_safe_whatever_was_asked(client):
    for path in ("/kv/%22%5C%0A%00%FF", "/nothing/%22%0A", "/reduce/%22%0A%FF/a", "/pairs/x%22%FF", "/kv?%22%0A=1", "/kv?limit=%22%00%0A"):
        answer = client.get(path)
        assert 400 <= answer.status < 500
        json.loads(answer.body.decode("utf-8"))


def test_every_byte_at_every_place_of_a_string(client):
    """What is escaped is looked for 8 bytes at a time."""
    for place in (0, 3, 7, 8, 12, 16):
        for byte in range(1, 128):
            name = bytearray(b"abcdefghijklmnopq")
            name[place] = byte
            answer = client.get("/kv/1?" + "".join("%%%02X" % c for c in name) + "=1")
            assert answer.json()["detail"] == "/kv/{key} takes no parameter '%s'" % name.decode()


def test_request_ids(server):
    client = server.client()
    ids = [value for _ in range(3) for name, value in client.get("/version").headers.items() if "request-id" in name.lower()]
    assert len(ids) == len(set(ids))


def test_answers_to_requests_library(server, client):
    base = "http://127.0.0.1:%d" % server.port
    with requests.Session() as session:
        answer = session.post(base + "/kv", json={"value": b64(b"abc")}, params={"db": client.db})
        assert answer.status_code == 201
        answer = session.get(base + answer.headers["Location"].split("?")[0], params={"db": client.db})
        assert answer.json()["value"] == b64(b"abc")
        with session.get(base + "/pairs/*", params={"db": client.db}, stream=True) as stream:
            assert list(map(json.loads, stream.iter_lines())) == [{"end": {"count": 0, "next": None}}]


def test_location_leads_to_the_value(client):
    answer = client.post("/kv", b"abc")
    location = answer.headers["Location"]
    target = location if "db=" in location else location + "?db=" + client.db
    assert client.get(target).json()["value"] == b64(b"abc")


def test_access_log(launch):
    server = launch("--durability", "os", "--access-log", "true")
    client = server.client()
    client.upsert(b"a", b"v")
    client.get("/kv/77?db=default")
    client.get("/pairs/%22%0A?exact=true")
    lines = wait_for(lambda: [line for line in server.log("request") if "readyz" not in line["path"]][2:] and server.log("request"), what="log")
    for line in lines:
        for field in ("time", "level", "event", "method", "path", "status", "bytes", "micros", "id"):
            assert field in line, (field, line)
        assert isinstance(line["status"], int) and isinstance(line["bytes"], int) and line["micros"] >= 0
    rows = [(line["method"], line["path"].split("?")[0], line["status"]) for line in lines if "readyz" not in line["path"]]
    assert rows[0] == ("PUT", "/pairs/x61", 201) and rows[1] == ("GET", "/kv/77", 404)
    assert rows[2][0] == "GET" and rows[2][2] == 404
    assert len({line["id"] for line in lines}) == len(lines)


def test_access_log_off_and_text(launch):
    server = launch("--access-log", "false", "--log-format", "text")
    server.client().get("/version")
    server.stop()
    assert not [line for line in server.lines if "/version" in line]
    assert server.lines and not server.lines[0].startswith("{")


def test_every_line_of_the_log_is_json(launch):
    server = launch()
    server.client().upsert(b"a", b"v")
    server.stop()
    for line in server.lines:
        parsed = json.loads(line)
        assert {"time", "level", "event"} <= set(parsed)
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", parsed["time"])


def test_date(server):
    """Each answer has one Date, of now, also one whose object is used again."""
    key = server.client().upsert(b"dated", b"v")

    def date(path, status=200):
        answer = b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=harness.HANG) as plain:
            plain.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            while got := plain.recv(65536):
                answer += got
        head = answer.split(b"\r\n\r\n")[0].decode()
        assert head.startswith(f"HTTP/1.1 {status} "), head
        dates = re.findall(r"(?mi)^Date: (.*?)\r?$", head)
        assert len(dates) == 1, head
        return parsedate_to_datetime(dates[0]).timestamp()

    seen = set()
    for path, status in [(f"/kv/{key}", 200), ("/kv/999999", 404), ("/pairs/", 200), ("/nowhere", 404)] * 4:
        for _ in range(9):  # a worker looks at the clock once a round, and may wait for a processor in it
            before = int(time.time()) - 1
            at = date(path, status)
            if before <= at:
                break
        assert before <= at <= time.time(), path
        seen.add(at)
        time.sleep(0.1)
    assert len(seen) >= 2, "the second does not stand still"
