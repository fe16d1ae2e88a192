#!/usr/bin/python3
"""make: the sample of the README: the n-gram statistics of tests/data/golden/small (100 lines of a public-domain text,
order 3, smoothed) as one body for POST /batch.

    tests/data/sample/make.py            writes batch.ndjson beside this file
    tests/data/sample/make.py --check    exit code 1 where the file is not what would be written

The ctxv: pairs are left out: they are second names of the values under ctx:, and a pair_put gives each pair its own.
"""
import base64
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, os.pardir, "golden", "small", "pairs.ndjson")
TARGET = os.path.join(HERE, "batch.ndjson")


def lines():
    with open(SOURCE, encoding="utf-8") as source:
        for line in source:
            pair = json.loads(line)
            if not base64.b64decode(pair["pair"]).startswith(b"ctxv:"):
                operation = {"op": "pair_put", "pair": pair["pair"], "value": pair["value"]}
                yield json.dumps(operation, separators=(",", ":")) + "\n"


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    text = "".join(lines())
    if not arguments:
        with open(TARGET, "w", encoding="utf-8") as target:
            target.write(text)
        return 0
    with open(TARGET, encoding="utf-8") as target:
        if target.read() == text:
            return 0
    print("make.py: %s is out of date; run tests/data/sample/make.py" % TARGET, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
