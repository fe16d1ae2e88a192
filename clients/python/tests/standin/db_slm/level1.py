import math
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenCandidate:
    token_id: int
    token_text: str
    probability: float
    q_logprob: int


class Vocabulary:
    def __init__(self, db):
        self.db, self.ids = db, {}
        for token in ("<PAD>", "<BOS>", "<EOS>"):
            self.token_id(token)

    def token_id(self, token):
        if token not in self.ids:
            found = self.db.scalar("SELECT token_id FROM tbl_l1_vocabulary WHERE token_text = ?", (token,))
            if found is None:
                self.db.execute("INSERT INTO tbl_l1_vocabulary(token_text) VALUES (?)", (token,))
                found = self.db.scalar("SELECT token_id FROM tbl_l1_vocabulary WHERE token_text = ?", (token,))
            self.ids[token] = found
        return self.ids[token]

    def token_text(self, token_id):
        return self.db.scalar("SELECT token_text FROM tbl_l1_vocabulary WHERE token_id = ?", (token_id,), "<unk>")


class Tokenizer:
    def __init__(self, vocab):
        self.vocab = vocab

    def encode(self, text, add_special_tokens=True):
        words = text.split()
        return [self.vocab.token_id(word) for word in (["<BOS>", *words, "<EOS>"] if add_special_tokens else words)]


class LogProbQuantizer:
    def __init__(self, db):
        self.Lmin, self.Lmax = -12.0, 0.0

    def quantize(self, probability):
        return round(min(max((math.log10(max(probability, 1e-12)) + 12) / 12, 0.0), 1.0) * 255)

    def dequantize_prob(self, q):
        return 10 ** (-12.0 + q / 255 * 12.0)


class NGramStore:
    """Counts in SQLite, and knows no probabilities: enough for a model that is moved to the engine or comes back."""

    def __init__(self, db, vocab, order, quantizer, *, hot_path=None):
        self.db, self.vocab, self.order, self.quantizer, self.hot_path = db, vocab, max(2, order), quantizer, hot_path

    def _hash(self, tokens):
        return self.db.hash_tokens(tokens)

    def ingest(self, ids, *, progress_callback=None):
        if len(ids) < 2:
            return
        for token, n in Counter(ids).items():
            self.db.execute("UPDATE tbl_l1_vocabulary SET freq_global = freq_global + ? WHERE token_id = ?", (n, token))
        for n in range(1, self.order + 1):
            for i in range(len(ids) - n + 1):
                context = list(ids[i : i + n - 1])
                name = self._hash(context)
                self.db.execute("INSERT INTO tbl_l1_context_registry(context_hash, order_size, token_ids, parent_hash, total_count) "
                                "VALUES (?, ?, ?, ?, 1) ON CONFLICT(context_hash) DO UPDATE SET total_count = total_count + 1",
                                (name, len(context), ",".join(map(str, context)), self._hash(context[1:])))
                self.db.execute("INSERT INTO tbl_l1_ng_counts_%d VALUES (?, ?, 1) ON CONFLICT(context_hash, next_token_id) "
                                "DO UPDATE SET count = count + 1" % n, (name, ids[i + n - 1]))

    def token_log_probability(self, context, token):
        return math.log(1e-12)


class MKNSmoother:
    def __init__(self, db, store, quantizer, topk=20):
        self.db, self.store, self.quantizer, self.topk = db, store, quantizer, topk

    def rebuild_all(self, progress_callback=None):
        pass

    def _persist_counts_of_counts(self, order, buckets):
        self.db.execute("DELETE FROM tbl_l1_counts_of_counts WHERE n_order = ?", (order,))
        self.db.executemany("INSERT INTO tbl_l1_counts_of_counts VALUES (?, ?, ?)", [(order, c, n) for c, n in buckets.items()])

    def _persist_params(self, order, d1, d2, d3, contexts):
        types = self.db.scalar("SELECT SUM(num_ngrams) FROM tbl_l1_counts_of_counts WHERE n_order = ?", (order,))
        self.db.execute("INSERT OR REPLACE INTO tbl_l1_mkn_params VALUES (?, ?, ?, ?, ?, ?)", (order, d1, d2, d3, contexts, types))
