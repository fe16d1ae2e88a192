"""The drop-in (cheetah_http.dbslm.install) under a stand-in for DB-SLM with the same tables (tests/standin). Under the real one:
test_dbslm_real.py."""
import http.server
import importlib
import math
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading

import pytest
from conftest import PACKAGE, QUICK, url_of
from harness import layouts

from cheetah_http import CheetahError, Client, ConnectionLost, Retry
from cheetah_http.dbslm import ModelMismatch, install
from cheetah_http.dbslm.level1 import MODEL, windows
from cheetah_http.dbslm.run import environment, site

STANDIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "standin")
WORDS = [("w%d" % i) for i in range(60)]
RNG = random.Random(11)
DOCUMENTS = [" ".join(WORDS[min(int(RNG.paretovariate(0.7)) - 1, 59)] for _ in range(RNG.randrange(1, 40))) for _ in range(30)]  # the first few are trained on
SEED = "this database-native LM is online ."


@pytest.fixture
def pipeline(monkeypatch):
    """A stand-in that nothing is installed in yet."""
    monkeypatch.syspath_prepend(STANDIN)
    for name in [name for name in sys.modules if name.split(".")[0] == "db_slm"]:
        monkeypatch.delitem(sys.modules, name)
    yield importlib.import_module("db_slm.pipeline")
    for name in [name for name in sys.modules if name.split(".")[0] == "db_slm"]:
        del sys.modules[name]


@pytest.fixture
def model(pipeline, db, server, tmp_path):
    """Makes engines on one file and one database."""

    def make(name="model.db", url=None, **more):
        install(url or url_of(server), database=db.database, retry=QUICK, module=pipeline, **more)
        return pipeline.DBSLMEngine(str(tmp_path / name))

    return make


def encoded(engine, texts):
    return [engine.tokenizer.encode(text) for text in texts]


def statistics(db):
    return {row.pair: row.value for row in db.pairs(values=True) if not row.pair.startswith((b"\x10", b"meta:"))}


def expected(documents, order=3):
    table, pairs = layouts.ingested(documents, order)
    return {**pairs, **layouts.smooth(table)}


def test_a_model(model, db):
    """Training, asking: the statistics are the engine's, and what DB-SLM reads in SQL is there."""
    engine, steps = model(), []
    assert engine.dimensions == "none" and type(engine.store).__mro__[1].__name__ == "NGramStore"
    for text in DOCUMENTS[:8]:
        engine.train_from_text(text, progress_callback=lambda *step: steps.append(step))
    documents = encoded(engine, [SEED, *DOCUMENTS[:8]])
    want = expected(documents)
    assert statistics(db) == want
    assert {step[0] for step in steps} == {"vocab", "order_1", "order_2", "order_3", "smooth_continuations", "smooth_1", "smooth_2", "smooth_3"}
    assert all(done == total for phase, done, total in steps if not phase.startswith("smooth_")) and steps[0][0] == "vocab"
    tokens = sum(map(len, documents))
    sql = engine.db
    assert sql.scalar("SELECT SUM(total_count) FROM tbl_l1_context_registry") == sum(windows(len(d), 3) for d in documents)
    frequencies = {row["token_id"]: row["freq_global"] for row in sql.query("SELECT * FROM tbl_l1_vocabulary")}
    assert all(frequencies[token] == n for token, n in layouts.read_counts(want[b"cnt:1:__root__"])[1]) and sum(frequencies.values()) == tokens
    assert sql.get_metadata("cheetah:tokens") == str(tokens) == str(engine.store.counted()) and sql.get_metadata("cheetah:pending") is None
    answers = layouts.Model(want)
    for document in documents:
        for i in range(1, len(document)):
            _, _, ranked = next(answers.levels(document[:i], 20, min(3, i + 1)))
            have = engine.store.get_topk(document[:i], min(3, i + 1), 5)
            if have:
                assert [(c.token_id, c.q_logprob) for c in have] == ranked[:5] and have[0].token_text == engine.vocab.token_text(have[0].token_id)
    counts = sorted((row["context_hash"], row["next_token_id"], row["count"]) for row in engine.store.iter_counts(2))
    assert sum(n for _, _, n in counts) == sum(len(d) - 1 for d in documents) and engine.store.iter_counts(7) == []
    assert engine.store.fetch_context_tokens("__root__") == [] == engine.store.fetch_context_tokens("12" * 8)
    assert engine.store.fetch_context_tokens(engine.db.hash_tokens(documents[0][:2])) == documents[0][:2]
    assert engine.store.get_topk([999, 998], 3, 5) == [] and 0 < engine.store.topk_hit_ratio() < 1
    assert {row["n_order"] for row in sql.query("SELECT * FROM tbl_l1_mkn_params")} == {1, 2, 3}
    for call in (lambda: engine.store.store_probabilities(1, [], []), lambda: engine.store.clear_probabilities(1)):
        with pytest.raises(NotImplementedError):
            call()
    engine.hot_path.flush()
    assert db.pair_value(b"meta:context_dimensions") == b"some"
    assert model().dimensions == "some" and statistics(db) == want  # a second start counts nothing


def by_hand(engine, want, context, token):
    if token <= 0:
        return math.log(1e-12)
    for order in range(min(3, len(context) + 1), 0, -1):
        payload = want.get(b"prob:%d:" % order + layouts.context_name(context[len(context) - order + 1 :]))
        entries = {t: q for t, q, _ in layouts.read_probabilities(payload)[1]} if payload else {}
        if token in entries:
            return math.log(max(engine.quantizer.dequantize_prob(entries[token]), 1e-12))
    return math.log(1 / engine.db.scalar("SELECT COUNT(*) FROM tbl_l1_vocabulary"))


def test_log_probabilities_a_sentence_at_a_time(model, db):
    """Every one as SQLite has it; and one request for a text that was just encoded, whatever is asked of it."""
    engine = model()
    for text in DOCUMENTS[:5]:
        engine.train_from_text(text)
    want = expected(encoded(engine, [SEED, *DOCUMENTS[:5]]))
    store, scores = engine.store, []
    score = store.client.score
    store.client.score = lambda *a, **k: scores.append(a) or score(*a, **k)
    for text in DOCUMENTS[2:12]:
        target = engine.tokenizer.encode(text + " never-seen", add_special_tokens=False)
        history = engine.tokenizer.encode("w1 w2 w3", add_special_tokens=False)
        before, asked = len(scores), store._points.requests
        for token in target:
            assert store.token_log_probability(history, token) == by_hand(engine, want, history, token)
            history.append(token)
        assert len(scores) - before <= 2 and store._points.requests - asked <= 6, text
    rng = random.Random(5)
    for _ in range(300):
        context = [rng.randrange(1, 70) for _ in range(rng.randrange(4))]
        token = rng.randrange(-1, 75)
        assert store.token_log_probability(context, token) == by_hand(engine, want, context, token), (context, token)
    known = store.token_log_probability([4], 9999)
    engine.vocab.token_id("one word more")
    assert store.token_log_probability([4], 9999) < known  # the stand-in for what is nowhere follows the vocabulary
    engine.train_from_text(DOCUMENTS[20])
    want = expected(encoded(engine, [SEED, *DOCUMENTS[:5], DOCUMENTS[20]]))
    for token in engine.tokenizer.encode(DOCUMENTS[3]):  # nothing is remembered over a rebuild
        assert store.token_log_probability([2], token) == by_hand(engine, want, [2], token)


# ---- exactly once


def test_answers_that_are_lost(model, db, proxy):
    """Half of all answers are lost, and some requests: every document is counted once."""
    engine = model(url=proxy.url)
    rng = random.Random(3)
    proxy.plan = lambda number, head: rng.choice([None, None, ("lose",), ("drop",)]) if head.startswith(b"POST") else None
    for text in DOCUMENTS[:6]:
        engine.train_from_text(text)
    assert statistics(db) == expected(encoded(engine, [SEED, *DOCUMENTS[:6]]))


def names_the_model(head):
    return b"dropin" in head or MODEL.hex().encode() in head


@pytest.mark.parametrize("lost", ["lose", "drop"])
def test_a_server_that_is_gone_in_the_middle(model, db, proxy, lost):
    """The document of the failed call is counted or it is not; the next call finds out, and so does the next program."""
    engine = model(url=proxy.url)
    engine.train_from_text(DOCUMENTS[0])
    proxy.plan = lambda number, head: None if names_the_model(head) else (lost,)  # it is looked for before anything is sent
    for attempt in range(2):
        with pytest.raises(ConnectionLost):
            engine.train_from_text(DOCUMENTS[1])
    proxy.plan = None
    counted = [SEED, DOCUMENTS[0]] + [DOCUMENTS[1]] * (lost == "lose")
    for make in (lambda: engine, model):  # the same program goes on; another one starts
        again = make()
        again.train_from_text(DOCUMENTS[2])
        counted.append(DOCUMENTS[2])
        assert statistics(db) == expected(encoded(again, counted))
        frequencies = sum(row["freq_global"] for row in again.db.query("SELECT freq_global FROM tbl_l1_vocabulary"))
        assert str(frequencies) == again.db.get_metadata("cheetah:tokens")


def test_a_trainer_that_dies_before_it_has_noted(model, db, caplog):
    """The engine has committed, SQLite has not: the next start takes it in, frequencies and windows too."""
    engine = model()
    engine.train_from_text(DOCUMENTS[0])
    engine.store._note = lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.train_from_text(DOCUMENTS[1])
    again = model()
    assert "was counted and is noted now" in caplog.text
    documents = encoded(again, [SEED, DOCUMENTS[0], DOCUMENTS[1]])
    assert again.db.scalar("SELECT SUM(total_count) FROM tbl_l1_context_registry") == sum(windows(len(d), 3) for d in documents)
    counts = dict(layouts.read_counts(expected(documents)[b"cnt:1:__root__"])[1])
    assert {r["token_id"]: r["freq_global"] for r in again.db.query("SELECT * FROM tbl_l1_vocabulary") if r["freq_global"]} == counts


TRAINER = """
import sys
from db_slm import DBSLMEngine

engine = DBSLMEngine(sys.argv[1])
for text in sys.argv[2:]:
    engine.train_from_text(text)
"""


def test_programs_that_train_one_file_at_once(server, pipeline, tmp_path):
    """From the first moment on: one model, one database, each document counted and noted once."""
    path, parts = tmp_path / "model.db", [DOCUMENTS[i : i + 3] for i in (0, 3, 6)]
    vocabulary = pipeline.Vocabulary(pipeline.DatabaseEnvironment(path))  # DB-SLM's own words are not ours to guard
    documents = [[vocabulary.token_id(word) for word in ("<BOS>", *text.split(), "<EOS>")] for part in parts for text in part]
    seed = [vocabulary.token_id(word) for word in ("<BOS>", *SEED.split(), "<EOS>")]
    vocabulary.db.close()
    base = {k: v for k, v in os.environ.items() if not k.startswith(("DBSLM_", "CHEETAH_", "PYTHON"))}
    base["PYTHONPATH"] = os.pathsep.join([STANDIN, os.path.join(PACKAGE, "src")])
    running = [subprocess.Popen([sys.executable, "-c", TRAINER, str(path), *part], env=environment(url_of(server), base), stderr=subprocess.PIPE, text=True)
               for part in parts]  # fmt: skip
    said = [one.communicate(timeout=300)[1] for one in running]
    assert [one.returncode for one in running] == [0] * 3, said
    sql = pipeline.DatabaseEnvironment(path)
    tokens, name = int(sql.get_metadata("cheetah:tokens")), sql.get_metadata("cheetah:database")
    seeds = (tokens - sum(map(len, documents))) // len(seed)  # each of those that found nothing counted the seed, too
    assert 1 <= seeds <= 3 and tokens == sum(map(len, documents)) + seeds * len(seed) == sql.scalar("SELECT SUM(freq_global) FROM tbl_l1_vocabulary")
    assert sql.scalar("SELECT SUM(total_count) FROM tbl_l1_context_registry") == sum(windows(len(d), 3) for d in documents + seeds * [seed])
    with Client(url_of(server), database=name) as db:
        have, want = statistics(db), expected(documents + seeds * [seed])
        assert {pair: have[pair] for pair in have if not pair.startswith(b"ctxv:")} == {  # of contexts of one vector the first is kept
            pair: want[pair] for pair in want if not pair.startswith(b"ctxv:")}  # fmt: skip
        assert [one for one in db.databases() if one.startswith("standin-")] == [name]
        db.drop_database(name)


# ---- what does not belong together


def test_models_are_not_mixed_up(model, db, tmp_path):
    engine = model()
    engine.train_from_text(DOCUMENTS[0])
    with pytest.raises(ModelMismatch, match="another model"):
        model("second.db")
    shutil.copy(tmp_path / "model.db", tmp_path / "early.db")
    engine.train_from_text(DOCUMENTS[1])
    with pytest.raises(ModelMismatch, match="knows of"):
        model("early.db")
    db.ngrams([[1, 2, 3]])  # another program
    with pytest.raises(ModelMismatch, match="another program"):
        engine.smoother.rebuild_all()
    db.drop_database(db.database)
    with pytest.raises(ModelMismatch, match="is empty"):
        model()
    db.create_database(db.database)
    db.ngrams([[1, 2, 3]])
    with pytest.raises(ModelMismatch, match="not of this model"):
        model("third.db")


def test_a_database_that_is_another_one_meanwhile(model, db, proxy, launch):
    """Dropped, or another server answers at the address: nothing is counted there, and the model goes on where it is, once that is there again."""
    engine = model(url=proxy.url)
    engine.train_from_text(DOCUMENTS[0])
    noted, mine = engine.db.get_metadata("cheetah:tokens"), proxy.target
    other = launch("--durability", "os")
    proxy.turn_to(other.port)
    with pytest.raises(ModelMismatch, match="another server"):
        engine.train_from_text(DOCUMENTS[1])
    with Client(url_of(other)) as there:
        assert db.database not in there.databases()
    assert engine.db.get_metadata("cheetah:tokens") == noted and engine.db.get_metadata("cheetah:pending") is None
    proxy.turn_to(mine)
    engine.train_from_text(DOCUMENTS[1])
    assert statistics(db) == expected(encoded(engine, [SEED, *DOCUMENTS[:2]]))
    db.drop_database(db.database)
    with pytest.raises(ModelMismatch, match="was dropped"):
        engine.train_from_text(DOCUMENTS[2])
    assert db.database not in db.databases()
    db.create_database(db.database)  # as it was given


def test_something_else_answers(model, server):
    """A web server that is no cheetah-db: said so at once, and neither SQLite nor an answer that is none of ours is taken."""

    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(self.server.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"hi")

        def log_message(self, *_):
            pass

    for status in (200, 404, 500):
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
            other.status = status
            threading.Thread(target=other.serve_forever, daemon=True).start()
            with pytest.raises(CheetahError, match="is no cheetah-db"):
                model(url="http://127.0.0.1:%d" % other.server_port)
            other.shutdown()


def test_no_server(model, pipeline, tmp_path, caplog):
    """One warning, and DB-SLM's own parts; but never for a model whose counts are in the engine only."""
    nowhere = "http://127.0.0.1:1"
    engine = model("new.db", nowhere)
    again = pipeline.DBSLMEngine(str(tmp_path / "other.db"))
    assert caplog.text.count("is not there: db_slm counts and smooths in SQLite") == 1
    assert type(engine.store).__name__ == type(again.store).__name__ == "NGramStore" and not hasattr(engine.store, "mirror_to_sqlite")
    assert type(engine.hot_path).__module__ == "db_slm.adapters.base" and engine.db.scalar("SELECT COUNT(*) FROM tbl_l1_ng_counts_3") > 0
    model().train_from_text(DOCUMENTS[0])
    with pytest.raises(ModelMismatch, match="in cheetah-db"):
        model("model.db", nowhere)


def test_a_model_of_a_higher_order(model, pipeline, tmp_path, caplog):
    model()
    engine = pipeline.DBSLMEngine(str(tmp_path / "nine.db"), ngram_order=9)
    assert "orders up to 8" in caplog.text and type(engine.store).__name__ == "NGramStore"
    assert engine.db.scalar("SELECT COUNT(*) FROM tbl_l1_ng_counts_5") > 0


def level1(path):
    """The tables as they are, but for the sums of contexts that are no contexts."""
    sql = sqlite3.connect(path)
    out = {}
    for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE name LIKE 'tbl_l1_%'").fetchall():
        out[name] = sorted(sql.execute("SELECT * FROM %s" % name).fetchall())
    return out


def test_to_sqlite_and_back(model, db, pipeline, tmp_path, caplog):
    """A file that was trained in SQLite is moved to the engine; mirrored, it goes on without; and is moved again."""
    nowhere = "http://127.0.0.1:1"
    model("one.db", nowhere).train_from_text(DOCUMENTS[0])
    want = model("two.db", nowhere)
    for text in DOCUMENTS[:2]:
        want.train_from_text(text)
    engine = model("one.db")
    assert "moving the counts" in caplog.text
    assert statistics(db) == expected(encoded(engine, [SEED, DOCUMENTS[0]]))
    engine.train_from_text(DOCUMENTS[1])
    rows = engine.store.mirror_to_sqlite()
    have, counts = level1(tmp_path / "one.db"), level1(tmp_path / "two.db")
    for name in ("tbl_l1_ng_counts_1", "tbl_l1_ng_counts_2", "tbl_l1_ng_counts_3", "tbl_l1_vocabulary", "tbl_l1_context_registry"):
        assert have[name] == counts[name], name
    assert rows["tbl_l1_ng_probs_3"] == len(have["tbl_l1_ng_probs_3"]) == len(have["tbl_l1_ng_counts_3"])
    back = model("one.db", nowhere)
    assert "going on with the copy" in caplog.text
    back.train_from_text(DOCUMENTS[2])
    want.train_from_text(DOCUMENTS[2])
    assert level1(tmp_path / "one.db")["tbl_l1_ng_counts_3"] == level1(tmp_path / "two.db")["tbl_l1_ng_counts_3"]
    with pytest.raises(ModelMismatch, match="another model"):
        model("one.db")
    db.drop_database(db.database)
    again = model("one.db")
    have, want = statistics(db), expected(encoded(again, [SEED, *DOCUMENTS[:3]]))
    assert set(have) == set(want)  # contexts that share a vector: which of them has it is not kept in SQLite
    assert all(have[name] == want[name] for name in want if not name.startswith(b"ctxv:"))


def test_a_move_that_was_cut_off_is_done_again(model, db, proxy, tmp_path):
    model("one.db", "http://127.0.0.1:1").train_from_text(DOCUMENTS[0])
    proxy.plan = lambda number, head: ("drop",) if b"/batch" in head and number > 4 else None
    with pytest.raises(ConnectionLost):
        model("one.db", proxy.url)
    proxy.plan = None
    engine = model("one.db")
    assert statistics(db) == expected(encoded(engine, [SEED, DOCUMENTS[0]]))


# ---- names of databases, and how it is switched on


def test_each_model_has_a_database_of_its_own(pipeline, server, tmp_path):
    """Called after the setting and the model; kept in the file; that of a model in memory ends with the program."""
    install(url_of(server), module=pipeline)
    one = pipeline.DBSLMEngine(str(tmp_path / "one.db"))
    two = pipeline.DBSLMEngine(str(tmp_path / "two.db"))
    names = [engine.db.get_metadata("cheetah:database") for engine in (one, two)]
    assert names[0] != names[1] and all(name.startswith("standin-") and len(name) == 16 for name in names)
    assert pipeline.DBSLMEngine(str(tmp_path / "one.db")).store.client.database == names[0]
    with Client(url_of(server)) as db:
        assert set(names) <= set(db.databases())
        for name in names:
            db.drop_database(name)


PROGRAM = """
import multiprocessing, sys
from db_slm import DBSLMEngine

kept = []  # alive at the end of the program, as an engine with cycles is

def work(path):
    engine = DBSLMEngine(path)
    kept.append(engine)
    engine.train_from_text("a b c a b")
    engine.hot_path.write_metadata("late", "1")
    print(engine.db.get_metadata("cheetah:database"), type(engine.store).__module__, flush=True)

if __name__ == "__main__":
    if sys.argv[2] == "spawn":
        child = multiprocessing.get_context("spawn").Process(target=work, args=(sys.argv[1],))
        child.start()
        child.join()
        sys.exit(child.exitcode)
    work(sys.argv[1])
"""


@pytest.mark.parametrize("how", ["environment", "run", "off"])
@pytest.mark.parametrize("where", ["here", "spawn"])
def test_switched_on_from_outside(server, tmp_path, how, where):
    """By variables alone, and by python -m cheetah_http.dbslm.run; in spawned children too; and not without them. Another
    sitecustomize still runs."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "sitecustomize.py").write_text("print('theirs', flush=True)\n")
    base = {k: v for k, v in os.environ.items() if not k.startswith(("DBSLM_", "CHEETAH_", "PYTHON"))}
    base["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "more"), STANDIN, os.path.join(PACKAGE, "src")])
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "model.db"), where]
    if how == "environment":
        base = environment(url_of(server), base)
        assert base["PYTHONPATH"].startswith(site() + os.pathsep)
    elif how == "off":
        base["PYTHONPATH"] = site() + os.pathsep + base["PYTHONPATH"]
    else:
        command = [sys.executable, "-m", "cheetah_http.dbslm.run", "--url", url_of(server), *command[1:]]
    result = subprocess.run(command, env=base, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "RuntimeWarning" not in result.stderr, result.stderr
    said = result.stdout.splitlines()
    (answer,) = [line for line in said if line != "theirs"]  # which multiprocessing's own process says last, now and then
    assert "theirs" in said
    name, module = answer.split()
    assert (module == "cheetah_http.dbslm.level1") == (how != "off") and (name == "None") == (how == "off")
    if how != "off":
        with Client(url_of(server), database=name) as db:
            assert db.count(b"cnt:3:") > 0
            db.drop_database(name)


def test_the_database_of_a_model_in_memory(server, tmp_path):
    base = {k: v for k, v in os.environ.items() if not k.startswith(("DBSLM_", "CHEETAH_", "PYTHON"))}
    base["PYTHONPATH"] = os.pathsep.join([STANDIN, os.path.join(PACKAGE, "src")])
    (tmp_path / "program.py").write_text(PROGRAM)
    result = subprocess.run([sys.executable, str(tmp_path / "program.py"), ":memory:", "here"], env=environment(url_of(server), base),
                            capture_output=True, text=True, timeout=300)  # fmt: skip
    assert result.returncode == 0, result.stderr
    with Client(url_of(server)) as db:
        assert result.stdout.split()[0].startswith("standin-") and result.stdout.split()[0] not in db.databases()


def test_smoke(server, tmp_path):
    """The table of hit rate and latency; and no table where no server is."""
    (tmp_path / "text.txt").write_text(" ".join(DOCUMENTS[:10]))
    base = {k: v for k, v in os.environ.items() if not k.startswith(("DBSLM_", "CHEETAH_", "PYTHON"))}
    base["PYTHONPATH"] = os.pathsep.join([STANDIN, os.path.join(PACKAGE, "src")])
    command = [sys.executable, "-m", "cheetah_http.dbslm.smoke", str(tmp_path / "text.txt"), "--prompts", "4", "--url"]
    result = subprocess.run([*command, url_of(server)], env=base, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    rows = dict(line.strip("| ").split(" | ") for line in result.stdout.splitlines()[2:])
    assert rows["answers, words in them"].startswith("4, ") and float(rows["seconds of training"]) > 0 and int(rows["tokens trained"]) > 50
    asked, found = rows["best followers at order 3: asked, found"].split(", ")
    assert 4 <= int(asked) <= 20 and 0 < int(found.split()[0]) <= 100 and int(rows["requests for them and for metadata"]) > 0
    assert 0 <= int(rows["of these without a request (cache)"].split()[0]) < 100
    assert all(float(n) > 0 for n in rows["a list, ms: median, 95 %"].split(", ") + rows["an answer, ms: median, 95 %"].split(", "))
    result = subprocess.run([*command, "http://127.0.0.1:1"], env=base, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1 and "no server" in result.stderr and result.stdout == ""


def test_point_reads(db, server, launch):
    """The short way gives what the long way gives: values of any size, none, a lost connection, a token."""
    from cheetah_http.dbslm.points import PointReader

    points = PointReader(db)
    large = random.Random(1).randbytes(3 << 20)
    db.pair_put(b"a\0b/%", b"\0value\xff")
    db.pair_put(b"large", large)
    db.pair_set(b"dangling", 1 << 40)
    for _ in range(2):
        assert points.value(b"a\0b/%") == b"\0value\xff" and points.value(b"large") == large
        assert points.value(b"none") is None and points.value(b"dangling") is None
        points.close()
    assert PointReader(db.on("no-such-database")).value(b"a") is None
    results = []
    threads = [threading.Thread(target=lambda: results.append([points.value(b"a\0b/%") for _ in range(50)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[b"\0value\xff"] * 50] * 4
    other = launch("--durability", "os")
    with Client(url_of(other), database="d", retry=Retry(attempts=0)) as lost:
        lost.pair_put(b"p", b"v")
        points = PointReader(lost)
        assert points.value(b"p") == b"v"
        other.kill()
        with pytest.raises(ConnectionLost):
            points.value(b"p")
