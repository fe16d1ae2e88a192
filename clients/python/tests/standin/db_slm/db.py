import contextlib
import sqlite3


class DatabaseEnvironment:
    def __init__(self, path=":memory:", max_order=3):
        self.path, self.max_order = str(path), max_order
        self._conn = sqlite3.connect(self.path, isolation_level=None)
        self._conn.row_factory = sqlite3.Row
        self._conn.executescript("""
            CREATE TABLE IF NOT EXISTS tbl_metadata (key TEXT PRIMARY KEY, value TEXT);
            CREATE TABLE IF NOT EXISTS tbl_l1_vocabulary (token_id INTEGER PRIMARY KEY AUTOINCREMENT, token_text TEXT UNIQUE NOT NULL,
                is_control INTEGER NOT NULL DEFAULT 0, freq_global INTEGER NOT NULL DEFAULT 0);
            CREATE TABLE IF NOT EXISTS tbl_l1_context_registry (context_hash TEXT PRIMARY KEY, order_size INTEGER NOT NULL,
                token_ids TEXT NOT NULL, parent_hash TEXT, total_count INTEGER NOT NULL DEFAULT 0, hot_rank REAL NOT NULL DEFAULT 0.0);
            CREATE TABLE IF NOT EXISTS tbl_l1_counts_of_counts (n_order INTEGER, c_value INTEGER, num_ngrams INTEGER, PRIMARY KEY (n_order, c_value));
            CREATE TABLE IF NOT EXISTS tbl_l1_continuations (token_id INTEGER PRIMARY KEY, num_contexts INTEGER NOT NULL);
            CREATE TABLE IF NOT EXISTS tbl_l1_mkn_params (n_order INTEGER PRIMARY KEY, D1 REAL, D2 REAL, D3p REAL, total_contexts INTEGER,
                total_types INTEGER);
            CREATE TABLE IF NOT EXISTS tbl_l1_session_cache (conversation_id TEXT, token_id INTEGER, recency_weight REAL);
            CREATE TABLE IF NOT EXISTS tbl_decode_hparams (profile TEXT PRIMARY KEY, lambda_cache REAL, temp REAL, topk INTEGER, topp REAL);
            CREATE TABLE IF NOT EXISTS tbl_decode_bans (profile TEXT, token_id INTEGER);
            CREATE TABLE IF NOT EXISTS tbl_l2_conversations (id TEXT PRIMARY KEY, user_id TEXT, agent_name TEXT, created_at TEXT);
            CREATE TABLE IF NOT EXISTS tbl_l2_messages (id TEXT PRIMARY KEY, conversation_id TEXT, sender TEXT, content TEXT, created_at TEXT);
            CREATE TABLE IF NOT EXISTS tbl_l2_correction_log (correction_id TEXT PRIMARY KEY, conversation_id TEXT, error_message_id TEXT,
                correction_message_id TEXT, error_context TEXT, corrected_fact_json TEXT, created_at TEXT);
            CREATE TABLE IF NOT EXISTS tbl_l2_token_bias (conversation_id TEXT, pattern TEXT, token_id INTEGER, q_bias INTEGER, expires_at TEXT);
            CREATE TABLE IF NOT EXISTS tbl_l2_window_cache (conversation_id TEXT PRIMARY KEY, window_text TEXT);
            CREATE TABLE IF NOT EXISTS tbl_l3_concept_repo (concept_id INTEGER PRIMARY KEY, concept_name TEXT UNIQUE, metadata_schema TEXT);
            CREATE TABLE IF NOT EXISTS tbl_l3_verbal_templates (template_id INTEGER PRIMARY KEY, concept_id INTEGER, template_string TEXT,
                language_code TEXT);
            CREATE TABLE IF NOT EXISTS tbl_l3_concept_probs (context_hash TEXT, concept_id INTEGER, q_logprob INTEGER);
            CREATE TABLE IF NOT EXISTS tbl_l3_concept_signals (signal_id TEXT PRIMARY KEY, conversation_id TEXT, concept_id INTEGER, score REAL,
                expires_at TEXT, consume_once INTEGER, created_at TEXT);
        """)
        for n in range(1, max_order + 1):
            self._conn.executescript("""
                CREATE TABLE IF NOT EXISTS tbl_l1_ng_counts_%d (context_hash TEXT, next_token_id INTEGER, count INTEGER,
                    PRIMARY KEY (context_hash, next_token_id));
                CREATE TABLE IF NOT EXISTS tbl_l1_ng_probs_%d (context_hash TEXT, next_token_id INTEGER, q_logprob INTEGER,
                    backoff_alpha INTEGER, PRIMARY KEY (context_hash, next_token_id));
                CREATE TABLE IF NOT EXISTS tbl_l1_ng_topk_%d (context_hash TEXT, k_rank INTEGER, next_token_id INTEGER, q_logprob INTEGER,
                    PRIMARY KEY (context_hash, k_rank));
            """ % (n, n, n))

    def close(self):
        self._conn.close()

    def execute(self, sql, params=()):
        self._conn.execute(sql, params)

    def executemany(self, sql, rows):
        self._conn.executemany(sql, rows)

    def query(self, sql, params=()):
        return self._conn.execute(sql, params).fetchall()

    def scalar(self, sql, params=(), default=None):
        row = self._conn.execute(sql, params).fetchone()
        return default if row is None or row[0] is None else row[0]

    @contextlib.contextmanager
    def transaction(self):
        self._conn.execute("BEGIN IMMEDIATE")
        try:
            yield self._conn
            self._conn.execute("COMMIT")
        except Exception:
            self._conn.execute("ROLLBACK")
            raise

    def set_metadata(self, key, value):
        self.execute("INSERT OR REPLACE INTO tbl_metadata(key, value) VALUES (?, ?)", (key, value))

    def get_metadata(self, key, default=None):
        return self.scalar("SELECT value FROM tbl_metadata WHERE key = ?", (key,), default)

    @staticmethod
    def hash_tokens(tokens):
        from cheetah_http.payloads import context_hash

        return context_hash(tokens)
