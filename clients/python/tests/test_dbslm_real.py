"""The drop-in under real DB-SLM: needs DBSLM_SRC and DBSLM_NEW_SRC, checkouts of DB-SLM (0b81371, and the newest); skipped without.

    DBSLM_SRC=... DBSLM_NEW_SRC=... CHEETAH_DB=build/release/cheetah-db /usr/bin/python3 -m pytest clients/python/tests/test_dbslm_real.py
"""
import json
import os
import subprocess
import sys
import time

import pytest
from conftest import PACKAGE, url_of
from proxy import Proxy

from cheetah_http import Client
from cheetah_http.dbslm.run import environment

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = [name for name in ("DBSLM_SRC", "DBSLM_NEW_SRC") if os.environ.get(name)]
PYTHON = os.environ.get("DBSLM_PYTHON", sys.executable)
pytestmark = pytest.mark.skipif(not SOURCES, reason="DBSLM_SRC and DBSLM_NEW_SRC name no checkouts of DB-SLM")


@pytest.fixture(params=SOURCES or ["none"])
def source(request):
    return os.path.join(os.environ[request.param], "src")


@pytest.fixture
def text(source, tmp_path):
    """15 000 characters of what every checkout has: its README."""
    with open(os.path.join(os.path.dirname(source), "README.md"), encoding="utf-8") as file:
        words = file.read()[:15_000]
    path = tmp_path / "text.txt"
    path.write_text(words, encoding="utf-8")
    return str(path)


def variables(source, url=None, **more):
    made = {k: v for k, v in os.environ.items() if not k.startswith(("DBSLM_", "CHEETAH_"))}
    made.update(PYTHONPATH=os.pathsep.join([os.path.join(PACKAGE, "src"), source]), PYTHONHASHSEED="0")
    made.update(more)
    if url is None:
        return {**made, "DBSLM_BACKEND": "sqlite"}
    return environment(url, {**made, "DBSLM_BACKEND": "cheetah-db"})


def command(path, text, parts):
    return [PYTHON, os.path.join(HERE, "dbslm_run.py"), str(path), text, parts]


def trained(source, path, text, parts, url=None, **more):
    result = subprocess.run(command(path, text, parts), capture_output=True, text=True, timeout=600, env=variables(source, url, **more),
                            cwd=os.path.dirname(text))  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def same(have, want):
    assert have["store"] != want["store"] and have["store"].startswith("cheetah_http")
    different = [name for name in want["tables"] if name != "registry" and have["tables"][name] != want["tables"][name]]
    assert not different, {name: (have["samples"][name], want["samples"][name]) for name in different}
    assert have["tables"]["registry"] == want["tables"]["registry"]
    assert have["asked"] == want["asked"] and have["topk"] == want["topk"]
    assert have["low_resource"] == want["low_resource"] and have["phases"] == want["phases"]


def test_equal_to_sqlite(source, text, server, tmp_path):
    """Probabilities, counts, frequencies, discounts, top-k, single log probabilities to the last bit; after a resume, too."""
    url = url_of(server)
    for parts in ("0,2,4", "2,4,4"):
        want, _ = trained(source, tmp_path / "sqlite.db", text, parts)
        have, _ = trained(source, tmp_path / "engine.db", text, parts, url)
        same(have, want)
        print(parts, "sqlite", want["seconds"], "engine", have["seconds"])
    with Client(url) as db:
        assert have["database"] in db.databases() and have["database"].startswith("default-")
        db.drop_database(have["database"])


def test_the_adapter_alone(source, text, db, server, tmp_path):
    """DB-SLM's own level 1 with our hot path: the same tables as without, after each training, also in a second program; and few
    requests (one a context until now)."""
    for parts in ("0,1,2", "1,2,2"):
        want, _ = trained(source, tmp_path / "sqlite.db", text, parts)
        have, _ = trained(source, tmp_path / "mirrored.db", text, parts, TEST_ADAPTER="%s %s" % (url_of(server), db.database))
        assert have["tables"] == want["tables"] and have["asked"] == want["asked"] and have["topk"] == want["topk"]
        rebuilds = 2 if parts.startswith("0") else 1  # the seed sentence
        assert 0 < have["requests"] <= 40 * rebuilds, have["requests"]
        print(parts, "without", want["seconds"], "with", have["seconds"], have["requests"], "requests")
    assert db.count(b"prob:3:") > 1000


def test_no_server(source, text, tmp_path):
    want, _ = trained(source, tmp_path / "sqlite.db", text, "0,1,8")
    have, said = trained(source, tmp_path / "other.db", text, "0,1,8", "http://127.0.0.1:1")
    assert said.count("is not there: db_slm counts and smooths in SQLite") == 1
    assert have["tables"] == want["tables"] and have["store"] == want["store"]


def test_from_sqlite_to_the_engine_and_back(source, text, launch, tmp_path):
    """A file that SQLite trained goes on in the engine, and with the copy in SQLite goes on without it."""
    server = launch("--durability", "os")
    url, path = url_of(server), tmp_path / "moved.db"
    trained(source, path, text, "0,1,8")
    have, said = trained(source, path, text, "1,2,8", url)
    assert "moving the counts" in said
    for parts in ("0,1,8", "1,2,8"):  # what is trained depends on what the same process has seen before
        want, _ = trained(source, tmp_path / "sqlite.db", text, parts)
    same(have, want)
    back, said = trained(source, path, text, "2,3,8", "http://127.0.0.1:1")
    assert "going on with the copy in SQLite" in said
    want, _ = trained(source, tmp_path / "sqlite.db", text, "2,3,8")
    assert back["tables"] == want["tables"]
    again, _ = trained(source, path, text, "3,4,8", url)
    want, _ = trained(source, tmp_path / "sqlite.db", text, "3,4,8")
    same(again, want)
    assert again["database"] != have["database"]


@pytest.mark.parametrize("victim", ["server", "trainer"])
def test_killed_in_the_middle(source, text, launch, tmp_path, victim):
    """The server, or the trainer, is killed while ten parts are trained: every part is counted exactly once."""
    server = launch("--shards", "2")
    proxy = Proxy(server.port)  # keeps its port when the server is started again
    url, path = proxy.url, tmp_path / "engine.db"
    run = subprocess.Popen(command(path, text, "0,10,20"), env=variables(source, url), cwd=str(tmp_path), stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)  # fmt: skip
    if victim == "server":
        for i in range(3):
            while "part %d" % (3 * i + 1) not in run.stderr.readline():
                assert run.poll() is None
            server.kill()
            time.sleep(0.5)
            server.restart()
            proxy.target = server.port
        out, said = run.communicate(timeout=300)
        assert run.returncode == 0, said[-3000:]
        have = json.loads(out.splitlines()[-1])
        want, _ = trained(source, tmp_path / "sqlite.db", text, "0,10,20")
        same(have, want)
        proxy.__exit__()
        return
    while "part 4" not in run.stderr.readline():
        assert run.poll() is None
    time.sleep(0.03)
    run.kill()
    run.communicate()
    have, said = trained(source, path, text, "10,10,20", url)  # nothing more: what is there is consistent
    with Client(url, database=have["database"]) as db:
        tokens = sum(total.count for total in db.totals(b"cnt:1:"))
    assert str(tokens) == have["tokens"], said
    proxy.__exit__()
    proxy.__exit__()


def test_what_does_not_belong_together(source, text, launch, tmp_path):
    import shutil

    server = launch("--durability", "os")
    url, path = url_of(server), tmp_path / "one.db"
    first, _ = trained(source, path, text, "0,1,20", url)

    def refused(path, url, why, **more):
        result = subprocess.run(command(path, text, "1,2,20"), capture_output=True, text=True, timeout=600,
                                env=variables(source, url, **more), cwd=str(tmp_path))  # fmt: skip
        assert result.returncode != 0 and "ModelMismatch" in result.stderr and why in result.stderr, result.stderr[-2000:]

    refused(tmp_path / "two.db", url, "holds another model", CHEETAH_DBSLM_DATABASE=first["database"])
    shutil.copy(path, tmp_path / "earlier.db")
    trained(source, path, text, "1,2,20", url)
    refused(tmp_path / "earlier.db", url, "knows of")  # a copy of an earlier time
    with Client(url, database=first["database"]) as db:
        db.drop_database(first["database"])
    refused(path, url, "is empty")
    # without the engine: never silently on SQLite's empty tables, unless the copy there is up to date (it is: dbslm_run mirrors)
    trained(source, path, text, "2,3,20", "http://127.0.0.1:1")


def test_the_programs(source, text, launch, tmp_path):
    """train.py itself, by `python3 -m cheetah_http.dbslm.run`, on a text file; with the seed sentence counted once."""
    server = launch("--durability", "os")
    url, path = url_of(server), tmp_path / "model.sqlite3"
    run = [PYTHON, "-m", "cheetah_http.dbslm.run", "--url", url, os.path.join(source, "train.py"), text, "--db", str(path), "--ngram-order", "3"]
    env = {**variables(source), "DBSLM_BACKEND": "cheetah-db"}
    env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], stubs(tmp_path)])
    result = subprocess.run(run, capture_output=True, text=True, timeout=600, env=env, cwd=str(tmp_path))
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    with Client(url) as db:
        (name,) = [name for name in db.databases() if name.startswith("default-")]
        assert db.on(name).count(b"prob:3:") > 1000


@pytest.mark.parametrize("seed", [1, 2])
def test_levels(source, server, tmp_path, seed):
    """Levels 2 and 3: the same calls, and the same conversations, over SQLite, in the engine, and without a file give the same answers;
    also after a move from SQLite to the engine and back."""
    run = [PYTHON, os.path.join(HERE, "dbslm_levels.py"), url_of(server), str(tmp_path), str(seed), "500"]
    result = subprocess.run(run, capture_output=True, text=True, timeout=600, env=variables(source, url_of(server)), cwd=str(tmp_path))
    assert result.returncode == 0, result.stderr[-4000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["different"] == [] and found["compared"] == 510 and found["said"] > 20, found


def stubs(folder):
    """language_tool_python, which the newest train.py imports and which needs Java."""
    place = folder / "stubs"
    place.mkdir(exist_ok=True)
    (place / "language_tool_python.py").write_text("class LanguageTool:\n    def __init__(self, *a, **k): pass\n    def check(self, text): return []\n")
    return str(place)
