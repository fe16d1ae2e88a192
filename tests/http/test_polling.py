"""Polling /kv?after= for new values: the order that keys are given out in, and the way that misses none (openapi.yaml, "Polling")."""
import threading

import pytest
from harness import b64


class Poller:
    """As the contract says, by hand."""

    def __init__(self, client, db):
        self.client, self.path, self.after, self.seen = client, "/databases/" + db, 0, set()

    def poll(self):
        stable = self.client.get(self.path).json()["next_key"]
        new = [line["key"] for line in self.client.get("/kv", after=self.after, values="false").entries() if line["key"] not in self.seen]
        ahead = [key for key in new if key >= stable]
        if ahead:
            lines = [line for at in range(0, len(ahead), 1000) for line in self.client.get("/kv", keys=",".join(map(str, ahead[at:at + 1000])), values="false").entries()]
            self.seen.update(line["key"] for line in lines if "error" not in line)
        assert stable > self.after
        self.after = stable - 1
        self.seen = {key for key in self.seen if key >= stable}
        return new


def test_an_insert_after_upserts_can_get_a_smaller_key(client):
    """Why going on after the highest key misses values: the fault that next_key is for."""
    poller, highest, missed, polled = Poller(client, client.db), 0, [], []
    for i in range(40):
        client.upsert(b"name %d" % i, b"upserted")
        highest = max([highest] + [line["key"] for line in client.get("/kv", after=highest, values="false").entries()])
        polled += poller.poll()
        key = client.post("/kv", b"inserted", headers={"Content-Type": "text/plain"}).json()["key"]
        if key < highest:
            missed.append(key)
    polled += poller.poll()
    assert missed, "the server has more than one shard, and names fall into some of them"
    assert set(missed) <= set(polled)
    everything = [line["key"] for line in client.get("/kv", values="false").entries()]
    assert sorted(polled) == everything and len(everything) == 80, "each once"


def test_next_key_is_what_comes_next_in_a_fresh_database(client):
    path = "/databases/" + client.db
    assert client.get(path).json()["next_key"] == 1
    for i in range(1, 20):
        assert client.post("/kv", b"v", headers={"Content-Type": "text/plain"}).json()["key"] == i
        assert client.get(path).json()["next_key"] == i + 1


@pytest.mark.parametrize("durability", ["os", "sync"])
def test_many_writers_and_a_poller(launch, durability):
    """Inserts, upserts, batches and deletes at the same time: nothing is missed, nothing comes twice, nothing below the frontier comes later."""
    server = launch("--durability", durability, "--shards", "5")
    written, errors, done = set(), [], threading.Event()
    mu = threading.Lock()

    def write(number):
        try:
            client = server.client()
            for i in range(60):
                keys = [client.upsert(b"%d-%d" % (number, i), b"upserted %d" % i)]
                if i % 3 == 0:
                    keys.append(client.post("/kv", b"inserted", headers={"Content-Type": "text/plain"}).json()["key"])
                if i % 7 == 0:
                    answer = client.batch([{"op": "pair_put", "pair": b64(b"%d-%d-%d" % (number, i, k)), "value": b64(b"v")} for k in range(20)])
                    keys += [line["key"] for line in answer.entries()]
                with mu:
                    written.update(keys)
        except Exception as error:  # shown below
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    poller, polled = Poller(server.client(), "default"), []
    [thread.start() for thread in threads]
    while any(thread.is_alive() for thread in threads):
        with mu:
            before = set(written)
        polled += poller.poll()
        assert before <= set(polled), "what was acknowledged before a poll is in it"
    [thread.join() for thread in threads]
    polled += poller.poll()
    assert not errors and len(polled) == len(set(polled)) and set(polled) == written
    assert poller.poll() == []
    frontier = poller.after
    server.kill() if durability == "sync" else server.stop()
    server.restart()
    assert server.client().get("/databases/default").json()["next_key"] > frontier, "also after a crash"
