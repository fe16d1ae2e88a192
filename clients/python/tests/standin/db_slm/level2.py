"""What the drop-in takes from db_slm's level 2: constructors, metadata, and which biases count. No tables: levels 2 and 3 are
tested in the engine only."""
import json
from dataclasses import dataclass
from datetime import datetime, timezone


@dataclass(frozen=True)
class Message:
    id: str
    conversation_id: str
    sender: str
    content: str


@dataclass(frozen=True)
class Correction:
    correction_id: str
    conversation_id: str
    payload: dict


class ConversationMemory:
    def __init__(self, db, window=8, *, hot_path=None, correction_cache=5):
        self.db, self.window, self.hot_path, self._correction_cache = db, window, hot_path, correction_cache

    def _empty_stats(self):
        return {"message_count": 0, "user_turns": 0, "assistant_turns": 0, "started_at": None, "updated_at": None}


class SessionCache:
    def __init__(self, db, decay=0.8, hot_path=None):
        self.db, self.decay, self.hot_path = db, decay, hot_path
        self._ensure_profile()

    def _ensure_profile(self):
        pass

    def _read_profile_metadata(self, profile):
        raw = self.hot_path.read_metadata("decode:" + profile)
        return json.loads(raw) if raw else None

    def _write_profile_metadata(self, profile, payload):
        self.hot_path.write_metadata("decode:" + profile, json.dumps(payload))

    def decode_profile(self, profile="default"):
        return self._read_profile_metadata(profile) or {"lambda_cache": 0.15, "temp": 1.0, "topk": 20, "topp": 0.9}

    def mixture_lambda(self, profile="default"):
        return float(self.decode_profile(profile)["lambda_cache"])


class BiasEngine:
    def __init__(self, db, *, hot_path=None, cache_limit=128):
        self.db, self.hot_path, self._bias_cache_limit = db, hot_path, cache_limit

    def lookup(self, conversation_id, context_snippet):
        active, now = {}, datetime.now(timezone.utc)
        for entry in self._load_bias_entries(None) + self._load_bias_entries(conversation_id):
            if entry["expires_at"] and datetime.fromisoformat(entry["expires_at"]).replace(tzinfo=timezone.utc) < now:
                continue
            if entry["pattern"] and entry["pattern"].lower() not in context_snippet.lower():
                continue
            active[entry["token_id"]] = active.get(entry["token_id"], 0) + entry["q_bias"]
        return active
