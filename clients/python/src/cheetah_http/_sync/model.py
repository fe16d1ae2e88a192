# Made by unasync.py from _async/model.py; change that.
"""Counting n-grams and asking the model."""
from __future__ import annotations

from typing import Any, Iterator, BinaryIO, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, Union
from urllib.parse import quote

from ..errors import CheetahError, TooLarge, named
from ..net.errors import TransportError
from ..retry import lost
from ..types import (
    ArpaRead,
    ContextMatch,
    Counted,
    Inherited,
    Learned,
    LinkedPrediction,
    LivePrediction,
    LiveScore,
    Prediction,
    Score,
    Text,
    Tree,
    Word,
    context_of,
    counted_sum,
    filled,
    linked_prediction_of,
    live_prediction_of,
    live_score_of,
    prediction_of,
    score_of,
    word_of,
)
from ..wire import NDJSON, Call, Pieces, b64, checked_limit, dump, tokens_of, unb64
from .transport import Transport


MIXED = "texts and lists of tokens cannot be in one request"
Matrix = Sequence[Sequence[float]]


class Model(Transport):
    def ngrams(
        self,
        documents: Iterable[Text],
        *,
        order: Optional[int] = None,
        once: Optional[str] = None,
        remove: bool = False,
    ) -> Counted:
        """Counts the n-grams of documents (lists of tokens, or all of them texts, whose words get tokens), all in one request and one commit. once: an identifier of this
        request (1 to 64 of A-Z, a-z, 0-9, _ and -), kept by the server for a day at least: with it the request is sent again
        after a lost connection, and counted once however often it arrives. Without it, it is not sent again: it may have been
        counted. order: 3 unless given, or the live model's. remove: the documents are taken away again."""
        listed = list(documents)
        lines = [dump(_document(document)) + b"\n" for document in listed]
        return self._count(lines, order, once, remove, text=_texts(listed))

    def ingest(
        self,
        documents: Iterable[Text],
        *,
        order: Optional[int] = None,
        request_bytes: int = 4 << 20,
        progress: Optional[Callable[[Counted], None]] = None,
    ) -> Counted:
        """ngrams() for any number of documents: cut into requests of about that many bytes, each a commit of its own, and into smaller
        ones if the server has too little memory for one. Gives the sums; progress is called with those so far after each
        request. An error has them as `counted`: the documents that were counted before it."""
        total = Counted(0, 0, 0, 0)
        try:
            for part in self.ingest_parts(documents, order=order, request_bytes=request_bytes):
                total = counted_sum(total, part)
                if progress is not None:
                    progress(total)
        except CheetahError as error:
            error.counted = total
            raise
        return total

    def ingest_parts(
        self, documents: Iterable[Text], *, order: Optional[int] = None, request_bytes: int = 4 << 20
    ) -> Iterator[Counted]:
        """The same as a generator, which does nothing until it is iterated over: what each request has counted. After an error the
        documents of all that were yielded are counted."""
        waiting: List[bytes] = []
        size, text = 0, False
        for document in documents:
            text = text if waiting else isinstance(document, str)
            if text != isinstance(document, str):
                raise TypeError(MIXED)
            line = dump(_document(document)) + b"\n"
            if waiting and size + len(line) > request_bytes:
                for counted in self._count_parts(waiting, order, text):
                    yield counted
                waiting, size = [], 0
            waiting.append(line)
            size += len(line)
        if waiting:
            for counted in self._count_parts(waiting, order, text):
                yield counted

    def _count_parts(self, lines: List[bytes], order: Optional[int], text: bool) -> Iterator[Counted]:
        """In as few requests as the server's memory for one allows."""
        parts = [lines]
        while parts:
            part = parts.pop()
            try:
                yield self._count(part, order, text=text)
            except TooLarge:
                if len(part) == 1:
                    raise
                half = len(part) // 2
                parts += [part[half:], part[:half]]

    def _count(
        self, lines: List[bytes], order: Optional[int], once: Optional[str] = None, remove: bool = False, *, text: bool
    ) -> Counted:
        params = self._params(order=order, once=once, remove=remove or None, text=text or None)
        call = Call("POST", "/ngrams", params, b"".join(lines), NDJSON, repeatable=once is not None)
        return filled(Counted, self._json(call))

    def vocabulary(
        self, *, after: Optional[int] = None, limit: Optional[int] = None, page_size: int = 10000
    ) -> Iterator[Word]:
        """The words of the database, ascending by token; after: words with higher tokens only."""
        for line in self._scan("/vocabulary", self._params(), after, limit, page_size):
            yield word_of(line)

    def contexts(
        self, tree: Union[Tree, str], *, limit: Optional[int] = None, depth: Optional[int] = None, contains: bool = False
    ) -> List[ContextMatch]:
        """Context relativism: the context whose vector is the encoding of the tree, with what follows it. contains: all contexts
        that contain its leaves, at most limit (32 unless given). tree may be the words of a context: a text; matches have their words then."""
        checked_limit(limit)
        name = "text" if isinstance(tree, str) else "tree"
        body: Dict[str, Any] = {name: tree, "depth": depth, "match": "contains" if contains else "exact"}
        if limit is not None:
            body["limit"] = limit
        lines, _ = self._collect(self._question("/contexts", body))
        return [context_of(line) for line in lines]

    def predict(
        self, tokens: Text, *, k: int = 20, max_order: Optional[int] = None, blend: bool = False
    ) -> Prediction:
        """Candidates for the next token: from the deepest context that has any, or with blend=True a mixture of all. max_order: the
        highest that was smoothed, unless given."""
        body = _asked(tokens, k=k, max_order=max_order, mode="blend" if blend else "deepest")
        return prediction_of(self._json(self._question("/predict", body)))

    def predict_levels(
        self, tokens: Text, *, k: int = 20, max_order: Optional[int] = None
    ) -> List[Prediction]:
        """The candidates of every order, the deepest first."""
        body = _asked(tokens, k=k, max_order=max_order, mode="levels")
        lines, _ = self._collect(self._question("/predict", body))
        return [prediction_of(line) for line in lines]

    def linked_predict(
        self,
        tokens: Text,
        links: float,
        *,
        k: int = 20,
        max_order: Optional[int] = None,
        mode: Optional[str] = None,
        metric: Optional[str] = None,
        seldom: Optional[int] = None,
    ) -> LinkedPrediction:
        """predict() or live_predict(), mixed with what follows the most related contexts (find_links): links is their weight, from 0 (not 0 itself) to 1. All p sum to 1. metric: which
        links, else the first of cosine, jaccard and pmi that there are. seldom: contexts counted more often keep their own. mode: live, deepest or blend. APIError no_links: find
        them first."""
        body = _asked(tokens, links=links, k=k, max_order=max_order, mode=mode, metric=metric, seldom=seldom)
        return linked_prediction_of(self._json(self._question("/predict", body)))

    def score(
        self, tokens: Text, *, max_order: Optional[int] = None, mode: Optional[str] = None
    ) -> Score:
        """How likely a sequence is; per_token: log10 of each token after the first. mode: blend (unless given, if there is no live model), or
        deepest: the smoothed probabilities without the weights of the contexts, which give no perplexity."""
        return score_of(self._json(self._question("/score", _asked(tokens, max_order=max_order, mode=mode))))

    def scores(
        self, texts: Iterable[Text], *, max_order: Optional[int] = None, mode: Optional[str] = None
    ) -> List[Score]:
        """The same for many texts in one request. The first text that the server does not take is raised, as from score()."""
        asked = [_asked(text, max_order=max_order, mode=mode) for text in texts]
        return [score_of(answer) for answer in self._ask_many("/score", asked)]

    def predictions(
        self, texts: Iterable[Text], *, k: int = 20, max_order: Optional[int] = None, blend: bool = False
    ) -> List[Prediction]:
        """predict() for many texts in one request."""
        mode = "blend" if blend else "deepest"
        asked = [_asked(text, k=k, max_order=max_order, mode=mode) for text in texts]
        return [prediction_of(answer) for answer in self._ask_many("/predict", asked)]

    # ---- prediction tables: table -> key -> values, each with a score and weights that are trained

    def table_set(
        self,
        table: str,
        key: bytes,
        value: bytes,
        *,
        prob: float = 0.5,
        weights: Optional[Sequence[Dict[str, Any]]] = None,
    ) -> int:
        """Gives a value this score and these weights ({"depth", "vector", "bias"}; none: it has none from now on). Returns how many values
        the key has."""
        body: Dict[str, Any] = {"key": b64(key), "value": b64(value), "prob": prob}
        if weights is not None:
            body["weights"] = list(weights)
        return int((self._json(self._of_table(table, "set", body)))["values"])

    def table_query(
        self, table: str, keys: Sequence[bytes], *, ctx: Optional[Matrix] = None, merge: str = "avg"
    ) -> List[Learned]:
        """The values of keys and their probabilities in a context (rows of numbers), the most probable first; of several keys those that have
        a value are merged: avg, max or sum. None of them is there: APIError prediction_entry_not_found."""
        body: Dict[str, Any] = {"keys": [b64(key) for key in keys], "merge": merge}
        if ctx is not None:
            body["ctx"] = [list(row) for row in ctx]
        answer = self._json(self._of_table(table, "query", body, repeatable=True))
        return [Learned(unb64(one["value"]), one["p"]) for one in answer["candidates"]]

    def table_train(
        self,
        table: str,
        key: bytes,
        target: bytes,
        *,
        ctx: Optional[Matrix] = None,
        rate: float = 0.01,
        negatives: Sequence[bytes] = (),
    ) -> int:
        """One step of training: the target becomes more probable in this context, the negatives less. Returns how many values the key has.
        Not sent again after a lost connection: it may have been done."""
        body = {"key": b64(key), "target": b64(target), "rate": rate, "negatives": [b64(one) for one in negatives]}
        if ctx is not None:
            body["ctx"] = [list(row) for row in ctx]
        return int((self._json(self._of_table(table, "train", body)))["values"])

    def table_shift(
        self, table: str, key: bytes, ctx: Matrix, *, mode: str = "bias", strength: float = 1.0
    ) -> int:
        """Shifts the score of every value of a key by what its weights make of the context (bias), or scales it (scale)."""
        body = {"key": b64(key), "ctx": [list(row) for row in ctx], "mode": mode, "strength": strength}
        return int((self._json(self._of_table(table, "shift", body)))["values"])

    def table_inherit(
        self, table: str, items: Iterable[Tuple[bytes, bytes, Sequence[bytes]]], *, merge: str = "avg"
    ) -> Inherited:
        """Each (key, target, sources): the target becomes the mean of the sources (merge: avg, max or sum of their scores)."""
        listed = [
            {"key": b64(key), "target": b64(target), "sources": [b64(one) for one in sources], "merge": merge}
            for key, target, sources in items
        ]
        answer = self._json(self._of_table(table, "inherit", {"items": listed}))
        return Inherited(answer["merged"], answer["skipped"])

    def _of_table(self, table: str, what: str, body: Dict[str, Any], repeatable: bool = False) -> Call:
        path = quote(table or "default", safe="") + "/" + what
        return Call("POST", f"/tables/{path}", self._params(), dump(body), "application/json", repeatable=repeatable)

    def live_predict(
        self, tokens: Text, *, k: int = 20, max_order: Optional[int] = None
    ) -> LivePrediction:
        """The k most likely next tokens of a live model, exactly."""
        body = _asked(tokens, k=k, mode="live", max_order=max_order)
        return live_prediction_of(self._json(self._question("/predict", body)))

    def live_score(
        self, tokens: Text, *, bos: bool = True, max_order: Optional[int] = None
    ) -> LiveScore:
        """How likely a text is, by a live model. bos=False: a text that does not begin with bos is a fragment."""
        body = _asked(tokens, bos=bos, mode="live", max_order=max_order)
        return live_score_of(self._json(self._question("/score", body)))

    def live_scores(self, texts: Iterable[Text], *, bos: bool = True) -> List[LiveScore]:
        """The same for many texts in one request. The first text that the server does not take is raised, as from live_score()."""
        asked = [_asked(text, bos=bos, mode="live") for text in texts]
        return [live_score_of(answer) for answer in self._ask_many("/score", asked)]

    def import_arpa(
        self,
        text: Union[bytes, BinaryIO, Iterable[bytes]],
        *,
        words: bool = False,
        bos: Optional[int] = None,
        eos: Optional[int] = None,
        unk: Optional[int] = None,
        unmarked: bool = False,
    ) -> ArpaRead:
        """Makes a fixed model of a text in ARPA format, in a database without counts and models; live_predict(), live_score() and arpa() then
        answer from it. text: the bytes, or a file that is open for reading bytes, or what yields some: these are sent while they are read, never in memory
        as a whole (and not packed), and once only if they cannot go back. words: the words of the text are those of the vocabulary, new ones get the next tokens; else
        they are tokens in decimal. bos, eos, unk: the tokens of <s>, </s> and <unk> (2, 3 and 4294967295 unless given). unmarked: a text
        without <s> or </s> is accepted."""
        params = self._params(bos=bos, eos=eos, unk=unk, unmarked=unmarked or None, text=words or None)
        call = Call("POST", "/arpa", params, content_type="text/plain", repeatable=False)
        if isinstance(text, (bytes, bytearray, memoryview)):
            call = call._replace(content=bytes(text))
        else:
            call = call._replace(pieces=Pieces(text))
        return filled(ArpaRead, self._json(call))

    def arpa(self, *, words: bool = False) -> Iterator[bytes]:
        """The live model, or the one that was read in, in ARPA format, piece by piece, with tokens as numbers or with the words of the vocabulary. A text without its last line, which is \\end\\, was cut off: the connection
        broke, or reading failed at the server; this raises ConnectionLost then."""
        call = Call("GET", "/arpa", self._params(text=words or None))
        response = self._open(call, stream=True)
        try:
            for piece in response.iter_bytes():
                yield piece
        except TransportError as cause:
            with named(self.server):
                raise lost(cause, "GET /arpa", False) from cause
        finally:
            response.close()

    def _ask_many(self, path: str, asked: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        if not asked:
            return []
        text = "text" in asked[0]
        if any(("text" in line) != text for line in asked):
            raise TypeError(MIXED)
        lines = asked if len(asked) > 1 else [*asked, _asked("" if text else [])]  # one line alone would be one question
        body = b"".join(dump(line) + b"\n" for line in lines)
        answers, _ = self._collect(Call("POST", path, self._params(text=text or None), body, NDJSON))
        return answers[: len(asked)]

    def _question(self, path: str, body: Dict[str, Any]) -> Call:
        params = self._params(text=True if "text" in body else None)
        return Call("POST", path, params, dump(body), "application/json")


def _document(document: Text) -> Dict[str, Any]:
    return {"text": document} if isinstance(document, str) else {"tokens": tokens_of(document)}


def _texts(documents: Sequence[Text]) -> bool:
    texts = [isinstance(document, str) for document in documents]
    if any(texts) != all(texts):
        raise TypeError(MIXED)
    return bool(texts) and texts[0]


def _asked(tokens: Text, **members: Union[str, int, float, None]) -> Dict[str, Any]:
    """The body of a question; a member that is None is left to the server."""
    return {**_document(tokens), **{name: value for name, value in members.items() if value is not None}}
