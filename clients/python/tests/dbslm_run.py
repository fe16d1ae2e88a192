"""A program of DB-SLM, for test_dbslm_real.py: trains on parts of a text, asks, answers; prints what came out as JSON.

    PYTHONPATH=DB-SLM/src python3 dbslm_run.py SQLITE TEXT FIRST,END,PARTS

Whether level 1 is SQLite's or the engine's is decided by the environment alone.
"""
import hashlib
import json
import os
import random
import sqlite3
import sys
import time

from db_slm import DBSLMEngine, pipeline
from db_slm.decoder import DecoderConfig

PATH, TEXT, PARTS = sys.argv[1:4]


requests = []


def with_adapter(url, database):
    """DB-SLM's own level 1, mirrored through our adapter."""
    from cheetah_http import Client
    from cheetah_http.dbslm import CheetahHotPathAdapter
    from cheetah_http.net.waiting import Pool

    adapter = CheetahHotPathAdapter(Client(url, database=database))
    adapter.context_relativism = lambda tree, **_: []  # it would know more than SQLite does, and so decode other answers
    send = Pool.send
    Pool.send = lambda self, call, stream: requests.append(call.path) or send(self, call, stream)
    pipeline.build_cheetah_adapter = lambda settings: adapter


def tables(path, order):
    """All of level 1, in an order of its own."""
    db = sqlite3.connect(path)

    def rows(sql):
        return [list(row) for row in db.execute(sql)]

    out = {"vocabulary": rows("SELECT token_id, token_text, freq_global FROM tbl_l1_vocabulary ORDER BY token_id"),
           "params": rows("SELECT n_order, D1, D2, D3p, total_contexts, total_types FROM tbl_l1_mkn_params ORDER BY n_order"),
           "counts_of_counts": rows("SELECT n_order, c_value, num_ngrams FROM tbl_l1_counts_of_counts ORDER BY n_order, c_value"),
           "continuations": rows("SELECT token_id, num_contexts FROM tbl_l1_continuations ORDER BY token_id"),
           "windows": rows("SELECT SUM(total_count) FROM tbl_l1_context_registry"),
           "registry": rows("SELECT context_hash, order_size, token_ids, parent_hash, total_count FROM tbl_l1_context_registry ORDER BY 1")}
    for n in range(1, order + 1):
        out["counts%d" % n] = rows("SELECT context_hash, next_token_id, count FROM tbl_l1_ng_counts_%d ORDER BY 1, 2" % n)
        out["probs%d" % n] = rows("SELECT context_hash, next_token_id, q_logprob, backoff_alpha FROM tbl_l1_ng_probs_%d ORDER BY 1, 2" % n)
        out["topk%d" % n] = rows("SELECT context_hash, k_rank, q_logprob FROM tbl_l1_ng_topk_%d ORDER BY 1, 2" % n)
    return out


def digest(value):
    return [len(value), hashlib.sha256(json.dumps(value).encode()).hexdigest()]


def questions(engine, text):
    """Log probabilities in the way evaluation asks: of text that was just encoded, token by token; and some of nothing."""
    rng, out, spent = random.Random(4), [], 0.0
    words = text.split()
    for _ in range(20):
        at = rng.randrange(max(1, len(words) - 40))
        prompt, target = " ".join(words[at : at + 5]), " ".join(words[at + 5 : at + 30]) + " unheard-of"
        tokens = engine.tokenizer.encode(target, add_special_tokens=False)
        history = engine.tokenizer.encode(prompt, add_special_tokens=False)
        begin = time.perf_counter()
        for token in tokens:
            out.append(engine.store.token_log_probability(history, token))
            history.append(token)
        spent += time.perf_counter() - begin
    for _ in range(100):
        out.append(engine.store.token_log_probability([rng.randrange(1, 400) for _ in range(rng.randrange(4))], rng.randrange(-1, 500)))
    return out, spent


def main():
    with open(TEXT, encoding="utf-8") as file:
        text = file.read()
    if os.environ.get("TEST_ADAPTER"):
        with_adapter(*os.environ["TEST_ADAPTER"].split(" "))
    spent = -time.perf_counter()
    engine = DBSLMEngine(PATH, ngram_order=3)
    start, stop, many = (int(n) for n in PARTS.split(","))
    size, steps = len(text) // many + 1, []
    for i in range(start, stop):
        print("part", i, file=sys.stderr, flush=True)
        engine.train_from_text(text[i * size : (i + 1) * size], progress_callback=lambda *step: steps.append(step))
    spent += time.perf_counter()
    sent = len(requests)
    asked, question_time = questions(engine, text)
    order = engine.store.order
    topk = []
    for context in sorted({row["context_hash"] for row in engine.store.iter_counts(2)} - {"__cheetah__"})[:300]:
        tokens = engine.store.fetch_context_tokens(context)
        topk.append([c.q_logprob for c in engine.store.get_topk(tokens, 2, 7)])
    columns = {row["name"] for row in engine.db.query("PRAGMA table_info(tbl_l2_token_bias)")}
    if "updated_at" not in columns:  # 0b81371 sorts by it and never makes it; the drop-in does
        assert not hasattr(engine.store, "mirror_to_sqlite")
        engine.db.execute("ALTER TABLE tbl_l2_token_bias ADD COLUMN updated_at TEXT")
    answers, decode_time = [], time.perf_counter()
    for i in range(10):
        random.seed(i)
        conversation = engine.start_conversation("somebody", seed_history=False)
        answers.append(engine.respond(conversation, " ".join(text.split()[i * 7 : i * 7 + 6]), DecoderConfig(max_tokens=12)))
    decode_time = time.perf_counter() - decode_time
    mirror = getattr(engine.store, "mirror_to_sqlite", None)
    if mirror:
        mirror()
    found = tables(PATH, order)
    print(json.dumps({
        "tables": {name: digest(rows) for name, rows in found.items()}, "samples": {n: r[:3] for n, r in found.items()},
        "asked": asked, "topk": topk, "answers": answers, "low_resource": engine._low_resource_helper.enabled,
        "store": type(engine.store).__module__, "phases": sorted({step[0] for step in steps}), "requests": sent, "seconds": [spent, question_time, decode_time],
        "database": engine.db.get_metadata("cheetah:database"), "tokens": engine.db.get_metadata("cheetah:tokens")}))  # fmt: skip


if __name__ == "__main__":
    main()
