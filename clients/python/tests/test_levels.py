"""Levels 2 and 3 in the engine (cheetah_http.dbslm.level2, install(level2=True)): what DB-SLM 0b81371 answered over SQLite, as
dbslm_levels.py recorded it (data/levels.json), is what the engine answers; and what SQLite cannot show. Under the real one: test_dbslm_real.py."""
import dataclasses
import json
import os
import sqlite3
import threading
import time
import uuid

import pytest
from conftest import QUICK, url_of
from levels_calls import Player
from proxy import Proxy
from test_dropin import pipeline  # noqa: F401: a fixture

from cheetah_http import BadRequest, BatchError, CheetahError, Client, ConnectionLost
from cheetah_http.dbslm import ModelMismatch, install, level2, moved
from cheetah_http.dbslm.level2 import Stamp
from cheetah_http.dbslm.level3 import score_part, signal_pair
from cheetah_http.dbslm.quality import QualityQueue, main

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture
def model(pipeline, db, server, tmp_path):  # noqa: F811
    """Makes engines on one file and one database, with the concepts that db_slm's have."""
    made = []

    def make(url=None, levels=True):
        install(url or url_of(server), database=db.database, retry=QUICK, module=pipeline, level2=levels)
        engine = pipeline.DBSLMEngine(str(tmp_path / "model.db"))
        made.append(engine)
        if engine.hot_path.tables is not None:
            concepts = engine.concepts
            for name, template, value in (("ContextSummary", "|CONTEXT|: {context}", 0.7),
                                          ("CorrectionReplay", "Incorporating your corrections: {corrections}", 0.3)):  # fmt: skip
                number = concepts.repo.register(name, {})
                if not concepts.verbalizer.has_template(number, "en"):
                    concepts.verbalizer.register_template(number, template)
                concepts.predictor.record_probability("__default__", number, value)
        return engine

    yield make
    for engine in made:
        engine.hot_path.close()


@pytest.fixture
def player(pipeline, monkeypatch):  # noqa: F811
    made = Player()
    import db_slm.level2

    monkeypatch.setattr(db_slm.level2, "datetime", made.datetime())
    monkeypatch.setattr(level2.Tables, "clock", staticmethod(made.clock))
    return made


def plain(value):
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def test_what_sqlite_answered(model, player, monkeypatch):
    with open(os.path.join(HERE, "data", "levels.json"), encoding="utf-8") as file:
        recorded = json.load(file)
    assert len(recorded) > 400 and {"say", "window", "correct", "bias", "biases", "signal", "next", "cache"} <= {call[0] for call, _ in recorded}
    engine, own = model(), uuid.uuid4
    for i, (call, want) in enumerate(recorded):
        if i == len(recorded) // 2:  # another program goes on
            monkeypatch.setattr(uuid, "uuid4", own)
            engine.hot_path.close()
            engine = model()
            player.now += 1
        monkeypatch.setattr(uuid, "uuid4", player.uuid4)
        player.begin(i + 1, call)
        have = json.loads(json.dumps(plain(player.do(engine, call))))
        if call[0] in ("biases",):
            have = {str(token): q for token, q in sorted(have.items())}
        assert have == want, (i, call)


def test_expired(model, player):
    """Biases and signals end; a session cache, too, and a later put without an end makes a bias last."""
    engine = model()
    talk = engine.memory.start_conversation("somebody", "agent")
    engine.bias.upsert_bias(talk, "fox", 7, 40, ttl_seconds=60)
    engine.bias.upsert_bias(None, "", 8, 5, ttl_seconds=1000)
    engine.bias.upsert_bias(talk, "fox", 9, 1, ttl_seconds=60)
    engine.bias.upsert_bias(talk, "fox", 9, 2)
    engine.concepts.push_signal(talk, "ContextSummary", 0.9, ttl_seconds=60)
    engine.concepts.push_signal(talk, "CorrectionReplay", 0.4, ttl_seconds=600, consume_once=False)
    assert engine.bias.lookup(talk, "A Fox") == {7: 40, 8: 5, 9: 2}
    player.now += 61.5
    assert engine.bias.lookup(talk, "A Fox") == {8: 5, 9: 2} == engine.bias.lookup(talk, "a fox")
    for _ in range(2):
        assert engine.concepts._next_signal(talk).probability == 0.4
    player.now += 1000
    assert engine.bias.lookup(talk, "A Fox") == {9: 2} and engine.concepts._next_signal(talk) is None


def test_ended_pairs_leave_the_database(model, db):
    """The server removes them: biases, signals, and in a day the session cache; what is put again without an end lasts."""
    engine = model()
    talk = engine.memory.start_conversation("somebody", "agent")
    begun = time.time()
    engine.bias.upsert_bias(talk, "short", 7, 40, ttl_seconds=1)
    engine.bias.upsert_bias(talk, "long", 7, 40, ttl_seconds=3600)
    engine.bias.upsert_bias(talk, "lasting", 7, 40, ttl_seconds=1)
    engine.bias.upsert_bias(talk, "lasting", 7, 40)
    engine.bias.upsert_bias(talk, "ages", 7, 40, ttl_seconds=10**10)
    for once in (True, False):
        engine.concepts.push_signal(talk, "ContextSummary", 0.5, ttl_seconds=1, consume_once=once)
    engine.cache.update(talk, [1, 2])

    def ends(pattern):
        return db.pair(level2.bias_pair(talk, pattern, 7)).expires

    now = time.time()
    assert begun - 1 < ends("long") - 3600 < now + 1 and ends("lasting") is None and ends("ages") is None
    assert begun - 1 < db.pair(b"l2:cache:" + talk.encode()).expires - 86_400 < now + 1
    deadline = time.monotonic() + 60
    while db.count(b"l2:bias:") > 3 or db.count(b"l3:sig") > 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert engine.concepts._next_signal(talk) is None and sum(1 for _ in db.pairs(b"l2:bias:")) == 3


def test_a_server_without_ends(model, monkeypatch):
    """0.2.0 refuses a ttl: what is written there has its end in the value alone, and is passed over after it."""
    engine, refused = model(), []
    tables, own = engine.hot_path.tables, Client.run

    def run(self, operations, **more):
        if any("ttl" in operation.body for operation in operations):
            refused.append(len(operations))
            raise BatchError([(0, BadRequest(400, "unknown_parameter"))])
        return own(self, operations, **more)

    monkeypatch.setattr(Client, "run", run)
    talk = engine.memory.start_conversation("somebody", "agent")
    for pattern in ("fox", "dog"):
        engine.bias.upsert_bias(talk, pattern, 7, 40, ttl_seconds=60)
    assert refused == [1] and engine.bias.lookup(talk, "fox and dog") == {7: 80}
    assert tables.get(level2.bias_pair(talk, "fox", 7))[:3] == ["fox", 7, 40]


def test_the_newest_biases(model, player):
    """128 of a conversation count: the newest."""
    engine = model()
    talk = engine.memory.start_conversation("somebody", "agent")
    for i in range(140):
        player.now += 1
        engine.bias.upsert_bias(talk, "", i + 1, 1)
    player.now += 5
    assert sorted(engine.bias.lookup(talk, "")) == list(range(13, 141))


def test_order_of_signals():
    scores = [float("inf"), 2.0, 1.0, 0.5, 1e-9, 0.0, -1e-9, -1.5, -2.0, float("-inf")]
    assert [score_part(s) for s in scores] == sorted(score_part(s) for s in scores) and score_part(0.0) == score_part(-0.0)
    order = [(2.0, 5000, 1), (1.0, 9000, 3), (1.0, 9999, 4), (1.0, 8000, 2), (-1.0, 9000, 5)]  # score; newest second; oldest in it
    names = [signal_pair("c", score, True, Stamp(ms, seq), "id") for score, ms, seq in order]
    assert names == sorted(names)


def test_a_signal_is_used_once(model, db):
    """By one of many."""
    engine = model()
    talk = engine.memory.start_conversation("somebody", "agent")
    for i in range(20):
        engine.concepts.push_signal(talk, "ContextSummary", i / 20)
    taken, threads = [], []

    def take():
        while True:
            found = engine.concepts._next_signal(talk)
            if found is None:
                return
            taken.append(found.probability)

    for _ in range(4):
        threads.append(threading.Thread(target=take))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [i / 20 for i in range(20)] and db.count(b"l3:sig1:") == 0


def test_many_writers(model, server):
    """Messages of several threads and two programs in one conversation: each is there once, and the statistics are right."""
    engine, other = model(), model()
    talk = engine.memory.start_conversation("somebody", "agent")

    def say(memory, who):
        for i in range(12):
            memory.log_message(talk, ("user", "assistant")[i % 2], "%s %d" % (who, i))

    threads = [threading.Thread(target=say, args=(e.memory, who)) for who, e in enumerate([engine, engine, other])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [message.content for message in engine.memory.recent_messages(talk, -1)]
    assert sorted(said) == sorted("%d %d" % (who, i) for who in range(3) for i in range(12))
    stats = other.memory.conversation_stats(talk)
    assert (stats["message_count"], stats["user_turns"], stats["assistant_turns"]) == (36, 18, 18)
    with pytest.raises(sqlite3.IntegrityError):
        engine.memory.log_message(talk, "system", "no")
    for bad in ("x" * 600, "a\0b"):
        with pytest.raises(ValueError):
            engine.memory.log_message(bad, "user", "no")


def test_lost_answers(model, db, server):
    """The connection is cut after the request, before the answer: nothing is there twice, nothing is missing."""
    seen = set()

    def plan(number, head):
        """Of each write the answer, a part of it, or the request itself."""
        if not head.startswith(b"POST /batch"):
            return None
        seen.add(number)
        return None if len(seen) % 2 else [("lose",), ("cut", 150), ("drop",)][len(seen) // 2 % 3]

    with Proxy(server.port) as proxy:
        engine = model(proxy.url)
        talk = engine.memory.start_conversation("somebody", "agent")
        proxy.plan = plan
        for i in range(3):
            engine.memory.log_message(talk, "user", str(i))
            engine.concepts.repo.register("late %d" % i, {})
            assert engine.concepts.verbalizer.register_template(i + 1, "late {x}", "fr") == i + 3
        proxy.plan = None
        assert proxy.cuts >= 4
        assert [m.content for m in engine.memory.recent_messages(talk, 20)] == ["2", "1", "0"]
        assert engine.memory.conversation_stats(talk)["message_count"] == 3
        assert [engine.concepts.repo.fetch_by_id(3 + i).name for i in range(3)] == ["late %d" % i for i in range(3)]
        assert db.count(b"l3:tpl:") == 5
        engine.hot_path.close()


def test_sql_of_others(model):
    """What db_slm's programs ask in SQL is answered; what is not known is refused, for the tables are empty."""
    engine = model()
    talk = engine.memory.start_conversation("somebody", "agent")
    tables = engine.hot_path.tables
    tables.write(level2.put(moved.ban_prefix("default") + level2.token_part(7), [7]))
    exists = "SELECT 1 FROM tbl_l2_conversations WHERE id = ? LIMIT 1"
    assert engine.db.query(exists, (talk,)) and not engine.db.query(exists, ("other",))
    template = "\n  SELECT 1\n FROM tbl_l3_verbal_templates WHERE concept_id = ? AND language_code = ?\n LIMIT 1"
    assert engine.db.query(template, (1, "en")) and not engine.db.query(template, (1, "it"))
    assert [row["token_id"] for row in engine.db.query("SELECT token_id FROM tbl_decode_bans WHERE profile = ?", ("default",))] == [7]
    for sql in ("SELECT * FROM tbl_l2_messages", "SELECT COUNT(*) FROM tbl_l3_concept_signals"):
        with pytest.raises(NotImplementedError, match="is in cheetah-db"):
            engine.db.query(sql)
    with pytest.raises(NotImplementedError):
        engine.db.execute("INSERT INTO tbl_decode_bans(profile, token_id) VALUES ('default', 1)")
    assert engine.db.query("SELECT 1 FROM tbl_l1_vocabulary LIMIT 1")


def test_it_stays_in_the_engine(model, pipeline, db, tmp_path):  # noqa: F811
    """Without level2=True, too; and without the engine the model is not silently without its conversations."""
    engine = model()
    talk = engine.memory.start_conversation("somebody", "agent")
    engine.hot_path.close()
    again = model(levels=False)
    assert again.hot_path.tables is not None and again.db.query("SELECT 1 FROM tbl_l2_conversations WHERE id = ? LIMIT 1", (talk,))
    again.hot_path.close()
    with pytest.raises(ModelMismatch):
        model(url="http://127.0.0.1:1")


ROWS = {  # of a file that had levels 2 and 3 in SQLite
    "tbl_l2_conversations": [("c1", "u", "a", "2026-01-01 00:00:00"), ("c2", None, None, "2026-01-01 00:00:01")],
    "tbl_l2_messages": [("m1", "c1", "user", "one", "2026-01-01 00:00:02"), ("m2", "c1", "assistant", "two", "2026-01-01 00:00:02"),
                        ("m3", "c1", "user", "three", "2026-01-01 00:00:03"), ("m4", "c9", "user", "no such talk", "2026-01-01 00:00:04")],
    "tbl_l2_correction_log": [("k1", "c1", "m1", "m2", "text", '{"a": 1}', "2026-01-01 00:00:05")],
    "tbl_l1_session_cache": [("c1", 3, 0.1), ("c1", 40, 2.5), ("c2", 1, 1.0)],
    "tbl_l2_token_bias": [("c1", "fox", 7, 40, None, "2026-01-01 00:00:06"), ("*", "", 7, 3, "2026-01-01T01:00:00+00:00", "2026-01-01 00:00:06"),
                          (None, "dog", 8, -5, None, "2026-01-01 00:00:07")],
    "tbl_decode_hparams": [("default", 0.25, 0.9, 10, 0.8)], "tbl_decode_bans": [("default", 9)],
    "tbl_l3_concept_repo": [(1, "ContextSummary", '{"n": 1}'), (5, "late", "{}")],
    "tbl_l3_verbal_templates": [(1, 1, "|CONTEXT|: {context}", "en"), (4, 5, "late {x}", "it")],
    "tbl_l3_concept_probs": [("a" * 16, 1, 200), ("a" * 16, 5, 210)],
    "tbl_l3_concept_signals": [("s1", "c1", 5, 0.5, None, 1, "2026-01-01 00:00:08"), ("s2", "c1", 1, 0.5, "2026-01-01T00:30:00", 0, "2026-01-01 00:00:08")],
}  # fmt: skip


def test_moved_and_back(model, player, monkeypatch, caplog):
    """Every row of SQLite is in the engine, once; and by mirror_to_sqlite() in SQLite again, with which DB-SLM goes on without the engine."""
    player.now = 100.0
    plain_one = model(levels=False)
    assert plain_one.hot_path.tables is None and type(plain_one.memory).__module__ == "db_slm.level2"
    for table, rows in ROWS.items():
        for row in rows:
            plain_one.db.execute("INSERT INTO %s VALUES (%s)" % (table, ",".join("?" * len(row))), row)
    expired = ("c1", "gone", 1, 1, "2026-01-01T00:00:30+00:00", "2026-01-01 00:00:06")
    plain_one.db.execute("INSERT INTO tbl_l2_token_bias VALUES (?, ?, ?, ?, ?, ?)", expired)
    plain_one.hot_path.close()
    calls, own = [], moved.put
    monkeypatch.setattr(moved, "put", lambda *a, **k: calls.append(a[0]) or (own(*a, **k) if len(calls) != 12 else 1 / 0))
    with pytest.raises(ZeroDivisionError):  # killed in the middle: the next start moves them
        model()
    monkeypatch.undo()
    monkeypatch.setattr(level2.Tables, "clock", staticmethod(player.clock))
    engine = model()
    assert "of levels 2 and 3 of this SQLite file were moved" in caplog.text
    assert engine.memory.context_window("c1") == "assistant: two\nuser: one\nuser: three"
    assert engine.memory.conversation_stats("c1")["message_count"] == 3 and engine.memory.lookup_corrections("c1")[0].payload == {"a": 1}
    assert engine.cache.distribution("c1") == {3: 0.1 / 2.6, 40: 2.5 / 2.6} and engine.cache.decode_profile()["topk"] == 10
    assert engine.concepts.repo.register("next", {}) == 7  # 6: CorrectionReplay
    first = [engine.concepts._next_signal("c1").concept_id for _ in range(2)]
    assert first == [5, 1]  # of one second: the first that was pushed, once
    assert engine.store.mirror_to_sqlite()["tbl_l2_messages"] == 4 and engine.db.get_metadata("cheetah:mirrored")
    other = sqlite3.connect(engine.db.path)
    for table, rows in ROWS.items():
        have = set(other.execute("SELECT * FROM " + table))
        if table == "tbl_l3_concept_signals":
            rows = rows[1:]  # used up
        assert have.issuperset(rows) and (len(have) == len(rows) or table.startswith("tbl_l3")), (table, have)
    engine.memory.log_message("c1", "user", "four")
    assert not engine.db.get_metadata("cheetah:mirrored")
    assert model().memory.conversation_stats("c1")["message_count"] == 4
    other.close()


def test_a_lost_message_that_comes_late(model, monkeypatch):
    """When it was looked for after the connection was lost it was not there yet: it is counted once all the same."""
    engine = model()
    memory, client = engine.memory, engine.hot_path.tables.client
    conversation = memory.start_conversation("user", "agent")
    memory.log_message(conversation, "user", "first")
    own, waiting = client.run, []

    def run(operations, **more):
        if not waiting:
            waiting.append((operations, more))
            raise ConnectionLost("no answer", may_have_happened=True)
        if len(waiting) == 1:
            waiting.append(None)
            own(waiting[0][0], **waiting[0][1])
        return own(operations, **more)

    monkeypatch.setattr(client, "run", run)
    memory.log_message(conversation, "user", "second")
    assert len(waiting) == 2 and memory.conversation_stats(conversation)["message_count"] == 2
    assert [message.content for message in memory.recent_messages(conversation)] == ["second", "first"]


@pytest.fixture
def bare(pipeline, server, tmp_path):  # noqa: F811
    """Makes engines without a file, on one path."""
    made = []

    def make(path=None, url=None):
        install(url or url_of(server), retry=QUICK, module=pipeline, sqlite=False)
        made.append(pipeline.DBSLMEngine(str(path or tmp_path / "none.db")))
        return made[-1]

    yield make
    for engine in made:
        engine.hot_path.close()
        engine.db.close()
    with Client(url_of(server)) as client:
        for name in {engine.store.client.database for engine in made}:
            client.drop_database(name)


def words_of(engine):
    return [tuple(row) for row in engine.db.query("SELECT token_id, token_text, freq_global FROM tbl_l1_vocabulary ORDER BY token_id")]


def test_no_file(bare, model, tmp_path):
    """Words, frequencies, settings, conversations: all is there for the next program, and no file."""
    texts = ["to be or not to be", "that is the question"]
    first, usual = bare(), model()
    for engine in (first, usual):
        for text in texts:
            engine.train_from_text(text)
        engine.tokenizer.encode("a word of a prompt")
    talk = first.memory.start_conversation("somebody", "agent")
    first.cache.update(talk, first.tokenizer.encode("only here", add_special_tokens=False))
    first.db.set_metadata("mine", "1")
    first.db.set_metadata("gone", "1")
    first.hot_path.close()
    first.db.cheetah_save()
    first.db.execute("DELETE FROM tbl_metadata WHERE key = 'gone'")
    want = words_of(first)
    assert want[:-2] == words_of(usual) and len(want) > 20
    first.db.close()
    assert not (tmp_path / "none.db").exists()
    again = bare()
    assert words_of(again) == want and again.db.get_metadata("mine") == "1" and again.db.get_metadata("gone") is None
    assert again.store.counted() == usual.store.counted() and len(again.cache.distribution(talk)) == 2
    assert again.db.scalar("SELECT SUM(total_count) FROM tbl_l1_context_registry") == usual.db.scalar("SELECT SUM(total_count) FROM tbl_l1_context_registry")
    for engine in (again, usual):
        engine.train_from_text("not the question")
    assert again.respond("c", "to be") == usual.respond("c", "to be")
    assert [r[1:] for r in words_of(again) if r[2]] == [r[1:] for r in words_of(usual) if r[2]]


def test_no_file_lost_and_shared(bare):
    """What was sent is there, although its program died and saved nothing more; two programs that give one id to two words are told."""
    first = bare()
    first.train_from_text("one two three")
    other = bare()  # first is not closed: as if it had been killed
    assert other.store.counted() == first.store.counted() and words_of(other) == words_of(first)
    first.train_from_text("four five")
    other.tokenizer.encode("six seven")
    with pytest.raises(ModelMismatch, match="another program has added words"):
        other.train_from_text("six seven")
    other.db.execute("DELETE FROM cheetah_changed")
    third = bare()
    assert third.store.counted() == first.store.counted()


def test_a_file_is_taken_over(model, bare, db, pipeline, tmp_path):  # noqa: F811
    """A model that had a file goes on without it; the file stays as it is."""
    engine = model(levels=False)
    engine.train_from_text("to be or not to be")
    engine.db.execute("INSERT INTO tbl_l2_conversations VALUES ('c1', 'u', 'a', '2026-01-01 00:00:00')")
    engine.hot_path.close()
    engine.db._conn.close()
    path = tmp_path / "model.db"
    before, counted = path.read_bytes(), engine.store.counted()
    install(db.url, retry=QUICK, module=pipeline, sqlite=False)
    for _ in range(2):
        after = pipeline.DBSLMEngine(str(path))
        assert after.store.client.database == db.database and after.store.counted() == counted and dict(r[1:] for r in words_of(after))["be"] == 2
        assert after.db.query("SELECT 1 FROM tbl_l2_conversations WHERE id = ? LIMIT 1", ("c1",))
        after.hot_path.close()
        after.db.close()
    assert path.read_bytes() == before


def test_no_file_no_server(bare, tmp_path):
    with pytest.raises(CheetahError, match="sqlite=False needs the engine"):
        bare(url="http://127.0.0.1:1")
    assert not list(tmp_path.iterdir())


class Gate:
    """As evaluation.QualityGate."""

    def __init__(self, path):
        self.path = path

    def process(self, record, flagged):
        if flagged:
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps({"prompt": record}) + "\n")
        return flagged, []


def test_quality_queue(model, pipeline, db, server, tmp_path, monkeypatch, capsys):  # noqa: F811
    """What the gate flags goes to the queue and not to its file; one caller gets it, or a file."""
    import sys
    import types

    monkeypatch.setitem(sys.modules, "db_slm.evaluation", types.SimpleNamespace(QualityGate=Gate))
    gate = Gate(tmp_path / "queue.jsonl")
    engine = model()
    for i in range(5):
        assert gate.process("p%d" % i, i != 3) == (i != 3, [])
    queue = QualityQueue(engine.hot_path.tables)
    assert queue.count() == 4 and not gate.path.exists() and gate.path == tmp_path / "queue.jsonl"
    assert [row["prompt"] for row in queue.drain(2)] == ["p0", "p1"] and queue.count() == 2
    arguments = ["--url", url_of(server), "--database", db.database]
    assert main(arguments) == 0 == main([*arguments, "--to", str(gate.path)]) and capsys.readouterr().out == "2\n2\n"
    assert [json.loads(line)["prompt"] for line in gate.path.read_text().splitlines()] == ["p2", "p4"] and queue.count() == 0
    queue.push({"prompt": "again"})
    assert queue.count() == 1 and Client(url_of(server), database=db.database).count(b"queue:quality:") == 1
