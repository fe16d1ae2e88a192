"""Debian's Chromium, headless, as the user's browser: what pages of other origins can do to a server on the same machine, at both ports.

chromedriver starts the browser and runs scripts in its pages; three names lead to this machine (--host-resolver-rules).
"""
import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

import harness
import pytest
from harness import b64, wait_for

pytestmark = pytest.mark.skipif(harness.SANITIZED, reason="a sanitizer sees nothing new")
STEAL = json.dumps({"op": "pair_put", "pair": b64(b"stolen"), "value": b64(b"v")}) + "\n"
LINES = "\nINSERT stolen\nPAIR_SET stolen 1\nPAIR_DEL kept\nDELETE 1\n"


class Page(http.server.BaseHTTPRequestHandler):
    """Any path is an empty page, whoever asks."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "22")
        self.end_headers()
        self.wfile.write(b"<!doctype html><p>page")

    def log_message(self, *_):
        pass


class Browser:
    """One Chromium, driven over the WebDriver protocol."""

    def __init__(self, chromedriver, chromium, directory):
        self.driver = subprocess.Popen([chromedriver, "--port=0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=directory,
                                       env={**os.environ, "HOME": directory, "TMPDIR": directory, "no_proxy": "*"})
        self.session = None
        try:
            for line in self.driver.stdout:
                found = re.search(rb"successfully on port (\d+)", line)
                if found:
                    break
            self.base = "http://127.0.0.1:%d" % int(found.group(1))
            threading.Thread(target=self.driver.stdout.read, daemon=True).start()
            names = ", ".join("MAP %s 127.0.0.1" % name for name in ("evil.example", "rebind.example", "app.example"))
            options = {"binary": chromium, "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
                                                    "--disable-background-networking", "--user-data-dir=" + os.path.join(directory, "profile"),
                                                    "--host-resolver-rules=" + names]}
            asked = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
            self.session = self.call("POST", "/session", asked)["sessionId"]
            self.call("POST", "/session/%s/timeouts" % self.session, {"script": 60000, "pageLoad": 60000})
        except BaseException:
            self.close()
            raise

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=harness.HANG) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError("chromedriver: %s" % error.read().decode()[:2000]) from None

    def visit(self, url):
        self.call("POST", "/session/%s/url" % self.session, {"url": url})

    def run(self, script, *args):
        """The value of an asynchronous function's body, in the page that is open. A failure is {"failed": text}."""
        text = """const done = arguments[arguments.length - 1], args = Array.from(arguments).slice(0, -1);
            (async (...args) => { %s })(...args).then(done, error => done({failed: String(error)}));""" % script
        return self.call("POST", "/session/%s/execute/async" % self.session, {"script": text, "args": list(args)})

    def close(self):
        try:
            if self.session is not None:
                self.call("DELETE", "/session/" + self.session)
        finally:
            self.driver.terminate()
            try:
                self.driver.wait(60)
            except subprocess.TimeoutExpired:
                self.driver.kill()
                self.driver.wait()


@pytest.fixture(scope="module")
def browser():
    found = [shutil.which(name) for name in ("chromedriver", "chromium")]
    if None in found:
        pytest.skip("chromium and chromium-driver are not installed; deploy/install-deps.sh test")
    with tempfile.TemporaryDirectory(prefix="cht_browser.", ignore_cleanup_errors=True) as directory:
        started = Browser(*found, directory)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages():
    """The port of somebody's web server."""
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield web.server_address[1]
    web.shutdown()
    web.server_close()


class Kept:
    """A server that holds one value and one pair, and listens on both ports."""

    def __init__(self, launch, directory, *flags):
        port_file = str(directory / "line-port")
        self.server = launch("--durability", "os", "--line-listen", "127.0.0.1:0", "--line-port-file", port_file, *flags)
        self.url = "http://127.0.0.1:%d" % self.server.port
        with open(port_file, encoding="ascii") as file:
            self.line_url = "http://127.0.0.1:%d" % int(file.read())
        self.client = self.server.client(check=False)
        assert self.client.put_new(b"kept", b"secret") == 1

    def unchanged(self):
        assert self.client.scan() == [(b"kept", 1)] and self.client.read(1) == b"secret"
        assert self.client.get("/kv").end["count"] == 1
        assert b"stolen" not in self.client.get("/databases").body

    def asked(self, method, status):
        """Has such a request been answered so?"""
        return any(line["method"] == method and line["status"] == status for line in self.server.log("request"))


def test_a_foreign_page_writes_and_reads_nothing(launch, browser, pages, tmp_path):
    kept = Kept(launch, tmp_path)
    browser.visit("http://evil.example:%d/" % pages)
    seen = browser.run("""const [base, steal] = args, seen = [];
        const tried = async (path, more) => { try { const a = await fetch(base + path, more); seen.push(a.type + a.status + await a.text()); } catch (e) { seen.push("failed"); } };
        for (const mode of ["no-cors", "cors"]) {
            await tried("/batch", {method: "POST", mode, body: steal});
            await tried("/batch", {method: "POST", mode, body: new Blob([steal], {type: "text/plain"})});
            await tried("/batch", {method: "POST", mode, body: steal, credentials: "include", keepalive: true});
            await tried("/batch", {method: "POST", mode, body: steal, referrerPolicy: "no-referrer"});
            await tried("/kv", {method: "POST", mode, body: "stolen"});
            await tried("/kv", {mode});
            await tried("/pairs/*?values=true", {mode});
        }
        for (const method of ["PUT", "DELETE"])
            await tried("/pairs/kept", {method, body: method == "PUT" ? "v" : undefined});
        await tried("/databases/default?confirm=default", {method: "DELETE"});
        await tried("/batch", {method: "POST", body: steal, headers: {"Content-Type": "application/x-ndjson"}});
        return seen;""", kept.url, STEAL)
    assert len(seen) == 18 and all(text in ("failed", "opaque0") for text in seen), seen
    wait_for(lambda: kept.asked("POST", 403) and kept.asked("GET", 200), what="their arrival in the log")
    beacon = browser.run("""return navigator.sendBeacon(args[0] + "/batch", args[1]);""", kept.url, STEAL)
    assert beacon is True
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        before = len(kept.server.log("request"))
        browser.run("""const [action, kind, steal] = args, frame = document.createElement("iframe"), form = document.createElement("form"), field = document.createElement("input");
            frame.name = "into"; document.body.append(frame, form); form.append(field); field.type = "hidden";
            const at = steal.indexOf("=="); field.name = steal.slice(0, at + 1); field.value = steal.slice(at + 2);
            form.method = "POST"; form.action = action; form.enctype = kind; form.target = "into"; form.submit();""", kept.url + "/batch", kind, STEAL)
        wait_for(lambda: len(kept.server.log("request")) > before, what="the form: " + kind)
        browser.visit("http://evil.example:%d/" % pages)
    kept.unchanged()


def test_a_foreign_page_at_the_line_port(launch, browser, pages, tmp_path):
    kept = Kept(launch, tmp_path)
    before = kept.server.metric("cheetah_line_connections_total")
    browser.visit("http://evil.example:%d/" % pages)
    seen = browser.run("""const [base, lines] = args, seen = [];
        for (const more of [{method: "POST", mode: "no-cors", body: lines}, {method: "POST", mode: "cors", body: lines}, {method: "PUT", body: lines}, {mode: "no-cors"}])
            try { const a = await fetch(base + "/x", more); seen.push(a.type + await a.text()); } catch (e) { seen.push("failed"); }
        return seen;""", kept.line_url, LINES)
    assert all(text in ("failed", "opaque") for text in seen), seen
    browser.run("""const [action, lines] = args, form = document.createElement("form"), field = document.createElement("textarea");
        document.body.append(form); form.append(field); field.name = "a"; field.value = lines;
        form.method = "POST"; form.action = action; form.enctype = "text/plain"; form.submit();""", kept.line_url + "/x", LINES)
    wait_for(lambda: kept.server.metric("cheetah_line_connections_total") >= before + 4, what="the connections")
    browser.visit("http://evil.example:%d/" % pages)
    browser.visit("about:blank")
    kept.unchanged()


def test_dns_rebinding(launch, browser, pages, tmp_path):
    """The page's own name leads to the server now: to the browser they are one origin."""
    kept = Kept(launch, tmp_path)
    browser.visit("http://rebind.example:%d/version" % kept.server.port)
    seen = browser.run("""const [steal] = args, seen = [];
        for (const [path, more] of [["/kv", {}], ["/pairs/*?values=true", {}], ["/metrics", {}], ["/openapi.yaml", {}], ["/databases", {}],
                                    ["/batch", {method: "POST", body: steal}], ["/pairs/stolen", {method: "PUT", body: "v"}], ["/pairs/kept", {method: "DELETE"}],
                                    ["/version", {}]]) {
            const a = await fetch(path, more); seen.push([a.status, await a.text()]);
        }
        return seen;""", STEAL)
    assert [status for status, _ in seen] == [403] * 8 + [200], seen
    assert all("forbidden_host" in text and "c2VjcmV0" not in text for _, text in seen[:8]), seen
    kept.unchanged()


def test_an_allowed_page(launch, browser, pages, tmp_path):
    """Reads and writes, with everything that the browser asks first; a page of another port of the same name does not."""
    kept = Kept(launch, tmp_path, "--cors-origins", "http://app.example:%d" % pages)
    script = """const [base, steal] = args, seen = [];
        for (const [path, more] of [["/pairs/*?values=true", {}], ["/pairs/mine", {method: "PUT", body: "v"}], ["/batch", {method: "POST", body: steal}],
                                    ["/pairs/mine", {method: "PUT", headers: {"Content-Type": "application/json", "Authorization": "Bearer x", "X-Request-Id": "own"}, body: '{"value":"dg=="}'}],
                                    ["/pairs/mine", {method: "DELETE"}], ["/kv", {method: "POST", body: "w"}], ["/kv/9999", {}]]) {
            try { const a = await fetch(base + path, more); seen.push([a.status, await a.text(), a.headers.get("X-Request-Id"), a.headers.get("Location")]); } catch (e) { seen.push([String(e)]); }
        }
        return seen;"""
    browser.visit("http://app.example:%d/" % pages)
    seen = browser.run(script, kept.url, STEAL)
    assert [one[0] for one in seen] == [200, 201, 200, 200, 204, 201, 404], seen
    assert "c2VjcmV0" in seen[0][1] and seen[3][2] == "own" and seen[5][3].startswith("/kv/") and "key_not_found" in seen[6][1], seen
    assert [pair for pair, _ in kept.client.scan()] == [b"kept", b"stolen"]
    browser.visit("http://evil.example:%d/" % pages)
    seen = browser.run(script, kept.url, STEAL)
    assert all(len(one) == 1 and "Failed to fetch" in one[0] for one in seen), seen
    wait_for(lambda: kept.asked("OPTIONS", 204) and kept.asked("OPTIONS", 403), what="both in the log")  # it is written after the answer
