"""Payloads of a namespace decoded, queues, aggregates, smoothing."""
from __future__ import annotations

from typing import Any, AsyncIterator, Callable, Dict, List, Literal, Optional, Tuple, Union

from ..errors import CheetahError
from ..payloads import Context, Continuation, Counts, Json, Probabilities, TopK
from ..types import Association, CountsOfCounts, Link, Linked, Links, MatrixMade, MatrixRow, Progress, Row, Similar, Smoothed, Stats, Total, filled, only, row_of, similar_of, total_of
from ..wire import Call, checked_limit, checked_pair, unb64, url_bytes
from .transport import AsyncTransport

PAGE = 1000
Metric = Literal["cosine", "jaccard", "pmi"]


def _name(entry: Dict[str, Any]) -> bytes:
    return unb64(entry["pair"]) if "pair" in entry else str(entry["name"]).encode()


def _links(line: Dict[str, Any]) -> Links:
    listed = line.get("links")
    links = None if listed is None else [Link(_name(x), x["weight"], x.get("words")) for x in listed]
    return Links(_name(line).split(b":", 2)[-1], links, line.get("words"))


class AsyncReducers(AsyncTransport):
    # ---- payloads

    async def reduce(
        self,
        mode: str,
        prefix: bytes = b"",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        decode: bool = True,
        words: bool = False,
        page_size: int = PAGE,
    ) -> AsyncIterator[Row[Any]]:
        """Every payload under a prefix in byte order, decoded by the server as the mode says; with decode=False as bytes
        (for cheetah_http.payloads). Pages by itself and goes on after a lost connection. A malformed payload comes with
        `problem` and its bytes. words: of counts, probabilities and topk also the words of the context and of the entries."""
        params = self._shown(until=None if until is None else url_bytes(until), decode=decode or None)
        if words:
            params["text"] = True
        start = None if after is None else url_bytes(after)
        async for line in self._scan(f"/reduce/{mode}/{url_bytes(prefix)}", params, start, limit, page_size):
            yield row_of(line, words)

    def counts(
        self,
        prefix: bytes = b"cnt:",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        words: bool = False,
        page_size: int = PAGE,
    ) -> AsyncIterator[Row[Counts]]:
        """The counts payloads under a prefix, decoded; words: with those of the contexts and tokens."""
        return self.reduce("counts", prefix, after=after, until=until, limit=limit, words=words, page_size=page_size)

    def probabilities(
        self,
        prefix: bytes = b"prob:",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        words: bool = False,
        page_size: int = PAGE,
    ) -> AsyncIterator[Row[Probabilities]]:
        """The probabilities payloads under a prefix, decoded; words: with those of the contexts and tokens."""
        return self.reduce("probabilities", prefix, after=after, until=until, limit=limit, words=words, page_size=page_size)

    def continuations(
        self,
        prefix: bytes = b"cont:",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        page_size: int = PAGE,
    ) -> AsyncIterator[Row[Continuation]]:
        """The continuation payloads under a prefix, decoded."""
        return self.reduce("continuations", prefix, after=after, until=until, limit=limit, page_size=page_size)

    def topk(
        self,
        prefix: bytes = b"topk:",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        words: bool = False,
        page_size: int = PAGE,
    ) -> AsyncIterator[Row[TopK]]:
        """The lists of best followers under a prefix, decoded; words: with those of the contexts and tokens."""
        return self.reduce("topk", prefix, after=after, until=until, limit=limit, words=words, page_size=page_size)

    def stored_contexts(
        self,
        prefix: bytes = b"ctx:",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        page_size: int = PAGE,
    ) -> AsyncIterator[Row[Context]]:
        """The context payloads under a prefix, decoded. See contexts() for finding some."""
        return self.reduce("contexts", prefix, after=after, until=until, limit=limit, page_size=page_size)

    def documents(
        self,
        prefix: bytes = b"meta:",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        page_size: int = PAGE,
    ) -> AsyncIterator[Row[Json]]:
        """The JSON payloads under a prefix, decoded (the server's modes meta, cache and bias)."""
        return self.reduce("meta", prefix, after=after, until=until, limit=limit, page_size=page_size)

    def payloads(
        self,
        prefix: bytes = b"",
        *,
        after: Optional[bytes] = None,
        until: Optional[bytes] = None,
        limit: Optional[int] = None,
        page_size: int = PAGE,
    ) -> AsyncIterator[Row[Any]]:
        """All payloads under a prefix as bytes."""
        return self.reduce(
            "payloads", prefix, after=after, until=until, limit=limit, decode=False, page_size=page_size
        )

    # ---- queues

    def queue_peek(self, prefix: bytes, *, limit: Optional[int] = None) -> AsyncIterator[Row[Any]]:
        """The head of a queue; nothing is removed."""
        return self.reduce("queue-drain", prefix, limit=limit, decode=False)

    async def queue_drain(self, prefix: bytes, *, limit: Optional[int] = None) -> List[Row[Any]]:
        """Takes the head of a queue: pairs and values are removed, each goes to one caller only. Never asked for again by
        itself: after a lost connection ConnectionLost has the rows that came as `arrived`; what had not arrived by then is gone."""
        rows: List[Row[Any]] = []
        try:
            async for row in self.queue_drain_rows(prefix, limit=limit):
                rows.append(row)
        except CheetahError as error:
            error.arrived = rows
            raise
        return rows

    async def queue_drain_rows(self, prefix: bytes, *, limit: Optional[int] = None) -> AsyncIterator[Row[Any]]:
        """The same as a generator, row by row as they come, which takes nothing until it is iterated over; what comes is gone, whether it is
        looked at or not."""
        checked_limit(limit)
        call = Call("POST", f"/reduce/queue-drain/{url_bytes(prefix)}", self._shown(limit=limit), repeatable=False)
        async with await self._stream(call) as stream:
            async for line in stream.lines():
                if "end" not in line:
                    yield row_of(line)

    # ---- aggregates

    async def stats(self, prefix: bytes = b"") -> Stats:
        """Number and sizes of the payloads under a prefix."""
        lines, _ = await self._aggregate("stats", prefix)
        return only(Stats, lines)

    async def totals(
        self, prefix: bytes = b"cnt:1:", *, by_count: bool = False, limit: Optional[int] = None, words: bool = False
    ) -> List[Total]:
        """Each token's count over the counts payloads, ascending by token, or descending by count; words: as WordTotal."""
        checked_limit(limit)
        lines, _ = await self._aggregate("totals", prefix, sort="count" if by_count else None, limit=limit, text=words or None)
        return [total_of(line) for line in lines]

    async def counts_of_counts(self, prefix: bytes) -> CountsOfCounts:
        """How many followers have the counts 1, 2, 3, 4 and over, and the discounts that follow."""
        lines, _ = await self._aggregate("counts-of-counts", prefix)
        return only(CountsOfCounts, lines)

    async def similar(
        self, prefix: bytes, to: Union[bytes, str], *, metric: Literal["cosine", "jaccard"] = "cosine", limit: int = 10, words: bool = False
    ) -> List[Similar]:
        """The counts payloads under a prefix most similar to that of the pair `to`; metric: cosine or jaccard. words: as WordSimilar; `to` may be a
        text then, the words of a context."""
        checked_limit(limit)
        if isinstance(to, str) and not words:
            raise TypeError("the words of a context are asked for with words=True")
        target = url_bytes(to.encode() if isinstance(to, str) else checked_pair(to))
        lines, _ = await self._aggregate("similar", prefix, to=target, metric=metric, limit=limit, text=words or None)
        return [similar_of(line, words) for line in lines]

    async def _aggregate(
        self, mode: str, prefix: bytes, **params: Union[str, int, None]
    ) -> Tuple[List[Dict[str, Any]], Dict[str, Any]]:
        call = Call("GET", f"/reduce/{mode}/{url_bytes(prefix)}", self._params(**params))
        return await self._collect(call, lambda line: "progress" in line)  # one that takes long says how far it is

    # ---- links

    async def find_links(
        self,
        prefix: bytes = b"cnt:",
        *,
        metric: Metric = "cosine",
        k: Optional[int] = None,
        min: Optional[float] = None,
        to: Optional[bytes] = None,
        progress: Optional[Callable[[Progress], None]] = None,
    ) -> Linked:
        """Finds for every counts payload under the prefix its k (20) most related ones under `to` (the same prefix), which weigh at least min (0.1), and
        keeps them in place of those of an earlier run. metric: cosine, jaccard or pmi. progress is called as it goes on. A run that is cut off is
        gone on with when it is asked for again."""

        def watch(line: Dict[str, Any]) -> bool:
            if "progress" in line and progress is not None:
                progress(filled(Progress, line["progress"]))
            return "progress" in line

        target = None if to is None else url_bytes(to)
        path = f"/reduce/links/{url_bytes(prefix)}"
        least = None if min is None else format(min, ".17g")
        lines, _ = await self._collect(Call("POST", path, self._params(metric=metric, k=k, min=least, to=target)), watch)
        return only(Linked, lines)

    async def links(
        self, prefix: bytes = b"cnt:", *, metric: Metric = "cosine", words: bool = False, limit: Optional[int] = None, page_size: int = PAGE
    ) -> AsyncIterator[Links]:
        """The links that find_links has kept of the contexts under a prefix, in byte order; words: those of contexts that were counted, too."""
        params = self._params(metric=metric, text=True if words else None)
        async for line in self._scan(f"/reduce/links/{url_bytes(prefix)}", params, None, limit, page_size):
            yield _links(line)

    async def make_matrix(
        self,
        prefix: bytes = b"cnt:",
        *,
        metric: Literal["pmi", "count", "p"] = "pmi",
        progress: Optional[Callable[[Progress], None]] = None,
    ) -> List[MatrixMade]:
        """Makes the co-occurrence matrices of tokens of each order from 2 on: how often one comes order - 1 places after another; a result an order."""

        def watch(line: Dict[str, Any]) -> bool:
            if "progress" in line and progress is not None:
                progress(filled(Progress, line["progress"]))
            return "progress" in line

        lines, _ = await self._collect(Call("POST", f"/reduce/matrix/{url_bytes(prefix)}", self._params(metric=metric)), watch)
        return [filled(MatrixMade, line) for line in lines]

    async def matrix(
        self, order: int = 2, *, transpose: bool = False, words: bool = False, limit: Optional[int] = None, page_size: int = PAGE
    ) -> AsyncIterator[MatrixRow]:
        """The rows of the matrix of an order in the order of their tokens, or its columns; words: with the word of each token."""
        path = f"/reduce/matrix/{url_bytes(b'mat:%d:' % order)}"
        params = self._params(transpose=transpose or None, text=True if words else None)
        async for line in self._scan(path, params, None, limit, page_size):
            row = [(entry[0], entry[1]) for entry in line["row"]] if "row" in line else None
            spoken = [entry[2] for entry in line["row"]] if words and "row" in line else None
            yield MatrixRow(int.from_bytes(_name(line)[-4:], "big"), order, line.get("metric", ""), row, line.get("word"), spoken)

    async def associations(self, of: Union[int, bytes], *, k: Optional[int] = None, words: bool = False) -> List[Association]:
        """What belongs together with a token (its rows and columns of the matrices) or with the pair of a context (its links, and what follows
        it): at most k (20) of each relation, the best first."""
        what = str(of) if isinstance(of, int) else "x" + checked_pair(of).hex()
        call = Call("GET", f"/reduce/associations/{what}", self._params(k=k, text=True if words else None))
        lines, _ = await self._collect(call)
        return [
            Association(x["relation"], x["metric"], x["weight"], x.get("order"), x.get("token"), x.get("word"), _name(x) if x["relation"] == "link" else None)
            for x in lines
        ]

    # ---- smoothing

    async def smooth(
        self,
        *,
        orders: Union[str, int, None] = None,
        topk: Optional[int] = None,
        progress: Optional[Callable[[Progress], None]] = None,
        prefix: bytes = b"cnt:",
    ) -> List[Smoothed]:
        """Recomputes cont:, prob: and topk: from cnt: inside the server; a result an order. orders: 2 or "1-3", all by
        default. progress is called as it goes on. A run that is cut off is started again, which does no harm."""

        def watch(line: Dict[str, Any]) -> bool:
            if "progress" in line and progress is not None:
                progress(filled(Progress, line["progress"]))
            return "progress" in line

        path = f"/reduce/smooth/{url_bytes(prefix)}"
        lines, _ = await self._collect(Call("POST", path, self._params(orders=orders, topk=topk)), watch)
        return [filled(Smoothed, line) for line in lines]
