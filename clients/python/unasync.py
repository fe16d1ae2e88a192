#!/usr/bin/env python3
"""unasync: writes src/cheetah_http/_sync from src/cheetah_http/_async by replacing words, so that both are one source.

    ./unasync.py            writes
    ./unasync.py --check    exit code 1 if something would change
"""
from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent / "src" / "cheetah_http"
WORDS = [
    (r"\bimport asyncio\b", "import time"),
    (r"\.net\.asyncio\b", ".net.waiting"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\ba(close|read|iter_bytes)\b", r"\1"),
    (r"\bAsync([A-Z])", r"\1"),
    (r" for asyncio; several tasks may share one", "; several threads may share one"),
    (r"\bfor asyncio\b", "that waits"),
]


def translated(source: str, name: str) -> str:
    for word, other in WORDS:
        source = re.sub(word, other, source, flags=re.M)
    return f"# Made by unasync.py from _async/{name}; change that.\n{source}"


def main() -> int:
    check, stale = "--check" in sys.argv[1:], []
    for source in sorted((ROOT / "_async").glob("*.py")):
        target = ROOT / "_sync" / source.name
        text = translated(source.read_text(encoding="utf-8"), source.name)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            stale.append(target.name)
            if not check:
                target.write_text(text, encoding="utf-8")
    for target in (ROOT / "_sync").glob("*.py"):
        if not (ROOT / "_async" / target.name).exists():
            stale.append(target.name)
    if stale:
        print(("not up to date: " if check else "written: ") + " ".join(stale))
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
