"""Random calls of DB-SLM's levels 2 and 3, and how to make them: for dbslm_levels.py and test_levels.py."""
import datetime
import random
import time
import uuid

BEGIN = 1_767_225_600.0  # 2026-01-01
SNIPPETS = ["the quick brown fox", "A LAZY dog; sleeps", "", "naïve café", "fox and dog"]
PATTERNS = ["", "fox", "dog", "café", "never"]


def calls(seed, many, with_texts=True):
    """A list of [name, arguments...]; conversations are numbered. with_texts=False: without those that need texts of db_slm."""
    rng, out, talks, everybody, concepts, templates = random.Random(seed), [], 0, set(), 2, {"1 en", "2 en"}
    while len(out) < many:
        talk = rng.randrange(talks) if talks else None
        name = rng.choice(["start", "say", "say", "say", "say", "window", "recent", "correct", "corrections", "stats", "cache", "cache",
                           "distribution", "bias", "bias", "biases", "concept", "template", "render", "probability", "predict", "signal",
                           "signal", "next", "generate", "profile", "lambda", "exists", "banned", "later"])  # fmt: skip
        token = rng.randrange(1, 40)
        if name == "later":
            out.append([name, rng.choice([0.1, 0.5, 1.1, 3.0, 30.0, 400.0])])
        elif name == "start":
            out.append([name, "user%d" % talks, "agent"])
            talks += 1
        elif name == "concept":
            number = rng.randrange(8)
            out.append([name, "concept %d" % number, {"n": number, "of": ["a", None]}])
            concepts += 1
        elif name == "template":
            language = rng.choice(["en", "it"])
            templates.add("%d %s" % (rng.randrange(1, 5), language))
            out.append([name, rng.randrange(1, 5), "t%d {x}" % len(out), language])
        elif name == "render":
            out.append([name, rng.randrange(1, 5), {"x": token, "context": "c", "corrections": "k"}, rng.choice(["en", "it"])])
        elif name == "probability":
            out.append([name, rng.choice(["a" * 16, "b" * 16, "__default__"]), rng.randrange(1, 5), rng.choice([0.1, 0.2, 0.2, 0.9])])
        elif name == "predict":
            out.append([name, rng.choice(["a" * 16, "b" * 16, "c" * 16])])
        elif name in ("profile", "lambda", "banned"):
            out.append([name, rng.choice(["default", "other"])])
        elif talk is None:
            continue
        elif name == "say":
            out.append([name, talk, rng.choice(["user", "assistant"]), "%s %d" % (rng.choice(SNIPPETS), len(out))])
        elif name == "window":
            out.append([name, talk, rng.random() < 0.5])
        elif name == "recent":
            out.append([name, talk, rng.choice([0, 1, 3, 10, -1])])
        elif name == "correct":
            out.append([name, talk, {rng.choice("abc"): rng.choice([1, "x", None])}])
        elif name == "corrections":
            out.append([name, talk, rng.choice([1, 3, 5, 12])])
        elif name == "cache":
            out.append([name, talk, [rng.randrange(1, 12) for _ in range(rng.randrange(4))]])
        elif name == "bias":
            if rng.random() < 0.2:
                key = (rng.choice(PATTERNS), token)
                if key not in everybody:  # SQLite would hold both
                    everybody.add(key)
                    out.append([name, None, *key, rng.randrange(-50, 50), rng.choice([None, 0, 2, 60, 3600])])
            else:
                out.append([name, talk, rng.choice(PATTERNS), token % 6, rng.randrange(-50, 50), rng.choice([None, 0, -5, 1, 2, 60, 3600])])
        elif name == "biases":
            out.append([name, rng.choice([talk, talk, None]), rng.choice(SNIPPETS)])
        elif name == "signal":
            out.append([name, talk, rng.choice(["ContextSummary", "CorrectionReplay", "concept 1", "unheard of"]),
                        rng.choice([0.5, 1.0, 1.0, 2.0, -1.5, 0.0]), rng.choice([None, 0, 30 * 86400]), rng.random() < 0.6])  # fmt: skip
        elif name in ("next", "stats", "distribution", "exists"):
            out.append([name, talk])
        elif name == "generate" and with_texts:
            out.append([name, talk, [rng.randrange(1, 30) for _ in range(rng.randrange(6))]])
    return out


class Player:
    """Makes the calls, at a time and with identifiers of its own."""

    def __init__(self):
        self.now = 0.0
        self.step = self.number = 0

    def begin(self, step, call=()):
        """Before a call: both sides get the same identifiers."""
        self.step, self.number = step, 0
        if call and call[0] == "later":
            self.now += call[1]

    def clock(self):
        return BEGIN + self.now

    def second(self):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.clock()))

    def uuid4(self):
        self.number += 1
        return uuid.UUID(int=(self.step << 64) + self.number)

    def datetime(self):
        """The class that db_slm takes the time from."""
        player = self

        class Made(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.datetime.fromtimestamp(player.clock(), tz)

            @classmethod
            def utcnow(cls):
                return datetime.datetime.fromtimestamp(player.clock(), datetime.timezone.utc).replace(tzinfo=None)

        return Made

    def do(self, engine, call):
        """The answer of one call, or the name of what it raised."""
        name, *more = call
        if name == "later":
            return None
        try:
            return getattr(self, "_" + name)(engine, *more)
        except (ValueError, RuntimeError, KeyError) as error:
            return "%s: %s" % (type(error).__name__, error)

    def _talks(self, engine):
        self.__dict__.setdefault("talks", {})
        return self.talks.setdefault("all", [])

    def _start(self, engine, user, agent):
        made, talks = engine.memory.start_conversation(user, agent), self._talks(engine)
        if made not in talks:
            talks.append(made)
        return made

    def _id(self, engine, number):
        return None if number is None else self._talks(engine)[number]

    def _say(self, engine, talk, sender, text):
        return engine.memory.log_message(self._id(engine, talk), sender, text)

    def _window(self, engine, talk, cached):
        return engine.memory.context_window(self._id(engine, talk), use_cache=cached)

    def _recent(self, engine, talk, limit):
        return engine.memory.recent_messages(self._id(engine, talk), limit)

    def _correct(self, engine, talk, fact):
        return engine.memory.record_correction(self._id(engine, talk), "wrong", "right", "text", fact)

    def _corrections(self, engine, talk, limit):
        return engine.memory.lookup_corrections(self._id(engine, talk), limit)

    def _stats(self, engine, talk):
        return engine.memory.conversation_stats(self._id(engine, talk))

    def _cache(self, engine, talk, tokens):
        return engine.cache.update(self._id(engine, talk), tokens)

    def _distribution(self, engine, talk):
        return list(engine.cache.distribution(self._id(engine, talk)).items())

    def _profile(self, engine, profile):
        return engine.cache.decode_profile(profile)

    def _lambda(self, engine, profile):
        return engine.cache.mixture_lambda(profile)

    def _bias(self, engine, talk, pattern, token, q, ttl):
        return engine.bias.upsert_bias(self._id(engine, talk), pattern, token, q, ttl)

    def _biases(self, engine, talk, snippet):
        return engine.bias.lookup(self._id(engine, talk), snippet)

    def _concept(self, engine, name, schema):
        number = engine.concepts.repo.register(name, schema)
        return [number, engine.concepts.repo.fetch_by_name(name), engine.concepts.repo.fetch_by_id(number), engine.concepts.repo.fetch_by_id(99)]

    def _template(self, engine, concept, text, language):
        return engine.concepts.verbalizer.register_template(concept, text, language)

    def _render(self, engine, concept, payload, language):
        return engine.concepts.verbalizer.render(concept, payload, language)

    def _probability(self, engine, context, concept, value):
        return engine.concepts.predictor.record_probability(context, concept, value)

    def _predict(self, engine, context):
        return engine.concepts.predictor.predict(context)

    def _signal(self, engine, talk, concept, score, ttl, once):
        return engine.concepts.push_signal(self._id(engine, talk), concept, score, ttl, once)

    def _next(self, engine, talk):
        return engine.concepts._next_signal(self._id(engine, talk))

    def _generate(self, engine, talk, tokens):
        return engine.concepts.generate(self._id(engine, talk), tokens)

    def _exists(self, engine, talk):
        return bool(engine.db.query("\n        SELECT 1 FROM tbl_l2_conversations WHERE id = ? LIMIT 1", (self._id(engine, talk),)))

    def _banned(self, engine, profile):
        return [row["token_id"] for row in engine.db.query("SELECT token_id FROM tbl_decode_bans WHERE profile = ?", (profile,))]

