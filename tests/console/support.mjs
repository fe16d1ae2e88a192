// support: servers, Chromium, and what every test of the page looks at besides its own matter.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync, existsSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
export const root = join(here, "..", "..");
const require = createRequire(join(root, "console", "package.json")); // what is pinned there
const { chromium } = require("playwright-core");
const yaml = require("js-yaml");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export const program = process.env.CHEETAH_DB ?? join(root, "build/release/cheetah-db");
const shots = process.env.CHEETAH_SHOTS ?? join(root, "build/console-screenshots");
export const PATIENCE = 30000; // for what takes a second on an idle machine
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export async function until(what, truth, patience = PATIENCE) {
  for (const end = Date.now() + patience; ; await pause(50)) {
    const found = await truth();
    if (found) return found;
    if (Date.now() > end) throw new Error("waited in vain for " + what);
  }
}

export class Server {
  static async start(...flags) {
    const own = new Server();
    own.directory = mkdtempSync(join(tmpdir(), "cht_console."));
    const port = join(own.directory, "port");
    own.process = spawn(program, ["serve", "--data", join(own.directory, "data"), "--listen", "127.0.0.1:0", "--port-file", port, "--line-listen", "none", "--durability", "os", "--shards", "3", "--access-log", "false", ...flags], { stdio: "ignore" });
    own.exited = new Promise((done) => own.process.on("exit", done));
    await until("the server", () => existsSync(port) && readFileSync(port, "utf8").trim() !== "");
    own.url = "http://127.0.0.1:" + readFileSync(port, "utf8").trim();
    await until("the server to be ready", async () => (await fetch(own.url + "/readyz").catch(() => ({ ok: false }))).ok);
    return own;
  }

  async ask(method, path, body, headers = {}) {
    const answer = await fetch(this.url + path, { method, body, headers });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text;
  }

  /** Names that lead to keys, many at once. */
  async fill(db, names) {
    for (let at = 0; at < names.length; at += 20000) {
      const lines = names.slice(at, at + 20000).map((name, i) => JSON.stringify({ op: "pair_set", pair: Buffer.from(name).toString("base64"), key: at + i + 1 }));
      await this.ask("POST", `/batch?db=${db}&results=false`, lines.join("\n") + "\n");
    }
  }

  async stop(signal = "SIGTERM") {
    this.process.kill(signal);
    await this.exited;
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export function tokenFile(lines) {
  const directory = mkdtempSync(join(tmpdir(), "cht_tokens."));
  const path = join(directory, "tokens");
  writeFileSync(path, lines.join("\n") + "\n", { mode: 0o600 });
  return { path, remove: () => rmSync(directory, { recursive: true, force: true }) };
}

/** Debian's Chromium. What its pages ask, say and violate is collected, and looked at by `clean`. */
export class Browser {
  static async start() {
    const own = new Browser();
    const path = ["/usr/bin/chromium", "/usr/lib/chromium/chromium"].find(existsSync);
    own.browser = await chromium.launch({ executablePath: path, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"], timeout: 2 * PATIENCE });
    own.asked = [];
    own.wrong = [];
    mkdirSync(shots, { recursive: true });
    return own;
  }

  /** A page of its own, as a person opens one. */
  async page(server, fragment = "", options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 860 }, acceptDownloads: true, ...options });
    context.setDefaultTimeout(PATIENCE);
    await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: server.url });
    const page = await context.newPage();
    page.on("request", (request) => this.asked.push([request.method(), request.url(), server.url]));
    page.on("pageerror", (error) => this.wrong.push("error: " + error.stack));
    page.on("console", (message) => {
      if (/Content Security Policy|Content-Security-Policy/.test(message.text())) this.wrong.push(message.text());
    });
    await page.addInitScript(() => delete window.showSaveFilePicker); // a dialog of the system, which no script can answer
    await page.goto(server.url + "/console/" + fragment);
    return page;
  }

  /** Nothing was asked of another host or that is not in the contract, no script failed, and nothing met the policy. */
  async clean(server) {
    const contract = yaml.load(await server.ask("GET", "/openapi.yaml"));
    const calls = [];
    for (const [path, item] of Object.entries(contract.paths)) for (const method of Object.keys(item)) calls.push([method.toUpperCase(), new RegExp("^" + path.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{\w+\}/g, ".*") + "$")]);
    const foreign = this.asked.filter(([method, url, base]) => {
      if (url.startsWith("blob:" + base)) return false;
      const path = url.startsWith(base + "/") && new URL(url).pathname;
      return !path || !calls.some(([known, shape]) => known === method && shape.test(path));
    });
    return { foreign, wrong: this.wrong };
  }

  async stop() {
    await this.browser.close();
  }
}

export const shoot = (page, name) => page.screenshot({ path: join(shots, name + ".png") });

/** What axe finds on the page as it is. */
export async function violations(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const moving = document.getAnimations(); // what fades is looked at as it is at first: half of a fade has any contrast
    for (const one of moving) {
      one.pause();
      one.currentTime = 0;
    }
    const result = await window.axe.run(document, { resultTypes: ["violations"] });
    for (const one of moving) one.play();
    return result;
  });
  return found.violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html + " " + node.failureSummary).join(" | ").slice(0, 600)}`);
}
