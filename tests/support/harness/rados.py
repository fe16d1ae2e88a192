"""rados: CHT_STORE=rados: every Server has its databases in a pool of the cluster of CHT_RADOS_CONF (tests/rados/run.sh) in place of a data
directory; the same data= is the same pool. Flags that are about files are left out.
"""
import hashlib
import os
import subprocess

WANTED = os.environ.get("CHT_STORE") == "rados"
CONF = os.environ.get("CHT_RADOS_CONF", "")
OF_FILES = ("--durability", "--value-order", "--read-ahead", "--sync-interval-ms", "--scan-workers", "--dirty-bytes", "--checkpoint-log-bytes",
            "--scrub-bytes-per-second")

# What is not there over RADOS (README.md of src/store/rados): a file of tests, or one of its tests, and why.
_KEYS = "the key of a name is any"
_FOLDERS = "there are no directories"
_LARGE = "413: an atomic commit looks at no more than 60 000 rows of a shard"
NOT_THERE = {
    "test_lifecycle.py::test_directory_in_use": _FOLDERS,
    "test_lifecycle.py::test_several_directories": _FOLDERS,
    "test_costs.py::test_a_new_database": _FOLDERS,
    "test_costs.py::test_many_open_databases": "up to 32 threads of a server wait for the cluster, however many databases there are",
    "test_pages.py::test_preflight_needs_no_token": _KEYS,
    "test_traps.py::test_http_1_0": _KEYS,
    "test_polling.py::test_an_insert_after_upserts_can_get_a_smaller_key": "names and inserts have leases of their own",
    "test_polling.py::test_next_key_is_what_comes_next_in_a_fresh_database": "next_key is 1",
    "test_overload.py::test_ngrams_are_bounded": _LARGE,
    "test_scrub.py": "there are no files to look at: the OSDs scrub",
    "test_value_order.py": "there are no files in which values have an order",
    "test_coding.py::test_a_slow_stream_arrives_line_by_line": _LARGE,
    "test_durability.py::test_durability_of_a_connection": "the cluster syncs, not the server",
    "test_shell.py::test_data_of_a_running_server": _FOLDERS,
    "test_shell.py::test_data_of_a_killed_server": _FOLDERS,
    "test_today.py::test_a_purge_ends_at_damage": "there are no files to damage",
    "test_databases.py::test_shards": "shards are a power of two",
    "test_databases.py::test_statistics": _FOLDERS,
    "test_databases.py::test_lengths_by_ranges": "there is no catalogue of lengths",
    "test_batch.py::test_a_failed_atomic_batch_reserves_nothing": "keys that were leased for a batch that failed are a gap",
    "test_statistics.py::test_aggregates_say_how_far_they_are": _LARGE,
    "test_statistics.py::test_aggregates_stop_when_nobody_waits": _LARGE,
    "test_statistics.py::test_smoothing_says_how_far_it_is_and_stops": _LARGE,
}


def why_not(node):
    """Why this test of pytest's has no meaning over RADOS; None: it has, or the store is another."""
    if not WANTED:
        return None
    file, name = node.path.name, getattr(node, "originalname", None) or node.name
    return NOT_THERE.get(file) or NOT_THERE.get(file + "::" + name)


def leave_out(items):
    """For pytest_collection_modifyitems: those tests are skipped, each with its reason."""
    import pytest

    for item in items:
        why = why_not(item)
        if why:
            item.add_marker(pytest.mark.skip(reason="--store rados: " + why))


def _ceph(*words):
    subprocess.run(["ceph", "-c", CONF, "--connect-timeout", "20", *words], check=True, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def pool(data):
    """The pool that stands for a data directory, made if it is not there."""
    name = "cht-" + hashlib.sha256(str(data).encode()).hexdigest()[:16]
    _ceph("osd", "pool", "create", name, "4", "4")
    return name


def drop(name):
    _ceph("osd", "pool", "delete", name, name, "--yes-i-really-really-mean-it")


def flags(given):
    """Those that mean something there."""
    kept, skip = [], False
    for i, word in enumerate(given):
        if skip:
            skip = False
        elif word.split("=")[0] in OF_FILES:
            skip = "=" not in word and i + 1 < len(given)
        else:
            kept.append(word)
    return kept


def store(name):
    """In place of --data."""
    return ["--store", "rados", "--rados-pool", name, "--rados-conf", CONF]


def skip(why):
    import pytest

    pytest.skip("--store rados: " + why)
