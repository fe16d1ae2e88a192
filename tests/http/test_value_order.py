"""--value-order: which checkpoints put values in the order of their names; the answers are the same with all of them."""
import random

import pytest
from harness import b64

NAMES = 4000
TRIES = 10


def value_of(name):
    return b64(b"value of " + name * 5)


@pytest.mark.parametrize("order", ["always", "never", "resting"])
def test_order(launch, order):
    """A checkpoint that was under way by itself stops ordering when another one is wanted, which then finds little to do: that is tried again."""
    server = launch("--value-order", order)
    client = server.client()
    names, ordered = [], 0
    for i in range(TRIES if order == "always" else 1):
        new = [b"o:%d:%06d" % (i, n) for n in range(NAMES)]
        names += new
        mixed = random.Random(i).sample(new, NAMES)
        for at in range(0, NAMES, 1000):
            client.batch([{"op": "pair_put", "pair": b64(name), "value": value_of(name)} for name in mixed[at:at + 1000]])
        assert client.post("/databases/default/checkpoint").status == 200
        ordered = server.metrics()['cheetah_values_ordered_total{database="default"}']
        if ordered > NAMES / 2:
            break
    assert order == "resting" or (ordered > NAMES / 2) == (order == "always") and (ordered == 0) == (order == "never")
    rows = client.get("/pairs/o:", values="true").entries()
    assert [(row["pair"], row["value"]) for row in rows] == [(b64(name), value_of(name)) for name in names]
