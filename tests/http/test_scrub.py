"""The background scrub: what rots on disk is told while the server runs, and the rest stays readable."""
import glob
import os
import time

from harness import wait_for


def test_a_pass_over_sound_files_finds_nothing(launch):
    server = launch("--durability", "os", "--scrub-bytes-per-second", "1G")
    server.client().put_all({b"p%05d" % i: b"v" * (i % 500 + 1) for i in range(5000)})
    server.client().post("/databases/default/checkpoint")
    server.stop()
    server.restart()
    wait_for(lambda: server.metric("cheetah_scrub_passes_total") >= 1, what="a pass")
    assert server.metric("cheetah_scrub_bytes_total") > 500000
    assert server.comes_to("cheetah_scrub_bad_pages_total", 0) and server.log("scrub_found") == []


def test_a_damaged_page_is_found(launch):
    server = launch("--durability", "os", "--shards", "1", "--scrub-bytes-per-second", "1G")
    server.client().put_all({b"p%05d" % i: b"value %05d" % i + b"." * 200 for i in range(5000)})
    server.client().post("/databases/default/checkpoint")
    server.stop()
    files = [f for f in glob.glob(server.data + "/**", recursive=True) if os.path.isfile(f) and b"value 02500" in open(f, "rb").read()]
    files = [f for f in files if "wal" not in f and "log" not in os.path.basename(f)]
    assert files, "where the value is on disk"
    with open(files[0], "r+b") as file:
        at = file.read().index(b"value 02500") + 100
        file.seek(at)
        file.write(b"!")
    server.restart()
    wait_for(lambda: server.log("scrub_found"), what="the log line")
    assert "1 damaged pages" in server.log("scrub_found")[-1]["message"]
    assert server.comes_to("cheetah_scrub_bad_pages_total", 1) and server.metric("cheetah_corrupt_values_total") >= 1
    assert server.client().get("/kv?keys=1").status == 200, "it goes on serving"


def test_it_can_be_off_and_stops_at_once(launch):
    server = launch("--durability", "os", "--scrub-bytes-per-second", "0")
    time.sleep(0.3)
    assert server.comes_to("cheetah_scrub_bytes_total", 0)
    slow = launch("--durability", "os", "--scrub-bytes-per-second", "1")
    slow.client().put_all({b"p%05d" % i: b"v" for i in range(1000)})
    assert slow.client(db="x").put("/databases/x").status == 201
    assert slow.client().delete("/databases/x", confirm="x").status == 204, "a database under its scrub can be dropped"
    slow.stop()  # within a time in which it has read some hundred bytes
