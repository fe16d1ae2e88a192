"""Prometheus' rules and the Grafana dashboard, held against a real answer of GET /metrics."""
import json
import re
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml

import load
from conftest import free_port, in_deploy, run, tool
from harness import wait_for

PARTS = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture
def busy(launch, tmp_path):
    """A server that has something to tell under every name."""
    port_file = tmp_path / "line-port"
    server = launch("--line-listen", "127.0.0.1:0", "--line-port-file", str(port_file))
    load.load_sample(server)
    client = server.client(check=False)
    for method, target, body in load.QUESTIONS:
        assert client.request(method, target, body).status == 200
    client.get("/kv/1"), client.get("/kv/0")
    client.put("/pairs/topk%3A1%3A", b"a list of best followers"), client.get("/pairs/topk%3A1%3A?exact=true")
    client.delete("/pairs/topk%3A1%3A?values=true")
    client.close()
    with socket.create_connection(("127.0.0.1", int(port_file.read_text())), timeout=120) as line:
        line.sendall(b"READ 1\n")
        assert line.recv(100)
    return server


def families(server):
    """{name: type} of a real /metrics; histograms by their base name."""
    client = server.client(check=False)
    text = client.get("/metrics").body.decode()
    client.close()
    found = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name = re.match(r"\w+", line).group()
            assert name in found or PARTS.sub("", name) in found, line
    return found


def named(expressions, types):
    """The families that expressions speak of."""
    names = set(re.findall(r"\bcheetah_\w+", " ".join(expressions)))
    return {PARTS.sub("", n) if types.get(PARTS.sub("", n)) == "histogram" else n for n in names}


def dashboard():
    with open(in_deploy("grafana", "cheetah-db.json"), encoding="utf-8") as file:
        return json.load(file)


def expressions_of_dashboard():
    return [t["expr"] for p in dashboard()["panels"] for t in p.get("targets", [])]


def rules():
    with open(in_deploy("prometheus", "alerts.yml"), encoding="utf-8") as file:
        return [rule for group in yaml.safe_load(file)["groups"] for rule in group["rules"]]


def test_metrics_are_well_formed(busy):
    client = busy.client(check=False)
    text = client.get("/metrics").body
    client.close()
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    # code 3: only advice on names
    assert done.returncode in (0, 3) and b"error" not in done.stdout, done.stdout.decode()


def test_every_metric_has_a_panel_and_every_panel_a_metric(busy):
    types = families(busy)
    assert len(types) > 30
    shown = named(expressions_of_dashboard(), types)
    assert set(types) - shown == set(), "not on the dashboard (deploy/grafana/make.py)"
    assert shown - set(types) == set(), "on the dashboard, but the server has no such metric"


def test_the_dashboard_is_what_make_py_writes():
    run(in_deploy("grafana", "make.py"), "--check")
    panels = dashboard()["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(places)) == len(places)


def test_alerts_speak_of_metrics_that_exist(busy):
    types = families(busy)
    assert named([r["expr"] for r in rules()], types) <= set(types)


def test_counters_are_read_as_counters(busy):
    types = families(busy)
    for expression in expressions_of_dashboard() + [r["expr"] for r in rules()]:
        for name in re.findall(r"(?:rate|increase)\((cheetah_\w+)", expression):
            assert types.get(name) == "counter" or types.get(PARTS.sub("", name)) == "histogram", name


def test_rules_and_configuration():
    program = tool("promtool")
    assert "SUCCESS" in run(program, "check", "config", in_deploy("prometheus", "prometheus.yml"))
    text = run(program, "test", "rules", "alerts_test.yml", cwd=in_deploy("prometheus"))
    assert "SUCCESS" in text and "FAILED" not in text


def test_every_alert_is_tested_and_explained():
    with open(in_deploy("prometheus", "alerts_test.yml"), encoding="utf-8") as file:
        cases = [c for t in yaml.safe_load(file)["tests"] for c in t["alert_rule_test"]]
    with open(in_deploy("README.md"), encoding="utf-8") as file:
        readme = file.read()
    for rule in rules():
        assert any(c["alertname"] == rule["alert"] and c["exp_alerts"] for c in cases), "%s never fires in a test" % rule["alert"]
        assert re.search(r"^\| `%s` \|" % rule["alert"], readme, re.M), "%s is not in deploy/README.md" % rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info") and rule["annotations"]["summary"]


def test_prometheus_scrapes_and_answers(busy, spawn, tmp_path):
    """A real Prometheus with the configuration that ships, told another address: every expression is one it can answer."""
    program = tool("prometheus")
    with open(in_deploy("prometheus", "prometheus.yml"), encoding="utf-8") as file:
        config = file.read().replace('"cheetah:8080"', '"127.0.0.1:%d"' % busy.port).replace("15s", "1s")
    config = config.replace("- alerts.yml", "- " + in_deploy("prometheus", "alerts.yml"))
    (tmp_path / "prometheus.yml").write_text(config)
    port = free_port()
    log = open(tmp_path / "log", "w+")
    spawn(program, "--config.file=%s" % (tmp_path / "prometheus.yml"), "--storage.tsdb.path=%s" % (tmp_path / "data"),
          "--web.listen-address=127.0.0.1:%d" % port, stdout=log, stderr=log)

    def query(text):
        url = "http://127.0.0.1:%d/api/v1/query?query=%s" % (port, urllib.parse.quote(text))
        try:
            with urllib.request.urlopen(url, timeout=120) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            assert error.code == 503, "%s: %s" % (text, error.read().decode())  # it is still starting
            return []
        except OSError:
            return []

    wait_for(lambda: [r["value"][1] for r in query('up{job="cheetah-db"}')] == ["1"], what="the first scrape")
    wait_for(lambda: query("rate(cheetah_http_requests_total[30s])"), what="the second scrape")
    assert query("cheetah_database_pairs")[0]["value"][1] == "14102"
    for expression in expressions_of_dashboard():
        text = expression.replace("$__rate_interval", "30s").replace("$instance", ".*").replace("$database", ".*")
        assert query(text), "no such series: " + text
    firing = [r["metric"]["alertname"] for r in query('ALERTS{alertstate="firing"}')]
    assert firing == [], "a server that is well raises no alarm"
