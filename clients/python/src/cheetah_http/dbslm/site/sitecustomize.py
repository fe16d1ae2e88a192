"""Started by Python itself where this folder is on PYTHONPATH: with CHEETAH_DBSLM=URL db_slm counts and smooths in cheetah-db, as
soon as it is imported; in spawned children too. Without the variable nothing happens. A sitecustomize that comes after this
folder on the path is run as well."""
import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _others() -> None:
    """The sitecustomize that Python would have found without this one."""
    places = [place for place in sys.path if os.path.abspath(place or os.curdir) != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", places)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def _hook() -> None:
    if importlib.util.find_spec("cheetah_http") is None:
        print("CHEETAH_DBSLM is set and cheetah_http is not installed: DB-SLM goes on without the engine", file=sys.stderr)
        return
    from cheetah_http.dbslm.hook import hook

    hook()


if os.environ.get("CHEETAH_DBSLM"):
    _hook()
_others()
