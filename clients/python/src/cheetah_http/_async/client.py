"""The client: all its parts in one."""
from __future__ import annotations

from .batch import AsyncBatches
from .changes import AsyncChanges
from .columns import AsyncColumns
from .model import AsyncModel
from .pairs import AsyncPairs
from .reduce import AsyncReducers
from .service import AsyncService
from .values import AsyncValues


class AsyncClient(AsyncValues, AsyncPairs, AsyncChanges, AsyncBatches, AsyncReducers, AsyncColumns, AsyncModel, AsyncService):
    """A client of cheetah-db over HTTP for asyncio; several tasks may share one."""
