"""PAIR_SUMMARY, DEL, PAIR_PURGE: what lies under a prefix, and what takes it away."""
import random

from harness.line import fields


def summary(line, text):
    answer = line.ask("PAIR_SUMMARY " + text)
    assert answer.startswith(b"SUCCESS,command=PAIR_SUMMARY,"), answer
    return fields(answer)


def test_the_example(line):
    """Three names under a, two under c, one b, the prefix itself; two values."""
    line.many(["INSERT vv", "INSERT wwwww", "PAIR_SET s: 1", "PAIR_SET s:a 1", "PAIR_SET s:ab 2", "PAIR_SET s:abc 2", "PAIR_SET s:b 1",
               "PAIR_SET s:c:1 2", "PAIR_SET s:c:2 2"])  # fmt: skip
    head = b"SUCCESS,command=PAIR_SUMMARY,count=7,total_payload_bytes=26,min_payload_bytes=2,max_payload_bytes=5,min_key=1,max_key=2,max_depth=3,self_terminal=1,"
    assert line.ask("PAIR_SUMMARY s:") == head + b"branch_count=3,branches=61:3;63:2;62:1"
    assert line.ask("PAIR_SUMMARY s: 2") == head + b"branch_count=4,branches=6162:2;633a:2;61:1;62:1"
    assert line.ask("PAIR_SUMMARY s: depth=2 branch_limit=1") == head + b"branch_count=1,branches=6162:2"
    assert line.ask("PAIR_SUMMARY s: 0 5") == head + b"branch_count=0"
    assert line.ask("pair_summary s: -1 -1") == head + b"branch_count=6,branches=61:1;6162:1;616263:1;62:1;633a31:1;633a32:1"
    assert line.ask("PAIR_SUMMARY nothing:") == (
        b"SUCCESS,command=PAIR_SUMMARY,count=0,total_payload_bytes=0,min_payload_bytes=0,max_payload_bytes=0,max_depth=0,self_terminal=0,branch_count=0")  # fmt: skip
    line.ask("PAIR_SET s:d 99")  # leads to nothing: counted, and not for the least
    found = summary(line, "s:")
    assert (found["count"], found["total_payload_bytes"], found["min_payload_bytes"], found["max_key"]) == ("8", "26", "2", "99")
    for text, want in (("", b"pair_summary_requires_prefix"), ("s: x", b"invalid_depth"), ("s: 1 x", b"invalid_branch_limit"), ("s: depth=", b"invalid_depth"),
                       ("s: 1 2 3", b"too_many_arguments"), ("s: other=1", b"too_many_arguments"), ("x1", b"invalid_hex")):  # fmt: skip
        assert line.ask("PAIR_SUMMARY " + text) == b"ERROR," + want, text


def test_many_branches(line):
    """The largest branches are found among many, and cut at 1024."""
    rng, names = random.Random(1), set()
    while len(names) < 6000:
        names.add("%04x%d" % (int(rng.random() ** 3 * 3000), rng.randrange(1000)))
    line.ask("INSERT v")
    line.many(["PAIR_SET m:%s 1" % name for name in names])
    counts = {}
    for name in names:
        counts[name[:4]] = counts.get(name[:4], 0) + 1
    assert len(counts) > 2048
    best = ["%s:%d" % (prefix.encode().hex(), n) for prefix, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    for limit, want in ((10, best[:10]), (700, best[:700]), (5000, best[:1024]), (0, best)):
        found = summary(line, "m: depth=4 branch_limit=%d" % limit)
        assert found["branches"].split(";") == want and found["branch_count"] == str(len(want))


def test_del(line):
    line.many(["INSERT one", "INSERT two", "PAIR_SET d:1 1", "PAIR_SET d:2 2", "PAIR_SET e:1 1"])
    assert line.ask("DEL pairs key=d:1") == b"SUCCESS,deleted=1" and line.ask("READ 1") == b"SUCCESS,size=3,value=one"
    assert line.ask("DEL pairs key=x643a31") == b"ERROR,not_found"
    assert line.ask("del VALUES id=1") == b"SUCCESS,deleted=1,key=1" and line.ask("DEL keys key=1") == b"ERROR,key_not_found"
    assert line.ask("DEL pairs prefix=d: payloads=0 limit=3") == b"SUCCESS,deleted=1" and line.ask("READ 2") == b"SUCCESS,size=3,value=two"
    assert line.ask("DEL pairs prefix=d:") == b"SUCCESS,deleted=0"
    line.many(["PAIR_SET d:%d 2" % i for i in range(9)])
    assert line.ask("DEL pairs prefix=d: limit=3") == b"SUCCESS,deleted=9" and line.ask("READ 2") == b"ERROR,key_not_found"
    assert line.ask("DEL pairs prefix=*") == b"SUCCESS,deleted=1" and line.ask("PAIR_SCAN *") == b"SUCCESS,count=0"
    for text, want in (("", b"del_requires_target"), ("foo", b"unknown_del_target"), ("values", b"del_values_requires_key"),
                       ("values key=x", b"invalid_key_format"), ("values key=0", b"invalid_key_format"), ("values key=7", b"key_not_found"),
                       ("values key=281474976710656", b"invalid_key_format"), ("values key=18446744073709551617", b"invalid_key_format"),
                       ("pairs", b"del_pairs_requires_prefix_or_key"), ("pairs key=", b"pair_value_cannot_be_empty"),
                       ("pairs key=x", b"pair_value_cannot_be_empty"), ("pairs key=x1", b"invalid_hex"), ("pairs prefix=a limit=z", b"invalid_limit"),
                       ("pairs key=" + "k" * 4097, b"invalid_pair")):  # fmt: skip
        assert line.ask("DEL " + text) == b"ERROR," + want, text
