"""cheetah-db serve --store rados: what is different from files, and two servers on one pool. tests/rados/run.sh starts the cluster."""
import json
import os
import random
import subprocess
import threading
import time

import harness
import pytest
from harness import b64, layouts, ndjson, rados, unb64
from tooling import tool

NDJSON = {"Content-Type": "application/x-ndjson"}
pytestmark = pytest.mark.skipif(not rados.WANTED, reason="CHT_STORE=rados: see tests/rados/README.md")


@pytest.fixture(scope="module")
def pair():
    """Two servers on one pool."""
    one = harness.Server("--shards", "4", "--access-log", "false")
    two = harness.Server("--access-log", "false", data=one.data)
    yield one, two
    two.pool = None
    harness.finish_all([two, one])


def refused(*flags):
    process = subprocess.run([harness.BINARY, "serve", "--listen", "127.0.0.1:0", "--line-listen", "none", *flags], capture_output=True,
                             text=True, timeout=60, check=False)
    return process.returncode, process.stderr


def test_options():
    for flag in rados.OF_FILES + ("--data",):
        value = {"--durability": "sync", "--value-order": "always", "--read-ahead": "never", "--data": "x"}.get(flag, "8" if flag == "--scan-workers" else "4194304" if "bytes" in flag else "50")
        code, said = refused("--store", "rados", "--rados-pool", "x", flag, value)
        assert code == 2 and flag + " means nothing with --store rados" in said
    assert refused("--store", "rados")[0] == 2
    assert refused("--rados-pool", "x", "--data", "/nonexistent")[0] == 2
    code, said = refused("--store", "rados", "--rados-pool", "not-there", "--rados-conf", rados.CONF)
    assert code == 1 and "there is no pool not-there" in said


def test_described(pair):
    client = pair[0].client()
    described = client.get("/databases/default").json()
    assert described["lengths"] is None and len(described["shards"]) == 4
    assert pair[0].metric("cheetah_ready") == 1


def test_both_see_what_one_writes(pair):
    one, two = (server.client() for server in pair)
    for i in range(20):
        one.upsert(b"seen-%d" % i, b"v%d" % i)
        line = two.get("/pairs/seen-%d" % i, exact="true", values="true").json()
        assert unb64(line["value"]) == b"v%d" % i


def test_what_is_asked_of_the_cluster(pair):
    """/metrics: operations and their time, compares that another server made fail; nothing of it waits for the cluster."""
    one, two = (server.client() for server in pair)
    before = pair[1].metrics()
    for i in range(10):
        one.upsert(b"counted-%d" % i, b"1")
        two.upsert(b"counted-%d" % i, b"2")
    after = pair[1].metrics()

    def grown(name):
        return after["cheetah_rados_" + name] - before["cheetah_rados_" + name]

    assert grown('operations_total{kind="write"}') >= 10 and grown('operations_total{kind="read"}') >= 1, (before, after)
    assert 0 < grown('operation_seconds_total{kind="write"}') < 100
    assert grown("refused_total") >= 1, "the first name was not there as far as this server knew"
    assert grown("timeouts_total") == grown("failures_total") == grown("reconnects_total") == 0
    assert after["cheetah_rados_silent_seconds"] < 5 and after["cheetah_rados_pool_full"] == after["cheetah_rados_locks_lost"] == 0


def test_long_values(pair):
    """In scans, by key, by name: read by others than the HTTP thread, in pieces."""
    one, two = (server.client() for server in pair)
    values = {b"long:a": os.urandom(300 << 10), b"long:b": b"short", b"long:c": os.urandom((2 << 20) + 7), b"long:d": os.urandom(70 << 10)}
    keys = {name: one.put_new(name, value) for name, value in values.items()}
    for client in (one, two):
        assert {pair: value for pair, _, value in client.scan(b"long:", values="true")} == values
        for name, value in values.items():
            assert client.read(keys[name]) == value
        asked = client.get("/kv", keys=",".join(str(key) for key in keys.values()), values="true").entries()
        assert [unb64(line["value"]) for line in asked] == list(values.values())


def test_one_name_by_two_servers(pair):
    """Both make the same names at once: one key each, and no value beside it."""
    made = []

    def write(server):
        client = server.client()
        for i in range(60):
            answer = client.put("/pairs/race-%d" % i, b"x")
            assert answer.status in (200, 201), answer
            made.append((i, answer.json()["key"], answer.status))

    before = pair[0].client().get("/databases/default").json()
    threads = [threading.Thread(target=write, args=(server,)) for server in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 120 and len({(i, key) for i, key, _ in made}) == 60
    assert sum(status == 201 for _, _, status in made) == 60
    after = pair[1].client().get("/databases/default").json()
    assert after["values"] - before["values"] == 60 and after["pairs"] - before["pairs"] == 60


def test_counting_by_two_servers(pair):
    """Documents counted by two servers at once are all in the model, as if one had counted them."""
    documents, count_of = ndjson({"tokens": tokens} for tokens in ([2, 4, 5, 6, 3], [2, 5, 6, 4, 3], [2, 4, 6, 5, 5, 3])), 3
    live, rounds, failed = {"live": {"order": 3, "bos": 2, "eos": 3}}, 8, []

    def count(server):
        client = server.client(db="counted")
        for i in range(rounds):
            answer = client.post("/ngrams", documents, headers=NDJSON)
            if answer.status != 200:
                failed.append(answer)

    clients = [server.client(db="counted") for server in pair]
    assert clients[0].put("/databases/counted", json_body=live).status in (200, 201)
    threads = [threading.Thread(target=count, args=(server,)) for server in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    counted = clients[1].get("/databases/counted").json()["live"]
    assert counted["documents"] == 2 * rounds * count_of, counted
    asked = {"tokens": [4, 5]}
    alone = pair[0].client(db="alone")
    assert alone.put("/databases/alone", json_body=live).status in (200, 201)
    for _ in range(2 * rounds):
        assert alone.post("/ngrams", documents, headers=NDJSON).status == 200
    answers = [client.post("/predict", json_body=asked) for client in clients + [alone]]
    assert {answer.status for answer in answers} == {200} and len({answer.body for answer in answers}) == 1, answers


def totals(client):
    answer = client.get("/reduce/totals/cnt:")
    assert answer.status == 200, answer
    return answer.headers["Cheetah-Cache"], {line["token"]: line["count"] for line in answer.entries()}


def test_kept_answers_of_aggregates(pair):
    """A write through one server is seen by the next answer of the other, whose kept one holds while nobody writes."""
    one, two = (server.client(db="kept") for server in pair)
    one.put_all({b"cnt:%d" % i: layouts.counts(1, [(i, 1)]) for i in range(50)})
    assert totals(two) == ("miss", {i: 1 for i in range(50)}) and totals(two)[0] == "hit"
    batch = [{"op": "pair_put", "pair": b64(b"cnt:%d" % i), "value": b64(layouts.counts(1, [(i, 5)]))} for i in range(10, 30)]
    writes = [(lambda by: by.upsert(b"cnt:7", layouts.counts(1, [(7, 3)])), {7: 3}),
              (lambda by: by.put("/kv/%d" % dict(by.scan(b"cnt:8"))[b"cnt:8"], layouts.counts(1, [(8, 4)]), headers={"Content-Type": "a/b"}), {8: 4}),
              (lambda by: by.batch(batch, atomic="true"), {i: 5 for i in range(10, 30)}),
              (lambda by: by.delete("/pairs/cnt:9"), {9: None})]
    now = {i: 1 for i in range(50)}
    for i, (write, changed) in enumerate(writes):
        write((one, two)[i % 2])
        now = {token: count for token, count in {**now, **changed}.items() if count is not None}
        for by in (two, one):
            assert totals(by) == ("miss", now), i
            assert totals(by) == ("hit", now), i
    assert pair[1].metric("cheetah_reduce_cache_hits_total") >= 5


def test_no_kept_answer_misses_what_another_server_wrote(pair):
    """Under load: whoever was answered by one server, and then asks the other for the sum, is told it."""
    clients = [server.client(db="sums") for server in pair]
    clients[0].put_all({b"cnt:%d" % i: layouts.counts(1, [(i, 1)]) for i in range(3)})
    errors, states = [], []

    def write(me):
        put, asked = (server.client(db="sums") for server in (pair if me % 2 == 0 else pair[::-1]))
        try:
            for n in range(2, 30):
                put.upsert(b"cnt:%d" % me, layouts.counts(1, [(me, n)]))
                for _ in range(2):
                    state, told = totals(asked)
                    states.append(state)
                    assert told[me] == n, "wrote %d, was told %d (%s)" % (n, told[me], state)
                time.sleep(0.02 * me)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    assert totals(clients[1])[1] == {i: 29 for i in range(3)} and totals(clients[1])[0] == "hit"
    assert "miss" in states


def test_backup_while_both_write(pair, tmp_path):
    """Of one moment: of what is written one after the other, by whichever server, nothing is there without what came before it."""
    clients, stop, errors, file = [server.client(db="moments") for server in pair], threading.Event(), [], tmp_path / "b.cheetah"
    clients[0].upsert(b"n:000000", b"0")

    def count():
        return pair[1].client(db="moments").get("/pairs/n:", count="true").json()["pairs"]

    def write():
        n = 0
        try:
            while not stop.is_set():
                n += 1
                clients[n % 2].upsert(b"n:%06d" % n, b"%d" % n)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        harness.wait_for(lambda: count() > 20, 60, "some values")
        before = count()
        answer = pair[1].client().get("/databases/moments/backup")
        assert answer.status == 200
        file.write_bytes(answer.body)
    finally:
        stop.set()
        thread.join()
    assert not errors, errors[0]
    tool("restore", file, "--data", tmp_path / "data")
    found = [json.loads(line)["name"] for line in tool("scan", "n:", "--data", tmp_path / "data", "-d", "moments").stdout.splitlines()]
    assert found == ["n:%06d" % i for i in range(len(found))] and before <= len(found), (before, found)
    assert len(found) <= count()


def test_restored_over_http(pair):
    """A backup of one server, restored by the other: the same names, keys, values and ends; what is not whole leaves nothing."""
    one, two = (server.client() for server in pair)
    here, body = pair[0].client(db="whole"), {"Content-Type": "application/octet-stream"}
    here.put_all({b"a:%d" % i: b"v%d" % i for i in range(300)})
    here.upsert(b"long", bytes(3 << 20))
    assert here.put("/pairs/ends", b"x", ttl="100000").status == 201
    assert here.post("/kv", b"alone").status == 201
    backup = one.get("/databases/whole/backup").body

    def lines(db):
        answered = pair[1].client(db=db)
        return (answered.get("/pairs/*", values="true").body, answered.get("/kv", limit="1000").body,
                answered.get("/pairs/ends", exact="true").json())

    answer = two.put("/databases/whole/restore", backup, headers=body)
    assert (answer.status, answer.code) == (409, "database_exists")
    answer = two.put("/databases/again/restore", backup[:-1], headers=body)
    assert (answer.status, answer.code) == (400, "invalid_backup")
    assert one.get("/databases/again").status == 404
    answer = two.put("/databases/again/restore", backup, headers=body)
    assert answer.status == 201 and answer.headers["Location"] == "/databases/again" and answer.json()["pairs"] == 302, answer
    assert lines("again") == lines("whole")
    assert two.put("/databases/again/restore", backup, headers=body).code == "database_exists"
    assert one.delete("/databases/again", confirm="again").status == 204


def test_dropped_by_the_other(pair):
    """410 once at most; then what is there under the name by now."""
    one, two = (server.client(db="gone") for server in pair)
    assert one.put_new(b"a", b"1") and two.get("/pairs/a", exact="true").status == 200
    assert one.delete("/databases/gone", confirm="gone").status == 204
    assert two.get("/pairs/a", exact="true").status in (404, 410)
    assert two.get("/pairs/a", exact="true").code == "database_not_found"
    assert one.put_new(b"b", b"2")
    assert two.get("/pairs/b", exact="true").status == 200


class Mirror:
    """The pairs under a prefix, by nothing but what changes."""

    def __init__(self, client, prefix):
        self.prefix, self.groups = prefix, 0
        self.after = client.get("/changes/" + prefix, after="now").end["next"]
        self.pairs = dict(client.scan(prefix.encode()))

    def catch_up(self, client):
        answer = client.get("/changes/" + self.prefix, after=self.after)
        assert answer.status == 200, answer
        for line in answer.entries():
            assert line["seq"] >= self.after
            self.after = line["seq"]
            self.groups += not line.get("more")
            if line["deleted"]:
                self.pairs.pop(unb64(line["pair"]), None)
            else:
                self.pairs[unb64(line["pair"])] = line["key"]
        self.after = answer.end["next"]


def test_changes_of_all_servers(pair):
    """Three servers write, one of them is killed; a mirror that asks any of the others has what there is."""
    third = harness.Server("--access-log", "false", data=pair[0].data)
    mirror, over = Mirror(pair[0].client(), "mirror:"), threading.Event()

    def write(server, pick):
        client = server.client()
        try:
            while not over.is_set():
                names = [b"mirror:%d" % pick.randrange(60) for _ in range(5)]
                client.upsert(names[0], b"x")
                client.map(names[1], pick.randrange(1, 100))
                client.delete("/pairs/" + names[2].decode())
                client.batch([{"op": "pair_set", "pair": b64(name), "key": pick.randrange(1, 100)} for name in names[3:]], atomic="true")
        except Exception:  # pylint: disable=broad-except
            assert server is third, "only that one is killed"

    threads = [threading.Thread(target=write, args=(server, random.Random(i))) for i, server in enumerate([*pair, third])]
    for thread in threads:
        thread.start()
    for groups in range(1, 20):
        while mirror.groups < groups:
            mirror.catch_up(pair[groups % 2].client())
        if groups == 10:
            third.process.kill()
    over.set()
    for thread in threads:
        thread.join()
    third.pool = None
    third.wait()
    third.finish()
    mirror.catch_up(pair[1].client())
    assert mirror.pairs == dict(pair[0].client().scan(b"mirror:"))


def test_changes_of_what_the_other_drops(pair):
    """A stream of one server hears of a write by the other, and of the end of its database."""
    one, two = (server.client(db="followed", timeout=60) for server in pair)
    one.upsert(b"a", b"1")
    after = one.get("/changes/*", after="now").end["next"]
    response, _ = one.send("GET", "/changes/*", after=after, wait=600)
    assert json.loads(response.readline()) == {"progress": {"seq": after}}
    two.upsert(b"b", b"2")
    line = json.loads(response.readline())
    assert unb64(line["pair"]) == b"b" and line["seq"] == after + 1 and not line["deleted"]
    assert pair[0].client().get("/databases/followed").json()["changes"]["newest"] == after + 1
    assert two.delete("/databases/followed", confirm="followed").status == 204
    lines = [json.loads(line) for line in response]
    assert lines[-1]["error"]["code"] == "database_dropped", lines
    one.close()


def test_one_is_killed(pair):
    """What it had acknowledged is there, and the other goes on at once."""
    third = harness.Server("--access-log", "false", data=pair[0].data)
    client, acknowledged = third.client(), []

    def write():
        try:
            while True:
                i = len(acknowledged)
                assert client.put("/pairs/killed-%d" % i, b"%d" % i).status == 201
                acknowledged.append(i)
        except OSError:
            pass
        except Exception as error:  # the connection ends in the middle of an answer
            acknowledged.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    harness.wait_for(lambda: len(acknowledged) >= 20 or not thread.is_alive(), what="writes that are acknowledged")
    third.process.kill()
    thread.join()
    third.pool = None
    third.wait()
    third.finish()
    other = pair[1].client()
    written = [i for i in acknowledged if isinstance(i, int)]
    assert written
    for i in written:
        assert unb64(other.get("/pairs/killed-%d" % i, exact="true", values="true").json()["value"]) == b"%d" % i
    assert other.put("/pairs/after", b"x").status == 201
