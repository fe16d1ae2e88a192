"""Levels 2 and 3 of real DB-SLM over SQLite and over the engine, the same calls at the same (made up) times; for test_dbslm_real.py.

    PYTHONPATH=DB-SLM/src python3 dbslm_levels.py URL FOLDER SEED CALLS [RECORD]

Prints what was different as JSON. RECORD: the calls and SQLite's answers, for test_levels.py, which needs no DB-SLM.
"""
import dataclasses
import inspect
import json
import os
import random
import re
import sys
import types
import uuid

from levels_calls import Player, calls

URL, FOLDER, SEED, CALLS = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
RECORD = sys.argv[5] if len(sys.argv) > 5 else None
STAMPED = re.compile(r"INSERT INTO (tbl_l2_conversations|tbl_l2_messages|tbl_l2_correction_log|tbl_l3_concept_signals)\b")


def with_clock(engine, player):
    """SQLite with the player's clock in place of CURRENT_TIMESTAMP."""
    db, own_execute, own_query = engine.db, engine.db.execute, engine.db.query

    def execute(sql, params=None):
        own_execute(sql.replace("CURRENT_TIMESTAMP", "'%s'" % player.second()), params)
        table = STAMPED.search(sql)
        if table:
            own_execute("UPDATE %s SET created_at = ? WHERE rowid = last_insert_rowid()" % table.group(1), (player.second(),))

    db.execute, db.query = execute, lambda sql, params=None: own_query(sql.replace("CURRENT_TIMESTAMP", "'%s'" % player.second()), params)
    if "updated_at" not in {row["name"] for row in own_query("PRAGMA table_info(tbl_l2_token_bias)")}:
        own_execute("ALTER TABLE tbl_l2_token_bias ADD COLUMN updated_at TEXT")


def plain(value):
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in sorted(value.items(), key=lambda kv: str(kv[0]))}
    return value


def main():
    player = Player()
    from db_slm import DBSLMEngine, level2, level3

    for module in (level2, level3):
        module.datetime = player.datetime()
    made_up, uuid.uuid4 = uuid.uuid4, player.uuid4
    text = open(os.path.join(os.path.dirname(os.path.dirname(level2.__file__)), "..", "README.md"), encoding="utf-8").read()[:6000]
    import cheetah_http.dbslm.level2

    def plain_engine():
        os.environ["DBSLM_BACKEND"] = "sqlite"
        made = DBSLMEngine(os.path.join(FOLDER, "plain.db"))
        with_clock(made, player)
        os.environ["DBSLM_BACKEND"] = "cheetah-db"
        return made

    cheetah_http.dbslm.level2.Tables.clock = staticmethod(player.clock)
    sqlite = plain_engine()

    different, recorded, compared = [], [], 0

    def engine_on(name, level2, sqlite=True):
        cheetah_http.dbslm.install(URL, level2=level2, sqlite=sqlite)
        uuid.uuid4 = made_up  # models have ids of their own
        made = DBSLMEngine(os.path.join(FOLDER, name))
        uuid.uuid4 = player.uuid4
        return made

    ours = engine_on("ours.db", True)
    assert type(ours.memory).__module__ == "cheetah_http.dbslm.level2" and isinstance(ours.memory, level2.ConversationMemory)
    for i, call in enumerate(calls(SEED, CALLS, with_texts=RECORD is None)):
        if i == CALLS // 2:  # a second program goes on with it
            ours.hot_path.close()
            ours, sqlite = engine_on("ours.db", True), plain_engine()
            player.now += 1  # two programs do not share a millisecond
        player.begin(i + 1, call)
        want = plain(player.do(sqlite, call))
        player.begin(i + 1)
        have = plain(player.do(ours, call))
        compared += 1
        if json.dumps(want) != json.dumps(have):
            different.append({"call": call, "sqlite": want, "engine": have})
        recorded.append([call, want])
    if RECORD:
        with open(RECORD, "w", encoding="utf-8") as file:
            file.write("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in recorded) + "\n]\n")

    # whole conversations: level 1 in the engine in both, levels 2 and 3 of the one in SQLite
    left, right, bare = engine_on("left.db", False), engine_on("right.db", True), engine_on("bare.db", False, sqlite=False)
    with_clock(left, player)
    assert type(left.memory).__module__ == "db_slm.level2"
    for engine in (left, right, bare):
        engine.train_from_text(text)
    words, rng, heard = text.split(), random.Random(SEED), []
    for i in range(10):
        said, seeded = [], {"rng_seed": i} if "rng_seed" in inspect.signature(left.respond).parameters else {}
        turns = [" ".join(words[at : at + 6]) for at in (rng.randrange(len(words) - 6) for _ in range(3))]
        for engine in (left, right, bare):
            player.begin(1000 + i, ["later", 100])
            player.now = 10_000.0 + 20 * i
            random.seed(i)
            conversation = engine.start_conversation("somebody", seed_history=bool(i % 2))
            lines = []
            for turn in turns:
                player.now += 1.5
                lines.append(engine.respond(conversation, turn, **seeded))
                player.now += 0.4
                if i % 3 == 0:
                    engine.record_correction(conversation, "e", "c", turn, {turn.split()[0]: "better"})
            said.append([lines, engine.memory.context_window(conversation), plain(engine.memory.conversation_stats(conversation))])
        compared += 1
        heard.append(said[0])
        if not said[0] == said[1] == said[2]:
            different.append({"conversation": i, "sqlite": said[0], "engine": said[1], "no file": said[2]})
    without_file(right, bare, left.db.query("SELECT id FROM tbl_l2_conversations"), engine_on, different)
    moved(left, player, engine_on, different)
    print(json.dumps({"compared": compared, "different": different[:5], "many": len(different), "said": len({line for talk in heard for line in talk[0]})}))


def questions(engine):
    """What a model knows of its conversations; of messages, corrections, biases, templates and signals, too."""
    out, memory = [], engine.memory
    for conversation in sorted(row["id"] for row in engine.known_conversations):
        tokens = engine.tokenizer.encode(memory.context_window(conversation), add_special_tokens=False)[:8]
        out.append([conversation, memory.context_window(conversation, False), plain(memory.recent_messages(conversation, 5)),
                    plain(memory.lookup_corrections(conversation, 5)), plain(memory.conversation_stats(conversation)),
                    plain(engine.bias.lookup(conversation, memory.context_window(conversation))),
                    plain(engine.cache.distribution(conversation)), plain(engine.concepts.predictor.predict("none", "__default__")),
                    plain(engine.concepts.generate(conversation, tokens))])  # fmt: skip
    return out


def without_file(right, bare, known, engine_on, different):
    """A model without a file, in another program: the same words, frequencies, switches and answers."""
    bare.db.close()
    bare.hot_path.close()
    bare = engine_on("bare.db", False, sqlite=False)
    assert not os.path.exists(os.path.join(FOLDER, "bare.db"))
    for sql in ("SELECT token_id, token_text, is_control, freq_global FROM tbl_l1_vocabulary ORDER BY token_id",
                "SELECT SUM(total_count) FROM tbl_l1_context_registry", "SELECT 1 FROM tbl_l1_ng_counts_1 LIMIT 1",
                "SELECT key, value FROM tbl_metadata WHERE key NOT LIKE 'cheetah:%' ORDER BY key"):  # fmt: skip
        have, want = ([tuple(row) for row in engine.db.query(sql)] for engine in (bare, right))
        if have != want:
            different.append({"no file": sql, "have": [r for r in have if r not in want][:3], "want": [r for r in want if r not in have][:3]})
    bare.known_conversations = right.known_conversations = known
    have, want = questions(bare), questions(right)
    if have != want:
        different.append({"no file": [pair for w, h in zip(want, have) for pair in zip(w, h) if pair[0] != pair[1]][:4]})


def moved(left, player, engine_on, different):
    """A file whose levels 2 and 3 are SQLite's is moved to the engine; and back by mirror_to_sqlite()."""
    known = left.db.query("SELECT id FROM tbl_l2_conversations")
    left.hot_path.close()
    before = left.db
    player.now = 10_000.0 + 250
    after = engine_on("left.db", True)  # another connection to the same file
    after.known_conversations = left.known_conversations = known
    have = questions(after)
    want = questions(types.SimpleNamespace(**{**vars(left), "known_conversations": known}))
    if have != want:
        different.append({"moved": [pair for w, h in zip(want, have) for pair in zip(w, h) if pair[0] != pair[1]][:4]})
    after.store.mirror_to_sqlite()
    assert len(before.query("SELECT id FROM tbl_l2_conversations")) == len(known)
    after.hot_path.close()
    os.environ["DBSLM_BACKEND"] = "sqlite"
    back = engine_on("left.db", False)
    os.environ["DBSLM_BACKEND"] = "cheetah-db"
    assert type(back.memory).__module__ == "db_slm.level2" and not hasattr(back.store, "mirror_to_sqlite")
    with_clock(back, player)
    back.known_conversations = known
    again = questions(back)
    for row, other in zip(again, have):
        row[-1] = other[-1] = None  # signals were used up
    if again != have:
        different.append({"back": [pair for w, h in zip(have, again) for pair in zip(w, h) if pair[0] != pair[1]][:4]})


if __name__ == "__main__":
    main()
