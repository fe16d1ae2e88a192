# Made by unasync.py from _async/client.py; change that.
"""The client: all its parts in one."""
from __future__ import annotations

from .batch import Batches
from .changes import Changes
from .columns import Columns
from .model import Model
from .pairs import Pairs
from .reduce import Reducers
from .service import Service
from .values import Values


class Client(Values, Pairs, Changes, Batches, Reducers, Columns, Model, Service):
    """A client of cheetah-db over HTTP; several threads may share one."""
