"""/console/: what is served, to whom, with which headers; GET / and GET /access."""
import gzip

import harness
import pytest

FILES = {"": "text/html; charset=utf-8", "console.js": "text/javascript; charset=utf-8", "console.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}
POLICY = {"default-src": ["'none'"], "script-src": ["'self'"], "style-src": ["'self'"], "img-src": ["'self'"], "connect-src": ["'self'"], "base-uri": ["'none'"],
          "form-action": ["'none'"], "frame-ancestors": ["'none'"]}


@pytest.mark.parametrize("name,kind", FILES.items())
def test_files(server, name, kind):
    client = server.client()
    plain = client.get("/console/" + name)
    assert plain.status == 200 and plain.headers["Content-Type"] == kind and "Content-Encoding" not in plain.headers
    packed = client.get("/console/" + name, headers={"Accept-Encoding": "br, gzip;q=0.8"})
    body = gzip.decompress(packed.body) if packed.headers.get("Content-Encoding") == "gzip" else packed.body
    assert body == plain.body and len(packed.body) <= len(plain.body)
    for refused in ("identity", "br", "gzip;q=0", "gzip; q=0.000"):
        assert client.get("/console/" + name, headers={"Accept-Encoding": refused}).body == plain.body
    for answer in (plain, packed):
        policy = {part.split()[0]: part.split()[1:] for part in answer.headers["Content-Security-Policy"].split(";")}
        assert policy == POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["Cache-Control"] == "no-cache" and answer.headers["Vary"] == "Accept-Encoding"
        again = client.get("/console/" + name, headers={"Accept-Encoding": "gzip" if answer is packed else "identity", "If-None-Match": answer.headers["ETag"]})
        assert again.status == 304 and again.body == b"" and again.headers["ETag"] == answer.headers["ETag"]
        assert client.get("/console/" + name, headers={"If-None-Match": '"another"'}).status == 200
    head = client.request("HEAD", "/console/" + name)
    assert head.status == 200 and head.body == b"" and head.headers["Content-Length"] == str(len(plain.body))


def test_preconditions_and_codings(server):
    """Those of any other call: lists, * and If-Match; what cannot be read is refused. Accept-Encoding by its q-values."""
    client = server.client()
    tag = client.get("/console/console.js").headers["ETag"]
    packed = client.get("/console/console.js", headers={"Accept-Encoding": "GZIP"})
    assert packed.headers["Content-Encoding"] == "gzip" and packed.headers["ETag"] != tag
    for header, status in ((("If-None-Match", '"x", W/' + tag), 304), (("If-None-Match", "*"), 304), (("If-None-Match", tag[:-1]), 400), (("If-Match", tag), 200),
                           (("If-Match", "*"), 200), (("If-Match", '"x"'), 412), (("If-Match", "x"), 400), (("If-Unmodified-Since", "x"), 400)):
        answer = client.get("/console/console.js", headers=dict([header]))
        assert answer.status == status, (header, answer)
    for coding, gzipped in (("*", True), ("x-gzip", True), ("gzip;q=0.001", True), ("notgzip", False), ("*;q=0", False), ("identity, gzip;q=0.5", False), ("gzip;Q=0", False)):
        answer = client.get("/console/console.js", headers={"Accept-Encoding": coding})
        assert ("Content-Encoding" in answer.headers) == gzipped, coding


def test_the_page_is_small_and_names_its_files_only(server):
    client = server.client()
    sizes = [len(client.get("/console/" + name, headers={"Accept-Encoding": "gzip"}).body) for name in FILES]
    assert sum(sizes) < 150000
    page = client.get("/console/").body.decode()
    assert "<script type=\"module\" crossorigin src=\"/console/console.js\"></script>" in page and "style=" not in page and "http:" not in page and "https:" not in page
    assert client.get("/console").body.decode() == page


def test_the_way_to_it(server):
    client = server.client()
    browser = client.get("/", headers={"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"})
    assert browser.status == 303 and browser.headers["Location"] == "/console/"
    for accept in (None, "*/*", "application/json", "application/json, text/html;q=0.5"):
        answer = client.get("/", headers={"Accept": accept} if accept else {})
        assert answer.status == 200 and answer.json()["name"] == "cheetah-db" and answer.json()["links"]["console"] == "/console/"
    assert client.get("/", headers={"Accept": "text/*, application/json;q=0.1"}).status == 303
    for method in ("POST", "PUT", "DELETE"):
        assert client.request(method, "/console/").status == 405 and client.request(method, "/").status == 405
    for path in ("/console/none", "/console/index.html", "/console/console.js.gz", "/console/x/console.js", "/console/..%2fmetrics"):
        assert client.get(path).status == 404, path


def test_off(launch):
    off = launch("--console", "false").client()
    for path in ("/console/", "/console", "/console/console.js"):
        answer = off.get(path)
        assert answer.status == 404 and answer.code == "not_found"
    answer = off.get("/", headers={"Accept": "text/html"})
    assert answer.status == 200 and "console" not in answer.json()["links"]


def test_access(launch, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("reads-two-0123456789 read a,b\nwrites-all-0123456789 write *\nadmin-of-a-0123456789 admin a\n")
    tokens.chmod(0o600)
    server = launch("--tokens", str(tokens))
    asked = {token: server.client(token=token).get("/access").json() for token in ("reads-two-0123456789", "writes-all-0123456789", "admin-of-a-0123456789")}
    assert asked == {"reads-two-0123456789": {"right": "read", "databases": ["a", "b"]}, "writes-all-0123456789": {"right": "write", "databases": None},
                     "admin-of-a-0123456789": {"right": "admin", "databases": ["a"]}}
    nobody = server.client()
    assert nobody.get("/access").status == 401
    for name in FILES:
        assert nobody.get("/console/" + name).status == 200
    assert launch().client().get("/access").json() == {"right": "admin", "databases": None}


@pytest.mark.skipif(harness.SANITIZED, reason="a bound on memory")
def test_it_costs_nothing_that_stays(launch):
    server = launch("--scrub-bytes-per-second", "0")
    client = server.client()
    client.get("/console/console.js")
    before = server.metrics()["cheetah_resident_bytes"]
    for _ in range(300):
        client.get("/console/console.js")
    assert server.metrics()["cheetah_resident_bytes"] < before + (8 << 20)
