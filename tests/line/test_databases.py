"""Databases by command, the settings that today's client keeps with them, and SYSTEM_STATS, LOG_FLUSH, FILE_CHECKPOINT."""
import base64
import json
import time

from harness.line import fields


def listed(line):
    answer = fields(line.ask("DB_LIST"))
    rows = json.loads(base64.b64decode(answer["payload"]))
    assert answer["count"] == str(len(rows)) and answer["default"] == "default"
    return {row["name"]: row for row in rows}


def test_create_configure_list(launch):
    server = launch()
    with server.line() as line:
        created = fields(line.ask("DB_CREATE made payload_cache_mb=8 graph_cache_enabled=no"))
        assert created["database_created"] == "made" and created["payload_cache_bytes"] == "8388608" and created["graph_cache_enabled"] == "0"
        assert created["graph_cache_half_life"] == "6h0m0s" and len(created) == 17
        assert line.ask("DB_CREATE made") == b"ERROR,database_exists:made" and line.ask("DB_CREATE default") == b"ERROR,database_exists:default"
        assert line.ask("INSERT v") == b"SUCCESS,key=1"  # the connection stays where it was
        assert line.ask("DB_CREATE plain").startswith(b"SUCCESS,database_created=plain,pair_index_bytes=1,")
        changed = fields(line.ask("DB_CONFIG made payload_cache_entries=17 graph_cache_sample=0.5 key_slot_bits=8"))
        assert changed["database_configured"] == "made" and changed["loaded"] == "1" and changed["applied"] == "payload_cache_entries;graph_cache_sample"
        assert changed["on_open"] == changed["reopen"] == "-" and changed["reset"] == "key_slot_bits" and changed["payload_cache_bytes"] == "8388608"
        assert fields(line.ask("DB_CONFIG plain"))["applied"] == "-"
        rows = listed(line)
        assert set(rows) == {"default", "made", "plain"} and [rows[n]["ad_hoc_settings"] for n in ("default", "made", "plain")] == [False, True, False]
        assert rows["made"]["settings"]["payload_cache_bytes"] == 8 << 20 and rows["made"]["settings"]["graph_cache_enabled"] is False
        assert rows["made"]["settings"]["graph_cache_sample"] == 0.5 and rows["made"]["settings"]["graph_cache_interval"] == "15s" and rows["made"]["path"] == ""
        assert line.ask("DATABASE made graph_cache_page_size=9") == b"SUCCESS,database_changed_to_made"
        assert line.ask("INSERT v").startswith(b"SUCCESS,key=")
        for text, want in (("DB_CREATE", b"invalid_database_name"), ("DB_CREATE a.b", b"invalid_database_name"), ("DB_CREATE a b", b'invalid override token "b"'),
                           ("DB_CREATE a c=1", b"unknown override c"), ("DB_CREATE a key_slot_bits=many", b"invalid override value of key_slot_bits"),
                           ("DB_CREATE a payload_cache_mb=99999999999", b"invalid override value of payload_cache_mb"),
                           ("DB_CONFIG nobody", b"database_not_found:nobody"), ("DB_CONFIG nobody key_slot_bits=1", b"database_not_found:nobody"),
                           ("DATABASE a c=1", b"unknown override c"), ("RESET_DB made c=1", b"unknown override c")):  # fmt: skip
            assert line.ask(text) == b"ERROR," + want, text
        assert set(listed(line)) == {"default", "made", "plain"}  # nothing was made of what was refused
    server.kill()
    server.restart()
    with server.line() as line:
        rows = listed(line)
        assert rows["made"]["ad_hoc_settings"] and rows["made"]["settings"]["payload_cache_entries"] == 17 and rows["made"]["settings"]["graph_cache_page"] == 9
        assert line.ask("RESET_DB made payload_cache_mb=4") == b"SUCCESS,database_reset_to_made"
        assert listed(line)["made"]["settings"]["payload_cache_bytes"] == 4 << 20 and listed(line)["made"]["settings"]["payload_cache_entries"] == 16384
        assert line.ask("DB_CONFIG made payload_cache_mb=64") and listed(line)["made"]["ad_hoc_settings"] is False


def test_settings_are_numbers_of_json(launch):
    """Each value that is taken can be listed: DB_LIST shows numbers, in the forms that JSON has. Python writes 1e-07."""
    with launch().line() as line:
        line.ask("DB_CREATE made")
        for word, want in (("graph_cache_sample=1e-07", 1e-07), ("graph_cache_sample=00.5", 0.5), ("graph_cache_sample=5.", 5), ("graph_cache_sample=1", 1),
                           ("pair_list_max_bytes=007", 7), ("pair_list_max_bytes=0", 0), ("pair_list_max_bytes=999999999999999999", 999999999999999999)):  # fmt: skip
            assert line.ask("DB_CONFIG made " + word).startswith(b"SUCCESS,"), word
            assert listed(line)["made"]["settings"][word.partition("=")[0]] == want, word
        for word in ("graph_cache_sample=0.2.5", "graph_cache_sample=1e999", "graph_cache_sample=1e", "graph_cache_sample=.", "graph_cache_sample=nan",
                     "pair_list_max_bytes=1.5", "pair_list_max_bytes=1000000000000000000", "graph_cache_page=-1", "graph_cache_page="):  # fmt: skip
            assert line.ask("DB_CONFIG made " + word).decode() == "ERROR,invalid override value of " + word.partition("=")[0]
        assert listed(line)["made"]["settings"]["graph_cache_sample"] == 1


def test_rights(launch, tmp_path):
    """What is made, set and written to disk needs `admin`; what others may see is listed, and no more."""
    path = tmp_path / "tokens"
    path.write_text("".join("%s-secret-of-sixteen-bytes %s %s\n" % (who, right, which) for who, right, which in
                            (("read", "read", "a"), ("write", "write", "a"), ("admin", "admin", "*"))))  # fmt: skip
    server = launch("--tokens", str(path), ready=False)
    with server.line() as admin, server.line() as writer, server.line() as reader:
        for who, one in (("admin", admin), ("write", writer), ("read", reader)):
            for text in ("DB_LIST", "SYSTEM_STATS", "DB_CREATE a", "LOG_FLUSH"):
                assert one.ask(text) == b"ERROR,unauthorized"
            one.ask("AUTH %s-secret-of-sixteen-bytes" % who)
        assert admin.ask("DB_CREATE a").startswith(b"SUCCESS") and admin.ask("DB_CREATE b").startswith(b"SUCCESS")
        for one in (writer, reader):
            assert one.ask("DATABASE a") == b"SUCCESS,database_changed_to_a" and set(listed(one)) == {"a"}
            for text in ("DB_CREATE c", "DB_CREATE a", "DB_CONFIG a key_slot_bits=1", "DB_CONFIG b", "FILE_CHECKPOINT", "LOG_FLUSH", "RESET_DB a"):
                assert one.ask(text) == b"ERROR,forbidden", text
            assert one.ask("DB_CONFIG a").startswith(b"SUCCESS,") and one.ask("SYSTEM_STATS").startswith(b"SUCCESS,")
        assert reader.ask("DATABASE a key_slot_bits=1") == reader.ask("PAIR_SET_HIDDEN a 1") == reader.ask("DEL values key=1") == b"ERROR,forbidden"
        assert writer.ask("DATABASE a key_slot_bits=1") == b"SUCCESS,database_changed_to_a"
        assert set(listed(admin)) == {"default", "a", "b"} and listed(admin)["a"]["settings"]["key_slot_bits"] == 1
        for text in ("FILE_CHECKPOINT", "LOG_FLUSH", "RESET_DB a"):
            assert admin.ask(text).startswith(b"SUCCESS,"), text


def test_system(line):
    stats = fields(line.ask("SYSTEM_STATS"))
    assert int(stats["logical_cores"]) >= 1 and int(stats["goroutines"]) > 1 and stats["gomaxprocs"] == stats["logical_cores"]
    assert "4096:" + stats["logical_cores"] in stats["recommended_workers"].split(";")
    assert abs(time.time() - time.mktime(time.strptime(stats["timestamp"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 30
    assert int(stats["mem_alloc_bytes"]) > 0 and stats["payload_cache_enabled"] == "0"
    for _ in range(20000):
        line.send("READ 1")
    for _ in range(20000):
        line.answer()
    time.sleep(0.15)
    busy = fields(line.ask("SYSTEM_STATS"))
    assert busy["process_cpu_supported"] == "1" and float(busy["process_cpu_pct"]) > 0
    assert 0 <= float(busy["system_cpu_pct"]) <= 100 and int(busy["io_write_bytes"]) >= int(stats["io_write_bytes"])
    assert line.ask("SYSTEM_STATS now") == b"ERROR,too_many_arguments"
    assert line.ask("LOG_FLUSH") == line.ask("LOG_FLUSH 5") == line.ask("LOG_FLUSH -1") == b"SUCCESS,count=0" and line.ask("LOG_FLUSH x") == b"ERROR,invalid_limit"


def test_checkpoint(launch):
    server = launch("--shards", "2")
    with server.line() as line:
        line.many(["INSERT value"] * 100)
        assert line.ask("FILE_CHECKPOINT IDLE=5s DROP_CACHE close_handles") == b"SUCCESS,file_checkpoint_flushed=2"
        for text in ("FILE_CHECKPOINT", "FILE_CHECKPOINT 5", "FILE_CHECKPOINT 1m30s", "FILE_CHECKPOINT idle=250ms"):
            assert line.ask(text) == b"SUCCESS,file_checkpoint_flushed=0", text
        assert line.ask("FILE_CHECKPOINT now") == b"ERROR,invalid_checkpoint_option:now"
        assert line.ask("FILE_CHECKPOINT IDLE=soon") == b"ERROR,invalid_idle_duration:IDLE=soon"
