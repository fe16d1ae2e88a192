"""Web pages (openapi.yaml): under which names the server is asked, pages of which origins may ask for what, CORS."""
import pytest
from harness import hexed

TOKEN = "0123456789abcdef-writer"
WRITES = [("PUT", "/pairs/stolen", b"v"), ("POST", "/kv", b"v"), ("DELETE", "/pairs/kept", None), ("DELETE", "/kv/1", None),
          ("POST", "/batch", b'{"op":"pair_put","pair":"c3RvbGVu","value":"dg=="}\n'), ("PUT", "/databases/stolen", b"{}"),
          ("DELETE", "/databases/default?confirm=default", None), ("POST", "/ngrams?order=2", b'{"tokens":[1,2]}\n'),
          ("POST", "/reduce/queue-drain/*?limit=9", b""), ("POST", "/databases/default/checkpoint", b""), ("POST", "/predict", b'{"tokens":[1]}')]


@pytest.fixture
def kept(launch):
    """start(flags...) -> a server that holds the value 1 and the pair `kept`, and a client that checks neither."""

    def start(*flags, **more):
        server = launch("--durability", "os", *flags, **more)
        client = server.client(check=False, token=TOKEN if "--tokens" in flags else None)
        assert client.put_new(b"kept", b"value") == 1
        return server, client

    return start


def unchanged(client):
    assert client.read(1) == b"value"
    assert client.scan() == [(b"kept", 1)]
    assert b"stolen" not in client.get("/databases").body


def asked_as(server, host, path="/kv", method="GET", **headers):
    with server.raw() as raw:
        lines = ["%s %s HTTP/1.1" % (method, path), "Host: " + host, "Content-Length: 0"]
        raw.send("\r\n".join(lines + ["%s: %s" % (k.replace("_", "-"), v) for k, v in headers.items()]) + "\r\n\r\n")
        return raw.answer(method)


GOOD = ["127.0.0.1", "127.0.0.1:%d", "localhost", "localhost:%d", "LocalHost:%d", "localhost.:%d", "[::1]", "[::1]:%d", "10.1.2.3:80", "192.168.0.255",
        "[fe80::1]:1", "[::ffff:127.0.0.1]:8080"]
BAD = ["evil.example", "evil.example:%d", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example.", "localhosts", "127.0.0.1.nip.io:80", "1.2.3",
       "1.2.3.4.5", "256.1.1.1", "0x7f.0.0.1", "2130706433", "", ":80", "127.0.0.1:99999", "127.0.0.1:x", "127.0.0.1@evil.example", "evil.example@127.0.0.1", "[::1",
       "::1", "[evil]", "[::1]x", "127.0.0.1 evil.example", "127.0.0.1,evil.example", "*", "xn--evil-9za.example", "evil\xff.example", "a" * 300]


@pytest.mark.parametrize("host", GOOD)
def test_names_that_are_addresses(server, host):
    assert asked_as(server, host % server.port if "%" in host else host).status == 200


@pytest.mark.parametrize("host", BAD, ids=range(len(BAD)))
def test_names_that_are_not(server, host):
    host = host % server.port if "%d" in host else host
    answer = asked_as(server, host)
    assert answer.status == 403 and answer.code == "forbidden_host", answer
    for method, path in (("PUT", "/pairs/a"), ("POST", "/batch"), ("DELETE", "/kv/1"), ("HEAD", "/kv"), ("GET", "/metrics"), ("GET", "/openapi.yaml"), ("GET", "/databases"),
                         ("GET", "/nothing"), ("OPTIONS", "/kv"), ("GET", "/healthzz"), ("GET", "/version/")):
        assert asked_as(server, host, path, method).status == 403, (method, path)
    for path in ("/healthz", "/readyz", "/version", "/version?x=1"):
        assert asked_as(server, host, path).status == 200, path
    assert asked_as(server, host, "/version", "POST").status in (403, 405)


def test_allowed_names(launch):
    server = launch("--durability", "os", "--allow-hosts", "db.example, cheetah")
    for host in ("db.example", "DB.example:8080", "cheetah", "cheetah.:1", "127.0.0.1", "localhost:1"):
        assert asked_as(server, host).status == 200, host
    for host in ("example", "a.db.example", "db.example.evil.example", "cheetah2"):
        assert asked_as(server, host).code == "forbidden_host", host
    assert asked_as(launch("--durability", "os", "--allow-hosts", "*"), "evil.example").status == 200


def test_names_with_tokens(launch, tmp_path):
    """Whoever has a token has no need of the rule, unless it is asked for; without a token nothing is said."""
    (tmp_path / "tokens").write_text(TOKEN + " admin *\n")
    (tmp_path / "tokens").chmod(0o600)
    server = launch("--tokens", str(tmp_path / "tokens"))
    assert asked_as(server, "evil.example", Authorization="Bearer " + TOKEN).status == 200
    assert asked_as(server, "evil.example").status == 401
    server = launch("--tokens", str(tmp_path / "tokens"), "--allow-hosts", "db.example")
    assert asked_as(server, "evil.example", Authorization="Bearer " + TOKEN).code == "forbidden_host"
    assert asked_as(server, "db.example", Authorization="Bearer " + TOKEN).status == 200


@pytest.mark.parametrize("flags", [("--allow-hosts", "http://a"), ("--allow-hosts", "a:80"), ("--cors-origins", "a.example"), ("--cors-origins", "https://"),
                                   ("--cors-origins", "https://a/b"), ("--cors-origins", "*"), ("--cors-origins", "https://a,ftp://b"), ("--cors-origins", "https://a:x")])
def test_lists_that_mean_nothing(flags):
    import harness
    with pytest.raises(AssertionError) as error:
        harness.Server("--durability", "os", *flags)
    assert flags[0] in str(error.value)


FOREIGN = [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "https://127.0.0.1:{port}"}, {"Origin": "http://127.0.0.1"}, {"Origin": "http://localhost:{port}"},
           {"Origin": "http://127.0.0.1:{port}.evil.example"}, {"Origin": "http://evil.example@127.0.0.1:{port}"}, {"Origin": ""}, {"Origin": "http://127.0.0.1:{port}/"},
           {"Origin": "file://"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}]


def test_foreign_pages_write_nothing(kept):
    server, client = kept()
    for headers in FOREIGN:
        headers = {k: v.format(port=server.port) for k, v in headers.items()}
        for i, (method, path, body) in enumerate(WRITES):
            kind = ("text/plain", "application/json", "application/x-www-form-urlencoded")[i % 3]
            answer = client.request(method, path, body, headers={"Content-Type": kind, **headers})
            assert answer.status == 403 and answer.code == "forbidden_origin", (method, path, headers, answer)
            assert not any(name.lower().startswith("access-control") for name in answer.headers)
        for path in ("/kv", "/pairs/*", "/version"):
            answer = client.get(path, headers=headers)
            assert answer.status == 200 and "Access-Control-Allow-Origin" not in answer.headers, "the browser shows it to nobody"
        unchanged(client)


@pytest.mark.parametrize("pipelined", [False, True])
def test_a_refused_body_is_not_run(kept, pipelined):
    """Neither as lines of a batch, nor as requests after it, whatever its length is."""
    server, client = kept()
    inner = b"PUT /pairs/stolen HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nv"
    for size in (len(inner), 5000, 3 << 20):
        body = inner + b" " * (size - len(inner))
        for framing in (b"Content-Length: %d\r\n\r\n%s" % (size, body), b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (size, body)):
            with server.raw() as raw:
                try:
                    raw.send(b"POST /batch HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\n" + framing)
                    if pipelined:
                        raw.send(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                except OSError:
                    pass
                answer = raw.answer()
                assert answer.status == 403 and answer.code == "forbidden_origin"
                if pipelined and answer.headers.get("connection", "").lower() != "close":
                    try:
                        assert raw.answer().status == 200
                    except EOFError:
                        assert size > 1 << 20, "a short body is read, and the connection goes on"
    unchanged(client)


def test_own_pages_and_programs(kept):
    server, client = kept()
    for headers in ({}, {"Origin": "http://127.0.0.1:%d" % server.port}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-site"},
                    {"Origin": "http://127.0.0.1:%d" % server.port, "Sec-Fetch-Site": "cross-site"}):
        assert client.put("/pairs/mine", b"v", headers=headers).status in (200, 201), headers
    assert asked_as(server, "localhost:%d" % server.port, "/kv", "POST", Origin="http://localhost:%d" % server.port).code == "empty_value"
    assert asked_as(server, "localhost", "/kv", "POST", Origin="http://localhost").code == "empty_value"
    assert asked_as(server, "localhost:80", "/kv", "POST", Origin="http://localhost").code == "empty_value"
    assert asked_as(server, "[::1]:%d" % server.port, "/kv", "POST", Origin="http://[::1]:%d" % server.port).code == "empty_value"
    assert asked_as(server, "[::1]:%d" % server.port, "/kv", "POST", Origin="http://[::2]:%d" % server.port).code == "forbidden_origin"




@pytest.mark.parametrize("origin", ["https://app.example", "http://tool.example:3000"])
def test_allowed_origins(kept, origin):
    server, client = kept("--cors-origins", "https://app.example,http://tool.example:3000")
    for method, path, body, status in (("PUT", "/pairs/mine", b"v", 201), ("GET", "/pairs/*", None, 200), ("GET", "/kv/99", None, 404), ("GET", "/kv/1", None, 200),
                                       ("DELETE", "/pairs/mine", None, 204), ("POST", "/kv", b"", 400), ("GET", "/nothing", None, 404), ("PATCH", "/kv", b"", 405),
                                       ("GET", "/reduce/stats/*", None, 200), ("GET", "/version", None, 200), ("POST", "/batch", b"\n", 200)):
        answer = client.request(method, path, body, headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
        assert answer.status == status, (method, path, answer)
        assert answer.headers["Access-Control-Allow-Origin"] == origin and answer.headers["Vary"] in ("Origin", "Origin, Accept", "Origin, Accept-Encoding"), (method, path)
        assert client.request(method, path, body).headers["Vary"].startswith("Origin"), "one without the headers is for no page"
        assert {"Cheetah-Cache", "Cheetah-Expires", "Cheetah-Key"} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))
        assert "Access-Control-Allow-Credentials" not in answer.headers
    for other in ("https://app.example.evil.example", "http://app.example", "https://app.example:444", "http://tool.example", "https://sub.app.example", "null"):
        answer = client.put("/pairs/stolen", b"v", headers={"Origin": other})
        assert answer.code == "forbidden_origin" and "Access-Control-Allow-Origin" not in answer.headers, other
        assert "Access-Control-Allow-Origin" not in client.get("/kv", headers={"Origin": other}).headers, other
    assert client.put("/pairs/mine", b"v", headers={"Sec-Fetch-Site": "cross-site"}).code == "forbidden_origin"
    assert client.put("/pairs/mine", b"v").status == 201, "a program's"


def test_preflight(kept):
    server, client = kept("--cors-origins", "https://app.example")
    for path, methods in (("/kv", "GET, HEAD, POST"), ("/kv/1", "GET, HEAD, PUT, DELETE"), ("/pairs/a", "GET, HEAD, PUT, DELETE"), ("/batch", "POST")):
        answer = client.request("OPTIONS", path, headers={"Origin": "https://app.example", "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"})
        assert answer.status == 204 and answer.body == b"", answer
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert set(methods.split(", ")) <= set(answer.headers["Access-Control-Allow-Methods"].split(", ")), answer.headers["Access-Control-Allow-Methods"]
        assert {"authorization", "content-type", "content-encoding"} <= set(answer.headers["Access-Control-Allow-Headers"].lower().split(", "))
        assert answer.headers["Access-Control-Max-Age"].isdigit()
        plain = client.request("OPTIONS", path)
        assert plain.status == 204 and set(methods.split(", ")) <= set(plain.headers["Allow"].split(", "))
        assert "Access-Control-Allow-Origin" not in plain.headers and "Access-Control-Allow-Methods" not in plain.headers
        foreign = client.request("OPTIONS", path, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"})
        assert foreign.status == 403 and "Access-Control-Allow-Origin" not in foreign.headers
    assert client.request("OPTIONS", "/nothing", headers={"Origin": "https://app.example"}).status == 404


def test_options_without_the_option(server):
    client = server.client(check=False)
    for headers in ({}, {"Origin": "http://evil.example"}):
        answer = client.request("OPTIONS", "/kv", headers=headers)
        assert answer.status == 405 and answer.code == "method_not_allowed" and "POST" in answer.headers["Allow"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    client.close()


def test_preflight_needs_no_token(launch, tmp_path):
    """A browser sends none with it; the request itself needs one."""
    (tmp_path / "tokens").write_text(TOKEN + " write *\n")
    (tmp_path / "tokens").chmod(0o600)
    server = launch("--tokens", str(tmp_path / "tokens"), "--cors-origins", "https://app.example")
    client = server.client(check=False)
    origin = {"Origin": "https://app.example"}
    answer = client.request("OPTIONS", "/pairs/a", headers={**origin, "Access-Control-Request-Method": "PUT"})
    assert answer.status == 204 and "PUT" in answer.headers["Access-Control-Allow-Methods"]
    answer = client.put("/pairs/a", b"v", headers=origin)
    assert answer.status == 401 and answer.headers["Access-Control-Allow-Origin"] == "https://app.example", "so that the page sees why"
    assert client.put("/pairs/a", b"v", headers={**origin, "Authorization": "Bearer " + TOKEN}).status == 201
    assert client.request("OPTIONS", "/pairs/a", headers={"Origin": "https://evil.example"}).status == 403
    assert client.request("OPTIONS", "/pairs/a").status == 401, "no page asks"
    client.token = TOKEN
    assert client.scan(b"a") == [(b"a", 1)] and hexed(b"a") == "x61"
