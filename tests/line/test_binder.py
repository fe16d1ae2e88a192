"""The live tests of today's Python binder, as they are, against our line protocol: those of graph, records and the binary protocol fail
as they must, all others pass.

    CHEETAH_BINDER=.../cheetah/binders/python /usr/bin/python3 -m pytest -q tests/line/test_binder.py
"""
import os
import re
import subprocess

import pytest

BINDER = os.environ.get("CHEETAH_BINDER")
LEFT_OUT = {
    "test_graph_write_and_recall", "test_record_table_round_trip_and_schema_evolution", "test_binary_protocol_carries_the_same_commands",
    "test_binary_index_matches_what_alias_reports", "test_table_numeric_profile_is_a_property_of_the_database",
}  # fmt: skip
PROGRAM = """
import sys, types, unittest
import cheetah_db.server as server
server.start_server = lambda **_: types.SimpleNamespace(host="127.0.0.1", port=int(sys.argv[1]), stop=lambda: None)
import tests.test_integration as live
live.start_server = server.start_server
unittest.main(module=live, argv=["live", "-v"], exit=False)
"""


@pytest.mark.skipif(BINDER is None, reason="CHEETAH_BINDER names no binder")
def test_the_live_tests_of_the_binder(launch):
    server = launch()
    ran = subprocess.run(
        ["python3", "-c", PROGRAM, str(server.line_port)], cwd=BINDER, text=True, capture_output=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": BINDER, "CHEETAH_INTEGRATION": "1", "PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip
    assert "Ran 14 tests" in ran.stderr, ran.stderr
    assert set(re.findall(r"^(?:FAIL|ERROR): (test_\w+)", ran.stderr, re.M)) == LEFT_OUT, ran.stderr
