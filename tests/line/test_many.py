"""BATCH and JOB: many commands in a line, and answers that are fetched later."""
import base64
import json
import random
import urllib.request

import pytest
from harness.line import fields


def b64(value):
    return base64.b64encode(json.dumps(value).encode()).decode()


def unpacked(answer):
    found = fields(answer)
    lines = json.loads(base64.b64decode(found["payload"]))
    return [x if x is None or "results_encoding" not in found else base64.b64decode(x) for x in lines]


def test_batches(line):
    answer = line.ask("BATCH INSERT:3 items=" + b64(["one", "four", "two"]))
    assert answer.startswith(b"SUCCESS,command=BATCH,target=INSERT:3,requested=3,applied=1,failed=1,first_error=item_1:value_size_mismatch_(expected_3;_got_4),payload=")
    assert unpacked(answer) == ["SUCCESS,key=1", "ERROR,value_size_mismatch (expected 3, got 4)", None]
    answer = line.ask("BATCH insert items=%s continue_on_error=1" % b64(["a,b c", " d", "e\r"]))
    assert unpacked(answer) == ["SUCCESS,key=2", "SUCCESS,key=3", "SUCCESS,key=4"]
    assert line.many(["READ 2", "READ 3", "READ 4"]) == [b"SUCCESS,size=5,value=a,b c", b"SUCCESS,size=2,value= d", b"SUCCESS,size=2,value=e\r"]
    assert line.ask("BATCH READ results=0 continue_on_error=1 items=" + b64([["1"], ["99"], [2]])) == (
        b"SUCCESS,command=BATCH,target=READ,requested=3,applied=2,failed=1,first_error=item_1:key_not_found")  # fmt: skip
    answer = line.ask('BATCH NOPE items=["x"]')
    assert answer.startswith(b"SUCCESS,command=BATCH,target=NOPE,requested=1,applied=0,failed=1,first_error=item_0:unknown_command,") and unpacked(answer) == ["ERROR,unknown_command"]
    assert unpacked(line.ask("BATCH command=PAIR_SET items=" + b64([["n:1", 1], ["n:2", 2.0], ["n:3", None, 3]]))) == ["SUCCESS,pair_set"] * 3
    assert line.ask("PAIR_SCAN n:") == b"SUCCESS,count=3,items=6e3a31:1;6e3a32:2;6e3a33:3"
    # words of the line under those of an object; "" takes one away
    answer = line.ask("BATCH PREDICT_SET table=t prob=0.25 key=k items=" + b64([{"value": "a"}, {"value": "b", "prob": 0.75}, {"value": "c", "key": ""}]))
    assert [x[:20] for x in unpacked(answer)] == ["SUCCESS,table=t,pred", "SUCCESS,table=t,pred", "ERROR,predict_set_re"]
    assert line.ask("PREDICT_QUERY table=t key=k").startswith(b"SUCCESS,count=2,backend=cpu,table=t,items=62:0.62245")
    assert unpacked(line.ask("BATCH DEL items=" + b64(["pairs prefix=n: payloads=0"]))) == ["SUCCESS,deleted=3"]
    assert unpacked(line.ask("BATCH INSERT items=" + b64(["GET / HTTP/1.1"]))) == ["SUCCESS,key=%d" % (int(line.ask("INSERT z").split(b"=")[1]) - 1)]


def test_bytes(line):
    raw = bytes(range(256)).replace(b"\n", b"")
    line.ask(b"INSERT " + raw)
    line.ask("INSERT plain")
    answer = line.ask("BATCH READ items=" + b64([["1"], ["2"]]))
    assert fields(answer)["results_encoding"] == "base64" and unpacked(answer) == [b"SUCCESS,size=255,value=" + raw, b"SUCCESS,size=5,value=plain"]


def test_what_is_refused(line):
    for text, want in (
        ("", b"batch_requires_command"), ("items=" + b64(["x"]), b"batch_requires_command"), ("READ", b"batch_requires_items"),
        ("READ items=" + b64([]), b"batch_requires_nonempty_items"), ("READ items=%%", b"invalid_items: a JSON list is expected"),
        ("READ items=" + b64({"a": 1}), b"invalid_items: a JSON list is expected"),
        ("READ items=" + b64(["1"] * 10001), b"batch_too_many_items (max 10000, got 10001)"),
        ("JOB items=" + b64(["x"]), b"batch_cannot_target:JOB"), ("batch items=" + b64(["x"]), b"batch_cannot_target:BATCH"),
        ("RE-AD items=" + b64(["1"]), b"batch_invalid_command_name"), ("READ items=" + b64([""]), b"invalid_item 0: empty_item"),
        ("INSERT items=" + b64(["good", 7]), b"invalid_item 1: item_must_be_string_array_or_object"),
        ("INSERT items=" + b64(["good", "a\nEXIT"]), b"invalid_item 1: a_newline_ends_a_line"),
        ("READ items=" + b64([["1 2"]]), b"invalid_item 0: argument 0: value_must_not_contain_whitespace"),
        ("READ items=" + b64([{"a b": "1"}]), b"invalid_item 0: bad_name"), ("READ items=" + b64([{"a": "1 2"}]), b"invalid_item 0: value_must_not_contain_whitespace"), ("READ items=" + b64([["1", [1]]]), b"invalid_item 0: argument 1: value_must_be_a_scalar"),
    ):  # fmt: skip
        assert line.ask("BATCH " + text) == b"ERROR," + want, text
    for name in ("DATABASE", "RESET_DB", "EXIT", "QUIT", "AUTH"):
        assert line.ask("BATCH %s items=%s" % (name, b64(["x"]))) == b"ERROR,batch_cannot_target:" + name.encode()
    assert line.ask("INSERT first") == b"SUCCESS,key=1"  # nothing of what was refused was run


@pytest.mark.parametrize("hidden", [False, True])
def test_against_single_commands(line, hidden):
    """The same answers, and the same left behind, as of the commands one by one; up to the first failure unless told."""
    rng = random.Random(6)
    line.ask("INSERT seed")
    if hidden:
        line.ask("PAIR_SET_HIDDEN other 1")
    for round_ in range(150):
        target = rng.choice(["READ", "PAIR_SET", "PAIR_DEL", "PAIR_GET", "EDIT", "DELETE", "INSERT", "PAIR_SCAN"])
        keys, names = [str(rng.randint(1, 30)) for _ in range(5)], ["p%d" % rng.randint(0, 9) for _ in range(5)]
        items = {"READ": keys, "DELETE": keys, "INSERT": ["v%d-%d" % (round_, i) for i in range(5)], "EDIT": [k + " new" for k in keys],
                 "PAIR_SET": [n + " " + k for n, k in zip(names, keys)], "PAIR_SCAN": names}.get(target, names)  # fmt: skip
        go_on = rng.random() < 0.5
        answer = line.ask("BATCH %s continue_on_error=%d items=%s" % (target, go_on, b64(items)))
        have = unpacked(answer)
        tried = [x for x in have if x is not None]
        bad = [i for i, x in enumerate(tried) if x.startswith("ERROR,")]
        assert len(have) == 5 and (len(tried) == 5 or (not go_on and bad == [len(tried) - 1])), answer
        assert go_on or len(bad) <= 1
        found = fields(answer)
        assert (int(found["applied"]), int(found["failed"])) == (len(tried) - len(bad), len(bad))
        for item, said in zip(items[: len(tried)], tried):
            if target == "PAIR_SET":
                assert said == "SUCCESS,pair_set"
            if target == "READ":
                assert line.ask("READ " + item).decode() == said
            if target == "PAIR_GET":
                assert line.ask("PAIR_GET " + item).decode() == said
        if target == "PAIR_SET" and not bad:
            last = dict(item.split() for item in items)
            assert all(line.ask("PAIR_GET " + n) == b"SUCCESS,key=" + k.encode() for n, k in last.items())
        if target == "DELETE" and not go_on and bad:  # what comes after the failure is still there, or was not before
            assert all(line.ask("READ " + k).startswith(b"ERROR") for k in items[: len(tried)])


def test_a_batch_is_one_commit(launch):
    """Ten thousand writes in some seconds whatever a sync costs; what was answered is there after a kill."""
    server = launch("--durability", "sync", "--shards", "2")
    with server.line() as line:
        answer = line.ask("BATCH INSERT items=" + b64(["value-%d" % i for i in range(10000)]))
        assert b"requested=10000,applied=10000,failed=0" in answer
        answer = line.ask("BATCH PAIR_SET items=" + b64(["p%d %d" % (i, i + 1) for i in range(3000)] + ["bad"] + ["q 1"] * 10))
        assert b"requested=3011,applied=3000,failed=1,first_error=item_3000:invalid_key_format" in answer
    with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % server.port) as response:
        groups = [row for row in response.read().decode().splitlines() if row.startswith("cheetah_commit_groups_total{")]
    assert len(groups) == 1 and int(groups[0].split()[1]) < 40, groups
    server.kill()
    server.restart()
    with server.line() as line:
        assert line.ask("READ 10000") == b"SUCCESS,size=10,value=value-9999" and line.ask("PAIR_GET p2999") == b"SUCCESS,key=3000"
        assert line.ask("PAIR_GET q") == b"ERROR,not_found"


def test_answers_have_a_bound(launch):
    server = launch("--line-answer-bytes", "65536")
    with server.line() as line:
        line.ask("INSERT " + "x" * 30000)
        answer = line.ask("BATCH READ continue_on_error=1 items=" + b64(["1"] * 5))
        assert b"applied=2,failed=3,first_error=item_2:answer_too_large" in answer


def test_rights(launch, tmp_path):
    """Those of the target; a batch does not get round them."""
    path = tmp_path / "tokens"
    path.write_text("read-secret-of-sixteen-bytes read *\nwrite-secret-of-sixteen-bytes write *\n")
    server = launch("--tokens", str(path), ready=False)
    with server.line() as reader, server.line() as writer:
        assert reader.ask("BATCH READ items=" + b64(["1"])) == reader.ask("JOB status x") == b"ERROR,unauthorized"
        reader.ask("AUTH read-secret-of-sixteen-bytes")
        writer.ask("AUTH write-secret-of-sixteen-bytes")
        assert unpacked(writer.ask("BATCH INSERT items=" + b64(["v"]))) == ["SUCCESS,key=1"]
        assert unpacked(reader.ask("BATCH READ items=" + b64(["1"]))) == ["SUCCESS,size=1,value=v"]
        assert unpacked(reader.ask("BATCH INSERT items=" + b64(["v"]))) == ["ERROR,forbidden"]
        assert unpacked(writer.ask("BATCH DB_CREATE items=" + b64(["x"]))) == ["ERROR,forbidden"]
        assert unpacked(reader.ask("BATCH JOB_X items=" + b64(["x"]))) == ["ERROR,unknown_command"]
        job = fields(reader.ask("JOB submit BATCH DELETE items=" + b64(["1"])))["job"]
        assert fields(reader.ask("JOB status " + job))["failed"] == "1"
        assert reader.ask("READ 1") == b"SUCCESS,size=1,value=v"


def test_jobs(line):
    line.many(["INSERT v%d" % i for i in range(5)] + ["PAIR_SET j:%d %d" % (i, i + 1) for i in range(5)])
    assert line.ask("JOB") == b"ERROR,job_requires_action"
    answer = fields(line.ask("JOB submit command=" + base64.b64encode(b"PAIR_REDUCE payloads j: 256\n").decode()))
    assert answer["kind"] == "reduce" and answer["command"] == "PAIR_REDUCE" and answer["reducer"] == "payloads" and answer["total"] == "5"
    job = answer["job"]
    assert line.ask("JOB status id=" + job) == b"SUCCESS,job=%s,kind=reduce,state=completed,progress=100.00,completed=5,total=5,reducer=payloads" % job.encode()
    assert line.ask("JOB status " + job) == line.ask("job STATUS job=" + job)
    assert line.ask("JOB results id=" + job) == b"SUCCESS,job=%s,kind=reduce,state=completed,from=0,count=0,next=0,available=0,total=5" % job.encode()
    plain = line.ask("PAIR_REDUCE payloads j: 256")
    assert line.ask("JOB fetch id=" + job) == plain.replace(b"SUCCESS,", b"SUCCESS,job=%s," % job.encode())
    assert line.ask("JOB fetch id=" + job) == line.ask("JOB status " + job) == b"ERROR,job_not_found"
    # the older names
    answer = fields(line.ask("PAIR_REDUCE_ASYNC payloads j: 2"))
    assert answer["reducer"] == "payloads" and line.ask("PAIR_REDUCE_STATUS " + answer["job"]) == b"SUCCESS,job=%s,state=completed,progress=100.00" % answer["job"].encode()
    assert line.ask("PREDICT_INHERIT_STATUS " + answer["job"]) == b"ERROR,predict_inherit_job_not_found"
    assert line.ask("PAIR_REDUCE_FETCH " + answer["job"]) == line.ask("PAIR_REDUCE payloads j: 2")
    assert line.ask("PAIR_REDUCE_FETCH " + answer["job"]) == b"ERROR,reduce_job_not_found"
    # a batch, read page by page
    answer = fields(line.ask("BATCH READ async=1 results=0 continue_on_error=1 items=" + b64([str(i) for i in range(1, 8)])))
    assert (answer["kind"], answer["command"], answer["total"]) == ("batch", "BATCH", "7")
    job = answer["job"]
    status = fields(line.ask("JOB status " + job))
    assert (status["applied"], status["failed"], status["available"], status["target"]) == ("5", "2", "7", "READ")
    page = line.ask("JOB results id=%s from=2 limit=3" % job)
    assert (fields(page)["next"], fields(page)["available"]) == ("5", "7") and unpacked(page) == ["SUCCESS,size=2,value=v%d" % i for i in (2, 3, 4)]
    assert unpacked(line.ask("JOB results id=%s from=5" % job)) == ["ERROR,key_not_found"] * 2 and fields(line.ask("JOB results id=%s from=7" % job))["count"] == "0"
    assert line.ask("JOB fetch " + job) == b"SUCCESS,job=%s,command=BATCH,target=READ,requested=7,applied=5,failed=2,first_error=item_5:key_not_found" % job.encode()
    for text, want in (
        ("submit", b"job_submit_requires_command"), ("submit command=%%%", b"invalid_job_command: base64 is expected"), ("submit READ 1", b"command_not_submittable"),
        ("submit command=" + base64.b64encode(b"PAIR_REDUCE counts j:\nRESET_DB").decode(), b"invalid_job_command: one line is expected"),
        ("submit PAIR_REDUCE nonsense j:", b"unknown_reducer_mode"), ("submit BATCH READ", b"batch_requires_items"), ("status", b"missing_job_id"),
        ("results id=", b"missing_job_id"), ("cancel x", b"unknown_job_action"), ("fetch nobody", b"job_not_found"),
    ):  # fmt: skip
        assert line.ask("JOB " + text) == b"ERROR," + want, text
    job = fields(line.ask("JOB submit PAIR_REDUCE counts *"))["job"]
    assert line.ask("JOB results id=%s from=x" % job) == b"ERROR,invalid_from" and line.ask("JOB results id=%s limit=-1" % job) == b"ERROR,invalid_limit"
    line.ask("RESET_DB")
    assert line.ask("JOB status " + job) == b"ERROR,job_not_found"


def test_jobs_are_of_their_database(server):
    """The newest thousand are kept; another database's are not shown."""
    with server.line() as one, server.line() as two:
        one.ask("DATABASE jobs-one")
        two.ask("DATABASE jobs-two")
        jobs = [fields(answer)["job"] for answer in one.many(["JOB submit PAIR_REDUCE counts *"] * 1001)]
        assert len(set(jobs)) == 1001
        assert one.ask("JOB status " + jobs[0]) == b"ERROR,job_not_found" and one.ask("JOB status " + jobs[1]).startswith(b"SUCCESS,")
        assert two.ask("JOB status " + jobs[1]) == b"ERROR,job_not_found"
        one.many(["JOB fetch " + job for job in jobs])
