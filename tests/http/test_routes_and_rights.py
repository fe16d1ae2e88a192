"""Every operation of openapi.yaml, with every right and with tokens that are none: a new call is tested as soon as it is described, and
tests/lint/openapi.py sees to it that it is described, with its right."""
import hashlib
import json
import os
import re

import pytest
import harness
from harness import contract

RIGHTS = ["open", "read", "write", "admin"]
VALID = {right: right + "-of-a-0123456789" for right in RIGHTS[1:]}
ELSEWHERE = {right: right + "-of-b-0123456789" for right in RIGHTS[1:]}
HASHED, EXPIRED = "hashed-0123456789-token", "expired-0123456789-token"
DIGEST = hashlib.sha256(HASHED.encode()).hexdigest()
BAD = {"none": None, "empty": "Bearer ", "unknown": "Bearer nobody-knows-this-token", "expired": "Bearer " + EXPIRED, "the hash": "Bearer " + DIGEST,
       "the line": "Bearer sha256:" + DIGEST, "cut": "Bearer " + VALID["admin"][:-1], "longer": "Bearer " + VALID["admin"] + "0", "basic": "Basic " + VALID["admin"],
       "bare": VALID["admin"], "two": "Bearer %s %s" % (VALID["admin"], VALID["admin"]), "comma": "Bearer %s," % VALID["admin"],
       "case": "Bearer " + VALID["admin"].upper(), "long": "Bearer " + "x" * 5000}
PARTS = {"key": "1", "pair": "p", "prefix": "zz", "mode": "payloads", "name": "a", "file": "console.js", "table": "t"}
METHODS = ["GET", "HEAD", "PUT", "POST", "DELETE"]


def body_of(operation):
    """(content type, bytes) of a request that is worth running: an example of the contract."""
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        example = media.get("example", next((e["value"] for e in media.get("examples", {}).values()), None))
        if kind == "application/json" and example is not None:
            return kind, json.dumps(example).encode()
        if kind == "text/plain" and example is not None:
            return kind, example.encode()
        if kind == "application/x-ndjson" and example is not None:
            lines = example if isinstance(example, list) else [example]
            return kind, "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines).encode()
    return ("application/octet-stream", b"v") if "requestBody" in operation else (None, None)


BODIES = {}  # (method, target) -> body_of


def operations():
    """(method, path with its parts filled in, the right, whether it is about one database)"""
    for template, item in contract().document["paths"].items():
        for method, operation in item.items():
            if method.upper() not in METHODS:
                continue
            path = re.sub(r"\{(\w+)\}", lambda m: PARTS[m.group(1)], template).replace("/smooth/zz", "/smooth/cnt:").replace("/matrix/zz", "/matrix/cnt:")
            named = "{name}" in template
            given = [contract().follow(p) for p in operation.get("parameters", []) + item.get("parameters", [])]
            asks = {p["name"]: p for p in given if p["in"] == "query"}
            query = ["db=a"] if "db" in asks else []
            query += ["%s=%s" % (name, p.get("example", "1")) for name, p in asks.items() if p.get("required") and name != "confirm"]
            target = path + ("?" + "&".join(query) if query else "")
            BODIES[method.upper(), target] = body_of(operation)
            yield method.upper(), target, operation["x-right"], named or "db" in asks
            if method == "get":
                yield "HEAD", target, operation["x-right"], named or "db" in asks


OPERATIONS = sorted(set(operations()))


REFUSED = {("DELETE", "/databases/a"), ("POST", "/databases/a/merge?from=a")}  # 400 for whoever may: it is not confirmed, it is the same


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("".join("%s %s a\n%s %s b\n" % (VALID[r], r, ELSEWHERE[r], r) for r in VALID)
                    + "sha256:%s admin *\n%s admin * expires=2026-01-01\n" % (DIGEST, EXPIRED))
    os.chmod(path, 0o600)
    server = harness.Server("--durability", "os", "--tokens", str(path), "--shards", "1")
    boss = server.client(token=HASHED)
    for db in "ab":
        assert boss.put("/databases/" + db).status == 201
        server.client(token=HASHED, db=db).put_new(b"p", b"v")
    server.asker = server.client(check=False)
    yield server
    server.finish()


def ask(server, method, target, header):
    kind, body = BODIES.get((method, target), (None, None))
    headers = {"Authorization": header} if header is not None else {}
    if body:
        headers["Content-Type"] = kind
    return server.asker.request(method, target, body, headers=headers)


def essence(answer):
    """What an answer tells: all but ids and times."""
    problem = json.loads(answer.body) if answer.body else {}
    told = {k: v for k, v in problem.items() if k not in ("instance", "request_id", "id")}
    return answer.status, answer.headers.get("Content-Type"), answer.headers.get("WWW-Authenticate"), answer.headers.get("Allow"), told


def test_there_are_operations_of_every_right():
    assert len(OPERATIONS) >= 45 and {right for _, _, right, _ in OPERATIONS} == set(RIGHTS)


@pytest.mark.parametrize("method,target,right,of_database", OPERATIONS)
def test_rights(guarded, method, target, right, of_database):
    for who, header in BAD.items():
        answer = ask(guarded, method, target, header)
        if right == "open":
            assert answer.status == 200, (who, answer)
        else:
            assert answer.status == 401 and (method == "HEAD" or answer.code == "unauthorized"), (who, answer)
    for has in RIGHTS[1:]:
        enough = RIGHTS.index(has) >= RIGHTS.index(right)
        answer = ask(guarded, method, target, "Bearer " + VALID[has])
        assert (answer.status not in (401, 403)) == enough, (has, answer)
        assert enough or answer.status == 403
        answer = ask(guarded, method, target, "Bearer " + ELSEWHERE[has])
        assert (answer.status not in (401, 403)) == (enough and (not of_database or right == "open")), (has, "of another database", answer)
    answer = ask(guarded, method, target, "Bearer " + HASHED)
    assert answer.status not in (401, 403)
    assert answer.status < 500 and (answer.status != 400 or (method, target) in REFUSED), ("the request is one that is run", answer)
    assert guarded.client(token=HASHED, db="b").get("/pairs/p?exact=true").status == 200


def test_without_a_token_nothing_shows_what_is_there(guarded):
    """401 before 404, 405 and 400: a path that is there, one that is not, a method, a parameter, an escape, a length all look alike."""
    targets = [("GET", "/kv/1"), ("GET", "/nothing"), ("GET", "/kv/1/2/3"), ("GET", "/databases/a"), ("GET", "/databases/none"), ("PATCH", "/kv"),
               ("DELETE", "/kv"), ("POST", "/healthz"), ("OPTIONS", "/kv"), ("BREW", "/nothing"), ("GET", "/kv?nonsense=1"), ("GET", "/kv?limit=x"),
               ("GET", "/pairs/%zz"), ("GET", "/kv/x"), ("GET", "/reduce/none/x"), ("POST", "/predict"), ("PUT", "/databases/.."), ("GET", "/metrics?x=%"),
               ("GET", "/openapi.yaml"), ("GET", "/kv?db=none"), ("GET", "/kv?db=%00")]
    for header in (None, "Bearer nobody-knows-this-token"):
        told = [essence(ask(guarded, method, target, header)) for method, target in targets]
        assert told[0][0] == 401 and all(t == told[0] for t in told), [(x, t) for x, t in zip(targets, told) if t != told[0]]
    with_token = [ask(guarded, method, target, "Bearer " + VALID["read"]).status for method, target in targets]
    assert {404, 405, 400} <= set(with_token) and 401 not in with_token, "and whoever may ask is told"
