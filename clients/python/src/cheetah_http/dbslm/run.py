"""Runs a program of DB-SLM with level 1, or all of it, in cheetah-db, without changing a file of it.

    python3 -m cheetah_http.dbslm.run src/train.py data.json --db var/model.sqlite3 ...
    python3 -m cheetah_http.dbslm.run --url http://engine:8080 src/run.py --db var/model.sqlite3

    PYTHONPATH=$(python3 -m cheetah_http.dbslm.run --site) CHEETAH_DBSLM=http://engine:8080 python3 src/train.py ...

The first two set the variables of the third and start Python anew, so that children that the program spawns have them too.
--level2 (CHEETAH_DBSLM_LEVEL2=1) puts levels 2 and 3 in the engine, too; --no-sqlite (CHEETAH_DBSLM_SQLITE=0) everything.
CHEETAH_TOKEN is the token, where the server asks for one. The database is called after DBSLM_CHEETAH_DATABASE and the model, and
kept in the SQLite file; CHEETAH_DBSLM_DATABASE names it.
"""
from __future__ import annotations

import os
import sys
from site import getsitepackages, getusersitepackages
from typing import Dict, List, Mapping, Optional

DEFAULT_URL = "http://127.0.0.1:8080"


def site() -> str:
    """What goes in front of PYTHONPATH: the folder of the sitecustomize, and where the package is not installed its folder."""
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    installed = {os.path.realpath(place) for place in (*getsitepackages(), getusersitepackages())}
    places = [os.path.join(here, "site")] + ([] if os.path.realpath(root) in installed else [root])
    return os.pathsep.join(places)


def default_url(given: Mapping[str, str]) -> str:
    """The server that the environment names, or the usual one."""
    return given.get("CHEETAH_DBSLM") or given.get("CHEETAH_URL") or DEFAULT_URL


def environment(url: Optional[str], given: Mapping[str, str]) -> Dict[str, str]:
    """The environment in which db_slm uses the engine."""
    made = dict(given)
    made["CHEETAH_DBSLM"] = url or default_url(given)
    made["PYTHONPATH"] = os.pathsep.join([site()] + ([given["PYTHONPATH"]] if given.get("PYTHONPATH") else []))
    return made


def main(arguments: List[str]) -> int:
    url: Optional[str] = None
    if arguments[:1] == ["--site"]:
        print(site())
        return 0
    chosen = dict(os.environ)
    while arguments[:1] in (["--url"], ["--level2"], ["--no-sqlite"]):
        if arguments[0] == "--url" and len(arguments) > 1:
            url, arguments = arguments[1], arguments[1:]
        elif arguments[0] == "--level2":
            chosen["CHEETAH_DBSLM_LEVEL2"] = "1"
        elif arguments[0] == "--no-sqlite":
            chosen["CHEETAH_DBSLM_SQLITE"] = "0"
        arguments = arguments[1:]
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *arguments], environment(url, chosen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
