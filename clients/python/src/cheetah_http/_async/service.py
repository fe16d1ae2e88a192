"""Databases, health, metrics, version."""
from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence
from urllib.parse import quote

from ..errors import ConnectionLost, Unavailable
from ..types import Access
from ..wire import Call, dump
from .transport import AsyncTransport


def _path(name: str) -> str:
    return "/databases/" + quote(name, safe="")


class AsyncService(AsyncTransport):
    async def databases(self) -> List[str]:
        return list((await self._json(Call("GET", "/databases")))["databases"])

    async def create_database(
        self,
        name: str,
        *,
        shards: Optional[int] = None,
        live: Optional[Dict[str, int]] = None,
        keep: Optional[Sequence[str]] = None,
    ) -> bool:
        """True: it is new. Without it a database is made by its first write. live: {"order": 5, "bos": 2, "eos": 3}, a live model is
        kept; keep: which of cnt, ctx and ctxv are kept beside it, all unless given."""
        members = {"shards": shards, "live": live, "keep": None if keep is None else list(keep)}
        said = {member: value for member, value in members.items() if value is not None}
        body = dump(said) if said else None
        answer = await self._send(Call("PUT", _path(name), {}, body, None if body is None else "application/json"))
        return answer.status_code == 201

    async def database_statistics(self, name: Optional[str] = None, *, all_lengths: bool = False) -> Dict[str, Any]:
        """Keys, values, pairs, bytes by ranges of lengths (all_lengths: by each), shards, log position; of this client's database unless
        named."""
        params = {"lengths": "all"} if all_lengths else {}
        answer: Dict[str, Any] = await self._json(Call("GET", _path(name or self.database), params))
        return answer

    async def drop_database(self, name: str) -> None:
        """Deletes a database and its files."""
        await self._send(Call("DELETE", _path(name), {"confirm": name}, gone_is_done=True))

    async def restore_database(self, name: str, backup: bytes) -> Dict[str, Any]:
        """Makes a database of a backup's bytes (what `GET /databases/NAME/backup` answers, all of it); its statistics. Conflict if
        there is one. For what does not fit in memory: `cheetah-db restore`."""
        call = Call("PUT", _path(name) + "/restore", {}, backup, "application/octet-stream", repeatable=False)
        answer: Dict[str, Any] = await self._json(call)
        return answer

    async def merge_database(self, name: str, other: str) -> Dict[str, int]:
        """Adds what another database has counted, its live model too, to this one's, in one commit; the other stays as it is."""
        call = Call("POST", _path(name) + "/merge", {"from": other}, repeatable=False)
        answer: Dict[str, int] = await self._json(call)
        return answer

    async def checkpoint(self, name: Optional[str] = None) -> Dict[str, Any]:
        """Writes everything to its place and empties the log."""
        answer: Dict[str, Any] = await self._json(Call("POST", _path(name or self.database) + "/checkpoint"))
        return answer

    async def health(self) -> Dict[str, Any]:
        """What /healthz says; raises where the process does not answer."""
        answer: Dict[str, Any] = await self._json(Call("GET", "/healthz"))
        return answer

    async def ready(self) -> bool:
        """Whether requests are welcome, now: does not wait and does not retry."""
        probe = self.on(self.database)
        probe._retry = self._retry._replace(attempts=0)
        try:
            await probe._json(Call("GET", "/readyz"))
        except (ConnectionLost, Unavailable):
            return False
        return True

    async def access(self) -> Access:
        """What this client's token may do."""
        answer = await self._json(Call("GET", "/access"))
        return Access(answer["right"], answer["databases"])

    async def version(self) -> str:
        return str((await self._json(Call("GET", "/version")))["version"])

    async def openapi(self) -> str:
        return (await self._send(Call("GET", "/openapi.yaml"))).text

    async def metrics_text(self) -> str:
        """Prometheus text."""
        return (await self._send(Call("GET", "/metrics"))).text

    async def metrics(self) -> Dict[str, float]:
        """The samples: {"name{labels}": value}."""
        lines = (line.rpartition(" ") for line in (await self.metrics_text()).splitlines() if line[:1] not in ("", "#"))
        return {name: float(value) for name, _, value in lines}
