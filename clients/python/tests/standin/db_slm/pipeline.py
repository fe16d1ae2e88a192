import os
from types import SimpleNamespace

from .adapters.base import NullHotPathAdapter
from .db import DatabaseEnvironment
from .level1 import LogProbQuantizer, MKNSmoother, NGramStore, TokenCandidate, Tokenizer, Vocabulary  # noqa: F401
from .level2 import BiasEngine, ConversationMemory, SessionCache
from .level3 import ConceptEngine


def build_cheetah_adapter(settings, *, client=None):
    return NullHotPathAdapter()


def load_settings():
    return SimpleNamespace(backend=os.environ.get("DBSLM_BACKEND", "cheetah-db"), cheetah_mirror=False, cheetah_host="127.0.0.1",
                           cheetah_port=4455, cheetah_database="standin", cheetah_timeout_seconds=1.0)  # fmt: skip


class DBSLMEngine:
    def __init__(self, db_path=":memory:", ngram_order=3, settings=None):
        self.settings = settings or load_settings()
        self.db = DatabaseEnvironment(db_path, max_order=ngram_order)
        self.hot_path = build_cheetah_adapter(self.settings)
        self.dimensions = self.hot_path.read_metadata("context_dimensions") or self.db.get_metadata("context_dimensions") or "none"
        self.db.set_metadata("context_dimensions", "some")
        self.hot_path.write_metadata("context_dimensions", "some")
        self.vocab = Vocabulary(self.db)
        self.tokenizer = Tokenizer(self.vocab)
        self.quantizer = LogProbQuantizer(self.db)
        self.store = NGramStore(self.db, self.vocab, ngram_order, self.quantizer, hot_path=self.hot_path)
        self.smoother = MKNSmoother(self.db, self.store, self.quantizer)
        self.memory = ConversationMemory(self.db, hot_path=self.hot_path)
        self.cache = SessionCache(self.db, hot_path=self.hot_path)
        self.bias = BiasEngine(self.db, hot_path=self.hot_path)
        self.concepts = ConceptEngine(self.db, self.memory, self.quantizer)
        if not self.db.query("SELECT 1 FROM tbl_l1_ng_counts_1 LIMIT 1"):
            self.train_from_text("this database-native LM is online .")

    def train_from_text(self, text, progress_callback=None):
        ids = self.tokenizer.encode(text)
        self.store.ingest(ids, progress_callback=progress_callback)
        self.smoother.rebuild_all(progress_callback=progress_callback)
        return len(ids)

    def start_conversation(self, user, *, seed_history=True):
        return user

    def respond(self, conversation, message):
        """The best follower, again and again."""
        ids = self.tokenizer.encode(message, add_special_tokens=False)
        for _ in range(5):
            found = self.store.get_topk(ids, min(self.store.order, len(ids) + 1), 20)
            if not found:
                break
            ids.append(found[0].token_id)
        return " ".join(self.vocab.token_text(i) for i in ids)
