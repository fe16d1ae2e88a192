"""--value-order: which checkpoints put values in the order of their names; the answers are the same with all of them."""
import random

import pytest
from harness import b64

NAMES = 4000


@pytest.mark.parametrize("order", ["always", "never", "resting"])
def test_order(launch, order):
    server = launch("--value-order", order)
    client = server.client()
    names = [b"o:%06d" % i for i in range(NAMES)]
    mixed = random.Random(1).sample(names, NAMES)
    for at in range(0, NAMES, 1000):
        client.batch([{"op": "pair_put", "pair": b64(name), "value": b64(b"value of " + name * 5)} for name in mixed[at:at + 1000]])
    assert client.post("/databases/default/checkpoint").status == 200
    ordered = server.metrics()['cheetah_values_ordered_total{database="default"}']
    assert ordered > NAMES / 2 if order == "always" else ordered == 0  # while somebody waits, a resting one does not
    rows = client.get("/pairs/o:", values="true").entries()
    assert [(row["pair"], row["value"]) for row in rows] == [(b64(name), b64(b"value of " + name * 5)) for name in names]
