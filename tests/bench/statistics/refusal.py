#!/usr/bin/env python3
"""refusal.py: processor time of POST /ngrams beside another program: requests that are refused (413 request_too_large), and such that are counted.

    PYTHONPATH=tests/support tests/bench/statistics/refusal.py --before PROGRAM [--tokens 5000000] [--counted 1000000] [--order 5] [--limit 1G] [--rounds 5] [--live] [--line 30]

Tokens of a Zipf distribution over 50 000, `--line` of them a document. Each round asks both programs once, one after the other, in databases of their own; medians of the
processor seconds of the server (cheetah_cpu_seconds_total), and the ratio. "refused" is all of the text with --limit; "counted" the beginning of it, durability os.
"""
import argparse
import random
import statistics

import harness

NDJSON = {"Content-Type": "application/x-ndjson"}


def text(tokens, line):
    weights, total = [], 0.0
    for rank in range(50000):
        total += 1 / (rank + 1)
        weights.append(total)
    words = random.Random(1).choices(range(4, 50004), cum_weights=weights, k=tokens)
    return b"".join(b'{"tokens":[%s]}\n' % b",".join(b"%d" % w for w in words[i:i + line]) for i in range(0, tokens, line))


class Asked:
    def __init__(self, program, arguments):
        self.server = harness.Server("--access-log", "false", "--line-listen", "none", "--durability", "os", "--request-memory-bytes", arguments.limit, "--memory-bytes", "16G",
                                     "--max-ngrams-bytes", "1G", "--max-document-tokens", "100000000", binary=program)
        self.client, self.number, self.arguments = self.server.client(check=False, timeout=3600), 0, arguments
        self.spent = {"refused": [], "counted": []}

    def call(self, kind, data):
        self.number += 1
        name = "bench%d" % self.number
        made = {"live": {"order": self.arguments.order, "bos": 2}, "keep": []} if self.arguments.live else {}
        assert self.client.put("/databases/" + name, json_body=made).status == 201
        before = self.server.metric("cheetah_cpu_seconds_total")
        answer = self.client.request("POST", "/ngrams?order=%d&db=%s" % (self.arguments.order, name), data, headers=NDJSON)
        self.spent[kind].append(self.server.metric("cheetah_cpu_seconds_total") - before)
        wanted = (413, "request_too_large") if kind == "refused" else (200, None)
        assert (answer.status, answer.json().get("code")) == wanted, answer
        self.client.request("DELETE", "/databases/%s?confirm=%s" % (name, name))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True)
    parser.add_argument("--tokens", type=int, default=5000000)
    parser.add_argument("--counted", type=int, default=1000000)
    parser.add_argument("--order", type=int, default=5)
    parser.add_argument("--limit", default="1G")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--line", type=int, default=30)
    parser.add_argument("--live", action="store_true", help="the live model, nothing else kept")
    arguments = parser.parse_args()
    all_of_it, begin = text(arguments.tokens, arguments.line), text(arguments.counted, arguments.line)
    programs = [Asked(program, arguments) for program in (arguments.before, None)]
    try:
        for _ in range(arguments.rounds):
            for kind, data in (("refused", all_of_it), ("counted", begin)):
                for program in programs:
                    program.call(kind, data)
    finally:
        for program in programs:
            program.server.finish()
    print("order %d, %d tokens a document, %s" % (arguments.order, arguments.line, "live" if arguments.live else "all kept"))
    for kind in ("refused", "counted"):
        before, now = (statistics.median(p.spent[kind]) for p in programs)
        ratio = statistics.median(b / a for a, b in zip(*(p.spent[kind] for p in programs)))
        print("%-8s before %.3f s, now %.3f s, ratio %.2f   %s" % (kind, before, now, ratio, " ".join("%.3f/%.3f" % pair for pair in zip(*(p.spent[kind] for p in programs)))))


main()
