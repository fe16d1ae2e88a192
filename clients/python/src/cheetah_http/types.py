"""What the calls return."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Generic, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Type, TypeVar, Union

from . import payloads
from .errors import APIError, DamagedValue, ProtocolError
from .wire import bytes_of, name_of, unb64

T = TypeVar("T")
Tree = Union[int, List[Any], Tuple[Any, ...]]


class Value(NamedTuple):
    """value: None where the payload was not asked for, or (by keys) where the key has none; size is None in the latter."""

    key: int
    size: Optional[int]
    value: Optional[bytes]


class NewValues(NamedTuple):
    """cursor: for the next call of new_values(); JSON can keep it."""

    values: List[Value]
    cursor: List[int]


class Pair(NamedTuple):
    """size, value: with values=True; None where the key has no value."""

    pair: bytes
    key: int
    size: Optional[int] = None
    value: Optional[bytes] = None


class Change(NamedTuple):
    """seq: for changes(after=) once it has been dealt with. pair: None if a value changed by its key. key: what the pair leads to now, None if
    deleted. recursive: all pairs whose names begin so were deleted. more: more that was committed together may follow. nothing_until:
    no change, everything up to seq has been told."""

    seq: int
    pair: Optional[bytes]
    key: Optional[int]
    deleted: bool = False
    recursive: bool = False
    more: bool = False
    nothing_until: bool = False


class Access(NamedTuple):
    """right: "read", "write" or "admin", each holds those before it; databases: None for all."""

    right: str
    databases: Optional[List[str]]


class Found(Pair):
    """A pair that was read by name, or by a scan with etags or expires. etag: for if_match. expires: when it ends, in seconds since 1970; None if it lasts. Both are no
    members of the tuple."""

    etag: Optional[str] = None
    expires: Optional[int] = None


class Tagged(NamedTuple):
    """A value and its tag, for if_match."""

    value: bytes
    etag: str


class Child(NamedTuple):
    """One of the children of a prefix. key: of a pair with this very name; None of a group, below which `pairs` lie."""

    name: bytes
    pairs: int
    key: Optional[int] = None


class Written(NamedTuple):
    """created: the pair is new."""

    key: int
    created: bool


class Stored(Written):
    """etag: the new one, where a condition was given."""

    etag: Optional[str] = None


class Deleted(NamedTuple):
    pairs: int
    values: int


@dataclass(frozen=True)
class Row(Generic[T]):
    """A line of a reducer. record: the decoded payload; None where the key has no value, where decoding was not asked for,
    and where the payload is malformed: then it stands in `payload` and `problem` says so."""

    pair: bytes
    key: int
    record: Optional[T] = None
    payload: Optional[bytes] = None
    problem: Optional[str] = None
    words: Optional[Tuple[Optional[str], ...]] = None  # of the context, if they were asked for and it is registered
    entry_words: Optional[Tuple[Optional[str], ...]] = None  # of the record's entries; None: a token has no word


class Stats(NamedTuple):
    pairs: int
    dangling: int
    bytes: int
    min: Optional[int]
    max: Optional[int]
    mean: Optional[float]


class Total(NamedTuple):
    token: int
    count: int  # type: ignore[assignment] # hides tuple.count
    contexts: int


class WordTotal(Total):
    """With the token's word; None: it has none."""

    word: Optional[str] = None


class CountsOfCounts(NamedTuple):
    contexts: int
    types: int
    n1: int
    n2: int
    n3: int
    n4: int
    d1: float
    d2: float
    d3: float


class Similar(NamedTuple):
    pair: bytes
    key: int
    score: float


class WordSimilar(Similar):
    """With the words of the context; None: it is not registered, or has words that are none."""

    words: Optional[Tuple[Optional[str], ...]] = None


class Progress(NamedTuple):
    phase: str
    done: int
    total: int


class Smoothed(NamedTuple):
    """The result of smoothing one order."""

    order: int
    contexts: int
    types: int
    d1: float
    d2: float
    d3: float


class Linked(NamedTuple):
    """The result of find_links. contexts: that have a list of links now; resumed: of them those that a run before had done; too_long: payloads
    whose names leave no room."""

    metric: str
    contexts: int
    links: int
    resumed: int
    too_long: int


class Link(NamedTuple):
    """words: of a context that was counted, if they were asked for."""

    pair: bytes
    weight: float
    words: Optional[List[Optional[str]]] = None


class Links(NamedTuple):
    """What a context belongs together with, best first. links is None if the payload is malformed."""

    pair: bytes
    links: Optional[List[Link]]
    words: Optional[List[Optional[str]]] = None


class MatrixMade(NamedTuple):
    """The matrix of one order: rows, columns, and values in each."""

    order: int
    metric: str
    rows: int
    columns: int
    entries: int


class MatrixRow(NamedTuple):
    """The row of a token, or its column: what comes after it, or before it, ascending by token. row is None if the payload is malformed. word, and words of
    the tokens in row: if they were asked for."""

    token: int
    order: int
    metric: str
    row: Optional[List[Tuple[int, float]]]
    word: Optional[str] = None
    words: Optional[List[Optional[str]]] = None


class Association(NamedTuple):
    """relation: after, before (with a token and an order) or link (with a pair)."""

    relation: str
    metric: str
    weight: float
    order: Optional[int] = None
    token: Optional[int] = None
    word: Optional[str] = None
    pair: Optional[bytes] = None


class Counted(NamedTuple):
    """repeated: a request with the same `once` was counted before; this is its answer. malformed: payloads of counts that could not be
    read: nothing was added to them."""

    documents: int
    tokens: int
    ngrams: int
    contexts_created: int
    repeated: bool = False
    removed: int = 0
    generation: Optional[int] = None  # of the live model, if there is one
    malformed: int = 0


def counted_sum(one: Counted, other: Counted) -> Counted:
    """What both have counted; the generation is the later one's."""
    return Counted(
        one.documents + other.documents, one.tokens + other.tokens, one.ngrams + other.ngrams,
        one.contexts_created + other.contexts_created, one.repeated or other.repeated, one.removed + other.removed,
        other.generation, one.malformed + other.malformed,
    )  # fmt: skip


class ArpaRead(NamedTuple):
    """A model that was read in: its order, the tokens of <s>, </s> and <unk>, and how many n-grams it has by order."""

    order: int
    bos: int
    eos: int
    unk: int
    ngrams: List[int]
    lines: int
    warnings: List[str]  # no_unk, no_marks, backoff_at_highest_order, text_after_end
    new_words: int = 0  # that were given a token


class ContextMatch(NamedTuple):
    """vector: empty for the empty context. A word is None where its token has none."""

    vector: bytes
    key: int
    hash: str
    order_size: int
    tokens: Tuple[int, ...]
    ranked: Tuple[Tuple[int, int], ...]
    words: Optional[Tuple[Optional[str], ...]] = None  # of the tokens; where words were asked about
    ranked_words: Optional[Tuple[Optional[str], ...]] = None  # likewise


#: What is counted or asked about: tokens, or a text, whose words are tokens of the database's vocabulary.
Text = Union[Sequence[int], str]
#: The context of an answer: its tokens, or its words where a text was asked about (None: a token without a word).
Context = Union[Tuple[int, ...], Tuple[Optional[str], ...]]


@dataclass(frozen=True)
class Word:
    """A word of the vocabulary; count: how often it was counted, None if that is not kept."""

    token: int
    word: str
    count: Optional[int]


class Candidate(NamedTuple):
    """p: the probability; q: the same quantized; word: where a text was asked about."""

    token: int
    q: int
    p: float
    word: Optional[str] = None


class Prediction(NamedTuple):
    """order is None (and there are no candidates) where nothing is known."""

    order: Optional[int]
    context: Context
    candidates: List[Candidate]


class LiveCandidate(NamedTuple):
    """order: the longest n-gram that ends with the token and was counted."""

    token: int
    p: float
    log10: float
    order: int
    word: Optional[str] = None


class LivePrediction(NamedTuple):
    """unknown: p of one token that was never counted. mixed: commits came in between; the numbers may be of two moments."""

    order: int
    context: Context
    candidates: List[LiveCandidate]
    unknown: float
    generation: int
    mixed: bool


class LinkedCandidate(NamedTuple):
    """order: the deepest, in any of the contexts that were mixed, that has the token."""

    token: int
    p: float
    order: int
    word: Optional[str] = None


class LinkedPrediction(NamedTuple):
    """links: contexts that were mixed in, 0: the context has no links, or was counted too often; metric: theirs. unknown, generation and mixed: of
    a live model."""

    order: int
    context: Context
    candidates: List[LinkedCandidate]
    links: int
    metric: Optional[str]
    unknown: Optional[float] = None
    generation: Optional[int] = None
    mixed: bool = False


class LiveScore(NamedTuple):
    """tokens: all but bos; orders: the longest n-gram that ends with each, 0: it is unknown; perplexity: without the unknown ones."""

    tokens: int
    log10: float
    perplexity: Optional[float]
    perplexity_with_oov: Optional[float]
    oov: int
    per_token: List[float]
    orders: List[int]
    generation: int
    mixed: bool
    words: Optional[List[Optional[str]]] = None


class Score(NamedTuple):
    """tokens: all but the first; orders: the order that each was found at, 0: nowhere, of which there are oov. The perplexities, without
    those and with them, are None if there was nothing to score, and in the mode deepest, which is no distribution."""

    tokens: int
    log10: float
    perplexity: Optional[float]
    per_token: List[float]
    orders: List[int]
    oov: int
    perplexity_with_oov: Optional[float]
    words: Optional[List[Optional[str]]] = None


@dataclass
class Operation:
    """One operation of a batch, and its result once the batch has been flushed. number: what add() came to; etag: the new one, where a
    condition was given."""

    body: Dict[str, Any]
    status: Optional[int] = None
    key: Optional[int] = None
    size: Optional[int] = None
    value: Optional[bytes] = None
    error: Optional[APIError] = None
    number: Optional[int] = None
    etag: Optional[str] = None
    expires: Optional[int] = None

    @property
    def done(self) -> bool:
        return self.status is not None

    @property
    def reads(self) -> bool:
        return self.body["op"] in ("read", "pair_get")

    @property
    def repeatable(self) -> bool:
        if "if_absent" in self.body or "if_match" in self.body:
            return False  # it would not find what it asks for a second time
        return self.reads or self.body["op"] in ("edit", "pair_set", "pair_put")

    def result(self) -> "Operation":
        """Itself; raises what it failed with, and RuntimeError before the flush."""
        if self.error is not None:
            raise self.error
        if self.status is None:
            raise RuntimeError("the batch has not been flushed yet")
        return self

    def settle(self, line: Dict[str, Any], error: Optional[APIError] = None) -> None:
        self.status, self.error = line["status"], error
        self.key, self.size = line.get("key"), line.get("size")
        self.etag = line.get("etag")
        self.expires = line.get("expires")
        value = line.get("value")
        self.number = value if isinstance(value, int) else None
        self.value = bytes_of(line, "value")


def filled(kind: Type[T], line: Any) -> T:
    """A named tuple of the members of an answer; those that a later server has beside them are passed over."""
    known: Tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    try:
        return kind(**{name: line[name] for name in known if name in line})
    except TypeError:
        raise ProtocolError(f"an answer that is no {kind.__name__}: {line!r:.100}") from None


def only(kind: Type[T], lines: Sequence[Any]) -> T:
    """Of the only line of a stream."""
    return filled(kind, lines[0] if lines else None)


def intact(line: Dict[str, Any]) -> None:
    """Raises what a line of a stream says of its value. A key without one is no error."""
    error = line.get("error")
    if error is not None and error != "key_not_found":
        named = "pair" in line or "name" in line
        raise DamagedValue(str(error), int(line["key"]), name_of(line) if named else None, line)


def value_of(line: Dict[str, Any]) -> Value:
    intact(line)
    return Value(line["key"], line.get("size"), bytes_of(line, "value"))


def change_of(line: Mapping[str, Any]) -> Change:
    """A line of GET /changes/{prefix}, its progress and its end among them."""
    if "end" in line or "progress" in line:
        seq = line["end"]["next"] if "end" in line else line["progress"]["seq"]
        return Change(int(seq), None, None, nothing_until=True)
    name = line["name"] if "name" in line else line["pair"]
    pair = None if name is None else name_of(line)
    return Change(int(line["seq"]), pair, line["key"], bool(line["deleted"]), "recursive" in line, "more" in line)


def pair_of(line: Dict[str, Any]) -> Pair:
    intact(line)
    return Pair(name_of(line), line["key"], line.get("size"), bytes_of(line, "value"))


def found_of(line: Dict[str, Any], etag: Optional[str]) -> Found:
    found = Found(*pair_of(line))
    found.etag, found.expires = etag or line.get("etag"), line.get("expires")
    return found


def stored_of(key: int, created: bool, etag: Optional[str]) -> Stored:
    stored = Stored(key, created)
    stored.etag = etag
    return stored


def row_of(line: Dict[str, Any], words: bool = False) -> Row[Any]:
    """A line of a payload reducer, decoded by the server or not; words: those that it shows, too."""
    intact(line)
    payload = bytes_of(line, "payload")
    row: Row[Any] = Row(name_of(line), line["key"], payloads.record_of(line), payload, line.get("problem"))
    entries = next((line[name] for name in ("followers", "ranked", "entries") if name in line), None)
    if not words or entries is None:
        return row
    return replace(row, words=_words(line), entry_words=tuple(entry[-1] for entry in entries))


def _words(line: Dict[str, Any]) -> Optional[Tuple[Optional[str], ...]]:
    return tuple(line["words"]) if line.get("words") is not None else None


def total_of(line: Dict[str, Any]) -> Total:
    values = (line["token"], line["count"], line["contexts"])
    if "word" not in line:
        return Total(*values)
    total = WordTotal(*values)
    total.word = line["word"]
    return total


def similar_of(line: Dict[str, Any], words: bool) -> Similar:
    values = (name_of(line), line["key"], line["score"])
    if not words:
        return Similar(*values)
    similar = WordSimilar(*values)
    similar.words = _words(line)
    return similar


def word_of(line: Dict[str, Any]) -> Word:
    if line.get("error") is not None:
        raise DamagedValue(str(line["error"]), 0, b"tok:" + int(line["token"]).to_bytes(4, "big"), line)
    return Word(line["token"], line["word"], line["count"])


def prediction_of(line: Dict[str, Any]) -> Prediction:
    candidates = [Candidate(c["token"], c["q"], c["p"], c.get("word")) for c in line["candidates"]]
    return Prediction(line["order"], tuple(line["context"]), candidates)


def live_prediction_of(line: Dict[str, Any]) -> LivePrediction:
    candidates = [
        LiveCandidate(c["token"], c["p"], c["log10"], c["order"], c.get("word")) for c in line["candidates"]
    ]
    mixed = bool(line.get("mixed", False))
    return LivePrediction(line["order"], tuple(line["context"]), candidates, line["unknown"], line["generation"], mixed)


def linked_prediction_of(line: Dict[str, Any]) -> LinkedPrediction:
    candidates = [LinkedCandidate(c["token"], c["p"], c["order"], c.get("word")) for c in line["candidates"]]
    mixed = bool(line.get("mixed", False))
    return LinkedPrediction(
        line["order"], tuple(line["context"]), candidates, line["links"], line["metric"], line.get("unknown"), line.get("generation"), mixed
    )


def score_of(line: Dict[str, Any]) -> Score:
    return Score(
        line["tokens"], line["log10"], line.get("perplexity"), line["per_token"], line["orders"], line["oov"],
        line.get("perplexity_with_oov"), line.get("words"),
    )  # fmt: skip


def live_score_of(line: Dict[str, Any]) -> LiveScore:
    return filled(LiveScore, {"mixed": False, **line})


def context_of(line: Dict[str, Any]) -> ContextMatch:
    ranked = tuple((entry[0], entry[1]) for entry in line["ranked"])
    words = tuple(line["words"]) if "words" in line else None
    ranked_words = tuple(entry[2] for entry in line["ranked"]) if words is not None else None
    vector, tokens = unb64(line["vector"] or ""), tuple(line["tokens"])
    return ContextMatch(vector, line["key"], line["hash"], line["order_size"], tokens, ranked, words, ranked_words)


class Learned(NamedTuple):
    """A value of a prediction table and its probability."""

    value: bytes
    p: float


class Inherited(NamedTuple):
    """How many values of a prediction table were made of others; skipped: their key or all of their sources are missing."""

    merged: int
    skipped: int
