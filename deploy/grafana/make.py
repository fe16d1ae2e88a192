#!/usr/bin/python3
"""make: the Grafana dashboard, from the table below: every metric of GET /metrics is in a panel.

    deploy/grafana/make.py            writes cheetah-db.json beside this file
    deploy/grafana/make.py --check    exit code 1 where the file is not what would be written

Import it in Grafana (Dashboards, New, Import), or put it into a provisioned folder.
"""
import json
import os
import sys

TARGET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cheetah-db.json")
I = 'instance=~"$instance"'
D = I + ', database=~"$database"'


def rate(metric, labels=I):
    return "rate(%s{%s}[$__rate_interval])" % (metric, labels)


def by(labels, expression):
    return "sum by (%s) (%s)" % (labels, expression)


def quantile(q):
    return "histogram_quantile(%s, %s)" % (q, by("le, route, method", rate("cheetah_http_request_seconds_bucket")))


def per(top, bottom, labels=I):
    return "%s / %s" % (rate(top, labels), rate(bottom, labels))


# (row, [(title, what it says, unit, [(expression, legend), ...]), ...])
ROWS = [
    ("Is it well?", [
        ("Ready", "1 while requests are served; 0 while starting, draining or read-only.", "none",
         [("cheetah_ready{%s}" % I, "{{instance}}")]),
        ("Uptime", "Falls to 0 at a restart.", "s", [("cheetah_uptime_seconds{%s}" % I, "{{instance}}")]),
        ("Read-only databases", "1 after a disk fault, until a restart.", "none",
         [("cheetah_database_read_only{%s}" % D, "{{instance}} {{database}}")]),
        ("Writes refused", "No room, no descriptors, no memory, or writing has stopped: the reason is the code of the answers.", "none",
         [("cheetah_database_writes_refused{%s}" % D, "{{instance}} {{database}} {{reason}}")]),
        ("Checksum failures", "Stored bytes that were found damaged. Anything but 0 is for today.", "none",
         [("cheetah_corrupt_values_total{%s}" % D, "{{instance}} {{database}}"),
          ("cheetah_scrub_bad_pages_total{%s}" % I, "{{instance}} scrub")]),
        ("Background scrub", "Bytes of files compared with their sums; how often all were is the second line.", "Bps",
         [(rate("cheetah_scrub_bytes_total"), "{{instance}}"), ("cheetah_scrub_passes_total{%s}" % I, "{{instance}} passes")]),
    ]),
    ("Requests", [
        ("Requests", "By route.", "reqps", [(by("route, method", rate("cheetah_http_requests_total")), "{{method}} {{route}}")]),
        ("Answers by status", "5xx are the server's, 4xx the client's.", "reqps",
         [(by("status", rate("cheetah_http_requests_total")), "{{status}}")]),
        ("Time to answer, median", "From the request line to the end of the answer; streams with all they send.", "s",
         [(quantile(0.5), "{{method}} {{route}}")]),
        ("Time to answer, 99th percentile", "", "s", [(quantile(0.99), "{{method}} {{route}}")]),
        ("Time to answer, mean", "", "s",
         [("%s / %s" % (by("route, method", rate("cheetah_http_request_seconds_sum")),
                        by("route, method", rate("cheetah_http_request_seconds_count"))), "{{method}} {{route}}")]),
        ("Bytes answered", "Bodies, by route.", "Bps",
         [(by("route, method", rate("cheetah_http_response_bytes_total")), "{{method}} {{route}}")]),
        ("Connections", "Of HTTP and of the line protocol; the limit is --max-connections, or less where descriptors are few.", "none",
         [("cheetah_connections_open{%s}" % I, "{{instance}} HTTP"), ("cheetah_connections_limit{%s}" % I, "{{instance}} limit"), ("cheetah_line_connections_open{%s}" % I, "{{instance}} lines")]),
        ("Turned away, given up", "Beyond a limit; answers that the client did not take.", "reqps",
         [(rate("cheetah_requests_refused_total"), "{{instance}} refused"), (rate("cheetah_requests_aborted_total"), "{{instance}} aborted"),
          (rate("cheetah_line_refused_total"), "{{instance}} lines refused")]),
        ("Connections ended to make room", "The oldest without a token, when they leave only the eighth that is kept for those with one; or over a limit, as more came to be refused.", "none",
         [(rate("cheetah_connections_shed_total"), "{{instance}}")]),
        ("Memory of requests", "Booked by large bodies, batches, statistics and answers; the limit is --memory-bytes.", "bytes",
         [("cheetah_request_memory_bytes{%s}" % I, "{{instance}}"), ("cheetah_request_memory_limit_bytes{%s}" % I, "{{instance}} limit")]),
        ("Refused for memory", "503: all requests together would pass --memory-bytes. 413: one alone would pass --request-memory-bytes.", "reqps",
         [(rate("cheetah_requests_over_memory_total"), "{{instance}} 503 together"),
          (rate("cheetah_requests_too_large_total"), "{{instance}} 413 alone")]),
    ]),
    ("Streams and the line protocol", [
        ("Streams open", "Each holds at most 4 MiB; --max-streams is 1024 unless set.", "none",
         [("cheetah_streams_open{%s}" % I, "{{instance}}")]),
        ("Entries streamed", "Of streams that have ended.", "none", [(rate("cheetah_stream_entries_total"), "{{instance}}")]),
        ("Bytes streamed", "Of streams that have ended.", "Bps", [(rate("cheetah_stream_bytes_total"), "{{instance}}")]),
        ("Compressed answers", "For who asked with Accept-Encoding.", "none", [(rate("cheetah_compressed_answers_total"), "{{instance}}")]),
        ("Compression", "Bytes before it and after it, of answers and of bodies.", "Bps",
         [(rate("cheetah_compressed_answers_plain_bytes_total"), "{{instance}} answers, plain"),
          (rate("cheetah_compressed_answers_bytes_total"), "{{instance}} answers, sent"),
          (rate("cheetah_compressed_bodies_bytes_total"), "{{instance}} bodies, as they came"),
          (rate("cheetah_compressed_bodies_plain_bytes_total"), "{{instance}} bodies, plain")]),
        ("Line protocol", "Commands, and new connections.", "none",
         [(rate("cheetah_line_commands_total"), "{{instance}} commands"), (rate("cheetah_line_connections_total"), "{{instance}} connections")]),
        ("Line protocol, bytes", "", "Bps",
         [(rate("cheetah_line_received_bytes_total"), "{{instance}} in"), (rate("cheetah_line_sent_bytes_total"), "{{instance}} out")]),
    ]),
    ("Aggregates", [
        ("Answers kept", "Aggregates whose answer was there, and those that were computed.", "none",
         [(rate("cheetah_reduce_cache_hits_total"), "{{instance}} hits"), (rate("cheetah_reduce_cache_misses_total"), "{{instance}} misses")]),
        ("Answers dropped", "Made stale by a write, or pushed out by others.", "none",
         [(rate("cheetah_reduce_cache_dropped_total"), "{{instance}}")]),
        ("Answers in memory", "", "none", [("cheetah_reduce_cache_entries{%s}" % I, "{{instance}}")]),
        ("Memory of answers", "--reduce-cache-bytes is 64 MiB unless set.", "bytes",
         [("cheetah_reduce_cache_bytes{%s}" % I, "{{instance}} answers"), ("cheetah_live_kept_bytes{%s}" % I, "{{instance}} live models")]),
        ("Predictions by order", "The order that answered; missed: orders above it that had nothing.", "none",
         [("sum by (instance, order, result) (%s)" % rate("cheetah_predictions_total"), "{{instance}} {{order}} {{result}}")]),
        ("Lists of best followers by order", "Exact reads of the pairs topk:<order>:, as DB-SLM's decoder makes them.", "none",
         [("sum by (instance, order, result) (%s)" % rate("cheetah_best_followers_total"), "{{instance}} {{order}} {{result}}")]),
        ("Links", "Runs of POST /reduce/links an hour, and what they found.", "none",
         [("3600 * " + rate("cheetah_links_runs_total"), "{{instance}} runs"),
          ("3600 * " + rate("cheetah_links_failed_total"), "{{instance}} failed"),
          ("3600 * " + rate("cheetah_links_contexts_total"), "{{instance}} contexts"),
          ("3600 * " + rate("cheetah_links_found_total"), "{{instance}} links")]),
        ("Pairs of contexts", "Compared, and spared by a bound.", "none",
         [(rate("cheetah_links_compared_total"), "{{instance}} compared"), (rate("cheetah_links_pruned_total"), "{{instance}} spared")]),
        ("Time of links", "Of a run.", "s", [(per("cheetah_links_seconds_total", "cheetah_links_runs_total"), "{{instance}}")]),
        ("Jobs", "Aggregates and smoothing runs under way.", "none", [("cheetah_statistics_jobs{%s}" % I, "{{instance}}")]),
    ]),
    ("Writes and the disk", [
        ("Commits", "", "none", [(rate("cheetah_commits_total", D), "{{instance}} {{database}}")]),
        ("Operations a commit", "Few in many commits: batches would help.", "none",
         [(per("cheetah_commit_operations_total", "cheetah_commits_total", D), "{{instance}} {{database}}")]),
        ("Commits a group", "How many commits share one sync.", "none",
         [(per("cheetah_commits_total", "cheetah_commit_groups_total", D), "{{instance}} {{database}}")]),
        ("Done together", "Point reads and commits that came at the same time, and were fetched or submitted together.", "reqps",
         [(rate("cheetah_reads_ahead_total"), "{{instance}} reads"),
          (rate("cheetah_reads_quick_total"), "{{instance}} reads of connections that go on asking"),
          (rate("cheetah_writes_quick_total"), "{{instance}} writes of such connections"),
          (rate("cheetah_commits_together_total"), "{{instance}} commits"),
          (rate("cheetah_reads_awaited_total"), "{{instance}} reads that waited for the disk")]),
        ("Syncs of the log", "", "none", [(rate("cheetah_fsync_total", D), "{{instance}} {{database}}")]),
        ("Time of a sync", "What a durable write waits for.", "s",
         [(per("cheetah_fsync_seconds_total", "cheetah_fsync_total", D), "{{instance}} {{database}}")]),
        ("Checkpoints an hour", "", "none",
         [("3600 * " + rate("cheetah_checkpoints_total", D), "{{instance}} {{database}}"),
          ("3600 * " + rate("cheetah_checkpoints_failed_total", D), "{{instance}} {{database}} failed")]),
        ("Time of a checkpoint", "", "s",
         [(per("cheetah_checkpoint_seconds_total", "cheetah_checkpoints_total", D), "{{instance}} {{database}}")]),
        ("Values put in order", "Of their names, before a checkpoint.", "none",
         [(rate("cheetah_values_ordered_total", D), "{{instance}} {{database}}")]),
        ("Pages read one by one", "1 where the databases do not fit into the memory.", "none",
         [("cheetah_pages_read_alone{%s}" % D, "{{instance}} {{database}}")]),
        ("Taken and written", "Bytes of names and values from clients; bytes handed to the disk.", "Bps",
         [(rate("cheetah_inserted_bytes_total", D), "{{instance}} {{database}} taken"),
          (rate("cheetah_written_bytes_total", D), "{{instance}} {{database}} written")]),
        ("Dirty memory", "Changed pages that no checkpoint holds.", "bytes", [("cheetah_dirty_bytes{%s}" % D, "{{instance}} {{database}}")]),
        ("Log", "All segments; what a start would have to replay.", "bytes",
         [("cheetah_log_bytes{%s}" % D, "{{instance}} {{database}} segments"), ("cheetah_log_live_bytes{%s}" % D, "{{instance}} {{database}} live")]),
    ]),
    ("Databases", [
        ("Pairs", "", "none", [("cheetah_database_pairs{%s}" % D, "{{instance}} {{database}}")]),
        ("Pairs with a ttl", "Not removed yet; removed after their ttl, a second.", "none",
         [("cheetah_database_pairs_ending{%s}" % D, "{{instance}} {{database}} ending"),
          (rate("cheetah_database_pairs_expired_total", D), "{{instance}} {{database}} expired")]),
        ("Changes", "Of GET /changes: the newest, and the oldest that can be asked for.", "none",
         [("cheetah_changes_newest{%s}" % D, "{{instance}} {{database}} newest"), ("cheetah_changes_oldest{%s}" % D, "{{instance}} {{database}} oldest"),
          ("cheetah_changes_followers{%s}" % D, "{{instance}} {{database}} streams")]),
        ("Log kept for changes", "Bytes of the log that are kept for changes alone.", "bytes",
         [("cheetah_changes_kept_bytes{%s}" % D, "{{instance}} {{database}}")]),
        ("Values", "", "none", [("cheetah_database_values{%s}" % D, "{{instance}} {{database}}")]),
        ("Bytes of values", "", "bytes", [("cheetah_database_bytes{%s}" % D, "{{instance}} {{database}}")]),
        ("Open databases", "One that is not used for --idle-close-seconds is closed; only open ones have figures. How often is the rate.", "none",
         [("cheetah_databases_open{%s}" % I, "{{instance}} open"), (rate("cheetah_databases_opened_total"), "{{instance}} opened"),
          (rate("cheetah_databases_closed_total"), "{{instance}} closed")]),
        ("Databases", "All there are, open or not; the limit is --max-databases.", "none",
         [("cheetah_databases{%s}" % I, "{{instance}}"), ("cheetah_databases_limit{%s}" % I, "{{instance}} limit")]),
        ("Bytes on disk", "Without the log.", "bytes", [("cheetah_database_file_bytes{%s}" % D, "{{instance}} {{database}}")]),
    ]),
    ("The Ceph cluster (--store rados)", [
        ("Operations", "On the cluster's objects; a read of a value is one or two, a group of writes one.", "ops",
         [(rate("cheetah_rados_operations_total"), "{{instance}} {{kind}}")]),
        ("Time of an operation", "From its start until the answer was taken, mean.", "s",
         [(per("cheetah_rados_operation_seconds_total", "cheetah_rados_operations_total"), "{{instance}} {{kind}}")]),
        ("Refused, in vain", "Refused: another server was first, and the write is made again. Timeouts and failures are 503 to somebody.", "ops",
         [(rate("cheetah_rados_refused_total"), "{{instance}} refused"), (rate("cheetah_rados_timeouts_total"), "{{instance}} timeouts"),
          (rate("cheetah_rados_failures_total"), "{{instance}} failures")]),
        ("Waiting", "Operations of commits; at 65536 a database the next are 503 overloaded.", "none",
         [("cheetah_rados_waiting_operations{%s}" % I, "{{instance}}")]),
        ("Silence", "Since the cluster answered a write of the server's pulse; from 5 s on /readyz is 503.", "s",
         [("cheetah_rados_silent_seconds{%s}" % I, "{{instance}}")]),
        ("Locks, and what is wrong", "Locks are held to count or smooth; a lost one ends that. Reconnects: the cluster had shut the server out.", "none",
         [("cheetah_rados_locks{%s}" % I, "{{instance}} locks"), ("cheetah_rados_locks_lost{%s}" % I, "{{instance}} lost"),
          ("cheetah_rados_reconnects_total{%s}" % I, "{{instance}} reconnects"), ("cheetah_rados_pool_full{%s}" % I, "{{instance}} pool full")]),
    ]),
    ("The process", [
        ("Processors used", "", "none", [(rate("cheetah_cpu_seconds_total"), "{{instance}}")]),
        ("Resident memory", "Mapped files count as far as they are in memory.", "bytes",
         [("cheetah_resident_bytes{%s}" % I, "{{instance}}")]),
        ("Open files", "At most 4096 are counted. The limit is what the process may have.", "none",
         [("cheetah_open_files{%s}" % I, "{{instance}}"), ("cheetah_open_files_limit{%s}" % I, "{{instance}} limit")]),
        ("Log lines dropped", "Whoever reads stderr is too slow.", "none",
         [(rate("cheetah_log_lines_dropped_total"), "{{instance}}")]),
        ("End of the TLS certificate", "1970 without TLS.", "dateTimeAsIso",
         [("1000 * cheetah_tls_certificate_expires_seconds{%s}" % I, "{{instance}}")]),
        ("TLS refusals", "Handshakes that ended because of the client's certificate; reloads that kept the old certificate.", "none",
         [(rate("cheetah_tls_client_certificates_refused_total"), "{{instance}} clients"),
          (rate("cheetah_tls_reloads_failed_total"), "{{instance}} reloads")]),
    ]),
]
SOURCE = {"type": "prometheus", "uid": "${source}"}


def panel(number, x, y, title, what, unit, targets):
    return {
        "id": number, "type": "timeseries", "title": title, "description": what, "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": 6, "h": 7},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8, "lineWidth": 1}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [{"refId": chr(65 + i), "datasource": SOURCE, "expr": e, "legendFormat": l} for i, (e, l) in enumerate(targets)],
    }


def variable(name, label, query):
    return {"name": name, "label": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": name},
            "definition": query, "includeAll": True, "multi": True, "allValue": ".*", "refresh": 2, "sort": 1,
            "current": {"text": "All", "value": "$__all"}}


def dashboard():
    panels, y, number = [], 0, 1
    for row, members in ROWS:
        panels.append({"id": number, "type": "row", "title": row, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
                       "panels": []})
        number, y = number + 1, y + 1
        for i, member in enumerate(members):
            panels.append(panel(number, i % 4 * 6, y + i // 4 * 7, *member))
            number += 1
        y += (len(members) + 3) // 4 * 7
    return {
        "uid": "cheetah-db", "title": "cheetah-db", "tags": ["cheetah-db"], "schemaVersion": 38, "version": 1, "editable": True,
        "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "timezone": "",
        "templating": {"list": [
            {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}},
            variable("instance", "Server", "label_values(cheetah_ready, instance)"),
            variable("database", "Database", 'label_values(cheetah_database_pairs{instance=~"$instance"}, database)'),
        ]},
        "panels": panels,
    }


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    text = json.dumps(dashboard(), indent=1) + "\n"
    if not arguments:
        with open(TARGET, "w", encoding="utf-8") as file:
            file.write(text)
        return 0
    with open(TARGET, encoding="utf-8") as file:
        if file.read() == text:
            return 0
    print("make.py: %s is out of date; run deploy/grafana/make.py" % TARGET, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
