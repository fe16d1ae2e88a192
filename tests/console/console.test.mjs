// The page /console/ in Debian's Chromium: each task as a person does it. Run by tests/console/run.sh.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { after, before, describe, it, test } from "node:test";
import { Browser, PATIENCE, Server, shoot, tokenFile, until, violations } from "./support.mjs";

const LONG = Boolean(process.env.CHT_TEST_LONG);
const TOKENS = { read: "reads-and-no-more-00", write: "writes-in-one-place-0", admin: "may-do-everything-000" };
let server, guarded, browser, tokens;

before(async () => {
  tokens = tokenFile([`${TOKENS.read} read *`, `${TOKENS.write} write shop`, `${TOKENS.admin} admin *`]);
  [server, guarded, browser] = await Promise.all([Server.start(), Server.start("--tokens", tokens.path), Browser.start()]);
  await guarded.ask("PUT", "/pairs/secret:name?db=default", "v", { Authorization: "Bearer " + TOKENS.admin });
});
after(async () => {
  await Promise.all([server?.stop(), guarded?.stop(), browser?.stop()]);
  tokens?.remove();
});

const button = (page, name) => page.getByRole("button", { name, exact: true });
const shown = (page, text) => page.getByText(text).first().waitFor();
const question = (page) => page.getByRole("textbox", { name: /^(Words|Tokens)/ });
const speaks = async () => /operationId: vocabulary/.test(await server.ask("GET", "/openapi.yaml")); // words, not tokens alone
async function view(page, name) {
  await page.getByRole("navigation", { name: "Views" }).getByRole("link", { name, exact: true }).click();
  await page.getByRole("heading", { name, level: 2 }).waitFor();
}
async function accessible(page, where) {
  assert.deepEqual(await violations(page), [], where);
}

test("the sample is loaded with one button, and the tour shows it in five steps", { timeout: 4 * PATIENCE }, async () => {
  const page = await browser.page(server);
  await button(page, "Load the sample").click();
  await button(page, "Begin the tour").click();
  const seen = ["greeting:", "Counts, order 1", /^Order [23]/, "Perplexity", "GET /pairs/{pair}"];
  for (let step = 1; step <= 5; step++) {
    await shown(page, `Step ${step} of 5`);
    await page.locator("main").getByText(seen[step - 1]).locator("visible=true").first().waitFor();
    await shoot(page, "tour-" + step);
    await accessible(page, "step " + step);
    if (step < 5) await page.getByRole("link", { name: "Next step" }).click();
  }
  await button(page, "Send").click();
  await shown(page, "The answer is whole.");
  await page.getByRole("link", { name: "End the tour" }).click();
  assert.equal(await page.getByText("Step 5").count(), 0);
  assert.equal(await page.getByRole("combobox", { name: "Database" }).inputValue(), "sample");
  assert.ok(JSON.parse(await server.ask("GET", "/databases/sample")).pairs > 1000);
  await page.context().close();
});

// Each of these has pages of its own, and needs no more than the sample.
describe("tasks", { concurrency: 2 }, () => {
  it("browsing: groups with counts, values decoded, by keyboard, kept by a reload", { timeout: 4 * PATIENCE }, async () => {
    const page = await browser.page(server, "#/browse?db=sample");
    const list = page.getByRole("listbox", { name: "Names" });
    const counts = list.getByRole("option").filter({ hasText: /^cnt:/ });
    const total = JSON.parse(await server.ask("GET", "/pairs/cnt:?count=true&db=sample")).pairs;
    await counts.waitFor();
    assert.match(await counts.innerText(), new RegExp("\\b" + total + "\\b"));
    await shoot(page, "browse");

    await list.focus();
    await list.press("Home");
    const names = await list.getByRole("option").allInnerTexts();
    const at = names.findIndex((text) => text.startsWith("greeting:"));
    for (let i = 0; i < at; i++) await list.press("ArrowDown");
    await list.press("Enter");
    await list.getByRole("option").filter({ hasText: "greeting:ja" }).click();
    await shown(page, "\u3053\u3093\u306b\u3061\u306f");
    assert.match(page.url(), /prefix=greeting%3A/);
    await page.reload();
    await shown(page, "\u3053\u3093\u306b\u3061\u306f");
    await button(page, "all names").click();
    await list.getByRole("option").filter({ hasText: "topk:" }).waitFor();

    const decoded = [["user:1", "JSON"], ["cnt:1:__root__", "Counts, order 1"], ["prob:1:__root__", "Probabilities, order 1"], ["topk:1:__root__", "Top-K, order 1"], ["ctx:__root__", "Context of 0 tokens"]];
    for (const [name, title] of decoded) {
      await page.goto(server.url + "/console/#/browse?db=sample&name=" + encodeURIComponent(name));
      await page.getByRole("heading", { name: title }).waitFor();
    }
    const value = page.getByRole("region", { name: "Value" });
    await page.goto(server.url + "/console/#/browse?db=sample&name=" + encodeURIComponent("cnt:1:__root__"));
    await page.getByRole("heading", { name: "Counts, order 1" }).waitFor();
    const best = JSON.parse((await server.ask("GET", "/reduce/totals/cnt:1:?db=sample&sort=count&limit=1")).split("\n")[0]);
    const cells = await value.getByRole("row").nth(1).getByRole("cell").allInnerTexts();
    assert.deepEqual([cells[0].match(/\d+/)[0], cells[1]], [String(best.token), String(best.count)]);
    await accessible(page, "a value");

    await page.getByRole("combobox", { name: "Grouped by" }).selectOption("byte");
    await list.getByText("c", { exact: true }).waitFor();
    await page.getByRole("textbox", { name: /^Prefix/ }).fill("x123");
    await button(page, "Show").click();
    await shown(page, "invalid_hex");
    await page.context().close();
  });

  it("a name is stored, its value edited and deleted", { timeout: 4 * PATIENCE }, async () => {
    const page = await browser.page(server, "#/browse?db=shop");
    await button(page, "New pair").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name").fill("apple:red");
    await dialog.getByLabel("Value").fill("sweet");
    await accessible(page, "the dialog");
    await button(dialog, "Store it").click();
    const value = page.getByRole("region", { name: "Value" });
    await value.getByText("sweet").waitFor();
    assert.equal(await server.ask("GET", "/pairs/apple:red?exact=true&db=shop", undefined, { Accept: "application/octet-stream" }), "sweet");
    await button(value, "Edit the value").click();
    await value.getByLabel("Value as text").fill("sour \u2013 s\u00fc\u00df");
    await button(value, "Save the value").click();
    await value.getByText("sour \u2013 s\u00fc\u00df").waitFor();
    const raw = { "Content-Type": "application/octet-stream" }; // what others write is not lost, nor the end of a pair that ends
    await button(value, "Edit the value").click();
    await server.ask("PUT", "/pairs/apple:red?db=shop&ttl=1000", "theirs", raw);
    await button(value, "Save the value").click();
    await value.getByText("nothing was written").waitFor();
    assert.equal(await server.ask("GET", "/pairs/apple:red?exact=true&db=shop", undefined, { Accept: "application/octet-stream" }), "theirs");
    await button(value, "Leave it as it was").click();
    await value.getByText("theirs").waitFor();
    await button(value, "Edit the value").click();
    await value.getByLabel("Value as text").fill("mine");
    await button(value, "Save the value").click();
    await value.getByText("mine").waitFor();
    assert.ok(JSON.parse(await server.ask("GET", "/pairs/apple:red?exact=true&db=shop")).expires > Date.now() / 1000);
    await button(page, "New pair").click();
    await dialog.getByLabel("Name").fill("apple:red");
    await dialog.getByLabel("Value").fill("a slip");
    await button(dialog, "Store it").click();
    await dialog.getByText("has a value already").waitFor();
    assert.equal(await server.ask("GET", "/pairs/apple:red?exact=true&db=shop", undefined, { Accept: "application/octet-stream" }), "mine");
    await button(dialog, "Replace it").click();
    await value.getByText("a slip").waitFor();
    await button(value, "Edit the value").click();
    await value.getByLabel("Value as text").fill("sour \u2013 s\u00fc\u00df");
    await button(value, "Save the value").click();
    await value.getByText("sour \u2013 s\u00fc\u00df").waitFor();
    const [download] = await Promise.all([page.waitForEvent("download"), button(value, "Download the value").click()]);
    assert.equal(readFileSync(await download.path(), "utf8"), "sour \u2013 s\u00fc\u00df");
    await button(value, "Delete this pair").click();
    await button(page.getByRole("dialog"), "Keep it").click();
    await button(value, "Delete this pair").click();
    await button(page.getByRole("dialog"), "Delete it").click();
    await shown(page, "0 pairs under");
    await page.context().close();
  });

  it("following: what others change comes by itself, also to the value that is open, and not to what is being written", { timeout: 4 * PATIENCE }, async () => {
    const put = (name, value) => server.ask("PUT", `/pairs/${name}?db=follow`, value, { "Content-Type": "application/octet-stream" });
    await put("fruit:apple", "red");
    const page = await browser.page(server, "#/browse?db=follow");
    const list = page.getByRole("listbox", { name: "Names" });
    await list.getByRole("option").filter({ hasText: "fruit:" }).click();
    await button(page, "Follow changes").click();
    const changes = page.getByRole("region", { name: "Changes" });
    await changes.getByText("Nothing has changed yet.").waitFor();
    await put("fruit:pear", "green");
    await put("other", "not under the prefix");
    await list.getByRole("option").filter({ hasText: "fruit:pear" }).waitFor();
    await shown(page, "2 pairs under");
    const first = changes.getByRole("row").nth(1);
    assert.match(await first.innerText(), /put\s+fruit:pear/);
    await changes.getByRole("button", { name: "fruit:pear" }).click();
    const value = page.getByRole("region", { name: "Value" });
    await value.getByText("green").waitFor();
    await put("fruit:pear", "yellow");
    await value.getByText("yellow").waitFor();
    await shoot(page, "follow");
    await accessible(page, "following");
    await button(value, "Edit the value").click();
    await value.getByLabel("Value as text").fill("mine");
    await put("fruit:pear", "brown");
    await value.getByText("changed meanwhile").waitFor();
    assert.equal(await value.getByLabel("Value as text").inputValue(), "mine");
    await server.ask("DELETE", "/pairs/fruit:apple?db=follow&values=true");
    await changes.getByRole("row").filter({ hasText: "deleted" }).filter({ hasText: "fruit:apple" }).waitFor();
    await list.getByRole("option").filter({ hasText: "fruit:apple" }).waitFor({ state: "detached" });
    assert.equal(await changes.getByRole("row").filter({ hasText: "other" }).count(), 0);
    await button(page, "Follow changes").click();
    await changes.waitFor({ state: "detached" });
    await put("fruit:plum", "blue");
    await page.waitForTimeout(700);
    assert.equal(await list.getByText("fruit:plum").count(), 0);
    await button(page, "Read again").click();
    await list.getByText("fruit:plum").waitFor();
    await page.context().close();
  });

  it("many names are paged through, and few of them are in the page", { timeout: LONG ? 40 * PATIENCE : 8 * PATIENCE }, async () => {
    const many = LONG ? 1000000 : 260000; // more than a browser draws as one element
    await server.fill("many", Array.from({ length: many }, (_, i) => "name" + String(i).padStart(7, "0")));
    const page = await browser.page(server, "#/browse?db=many");
    const list = page.getByRole("listbox", { name: "Names" });
    await list.getByText("name0000000").waitFor();
    // How long frames take, first while nothing happens, then while somebody scrolls to the end.
    await page.evaluate(() => {
      window.frames9 = () => {
        const sorted = window.late.splice(0).sort((a, b) => a - b);
        return sorted[Math.floor(sorted.length * 0.9)] ?? 0;
      };
      window.late = [];
      let last = performance.now();
      const frame = (now) => {
        window.late.push(now - last);
        last = now;
        requestAnimationFrame(frame);
      };
      requestAnimationFrame(frame);
    });
    await page.waitForTimeout(1000);
    const idle = await page.evaluate(() => window.frames9());
    const end = "name" + String(many - 1).padStart(7, "0");
    await until("the last name", async () => {
      await list.evaluate((element) => (element.scrollTop = element.scrollHeight));
      assert.ok((await list.getByRole("option").count()) < 120);
      return (await list.getByText(end).count()) > 0;
    }, LONG ? 20 * PATIENCE : 2 * PATIENCE);
    const usual = await page.evaluate(() => window.frames9());
    assert.ok(usual < 10 * idle + 200, `nine of ten frames took up to ${usual} ms, ${idle} ms at rest`);
    await list.getByText(end).click();
    await page.getByRole("region", { name: "Value" }).getByText("it has no value").waitFor();
    await list.focus();
    await list.press("Home");
    await list.getByText("name0000000").waitFor();
    await page.getByRole("textbox", { name: /^Go on after/ }).fill("name0020000");
    await button(page, "Show").click();
    await list.getByText("name0020001").waitFor();
    await shoot(page, "many");
    await page.context().close();
  });

  it("the model: candidates, levels, a candidate chosen, scores, similar contexts, and what cannot be answered", { timeout: 4 * PATIENCE }, async () => {
    const page = await browser.page(server, "#/model?db=sample");
    await question(page).fill("4 4");
    await button(page, "Predict").click();
    const deepest = page.getByRole("region", { name: "Candidates of order 3" });
    await deepest.waitFor();
    const asked = JSON.parse(await server.ask("POST", "/predict?db=sample", '{"tokens":[4,4],"k":20}'));
    assert.match(await deepest.innerText(), new RegExp(asked.candidates[0].p.toPrecision(3)));
    await shoot(page, "model");
    await deepest.getByRole("button", { name: "Go on with token " + asked.candidates[0].token }).click();
    await page.waitForFunction((token) => new URLSearchParams(location.hash.split("?")[1]).get("q") === "4 4 " + token, asked.candidates[0].token);
    await page.getByRole("combobox", { name: "Answered by" }).selectOption("levels");
    for (const order of [3, 2, 1]) await page.getByRole("region", { name: "Candidates of order " + order }).waitFor();
    await accessible(page, "levels");
    await question(page).fill("4 4 5 6");
    await page.getByRole("combobox", { name: "Answered by" }).selectOption("");
    await button(page, "Score").click();
    const score = page.getByRole("region", { name: "Score" });
    await score.waitFor();
    assert.equal(await score.getByRole("listitem").count(), 4);
    assert.match(await score.innerText(), /order [123]/);
    await shoot(page, "score");
    await accessible(page, "the score");
    await question(page).fill("8 12");
    await page.getByRole("combobox", { name: "Order of similar contexts" }).selectOption("2");
    await button(page, "Similar contexts").click();
    const alike = page.getByRole("region", { name: "Similar contexts" });
    await alike.getByRole("row").nth(1).waitFor();
    await shown(page, (await speaks()) ? "Followed like what" : "Followed like 12");
    await shoot(page, "similar");
    await question(page).fill("2 tyger");
    if (await speaks()) await page.getByRole("combobox", { name: "Read as" }).selectOption("tokens");
    await button(page, "Predict").click();
    await shown(page, "invalid_tokens");
    await page.goto(server.url + "/console/#/model?db=nobody&q=2+3");
    await shown(page, "database_not_found");
    await page.context().close();
  });

  it("words: candidates, a text scored, contexts alike, and a text counted", { timeout: 4 * PATIENCE }, async (t) => {
    if (!(await speaks())) return t.skip("the server has no words");
    const page = await browser.page(server, "#/model?db=sample");
    await question(page).fill("the forests of");
    await button(page, "Predict").click();
    await page.getByRole("button", { name: "Go on with word the" }).click();
    await page.waitForFunction(() => new URLSearchParams(location.hash.split("?")[1]).get("q") === "the forests of the");
    await page.getByRole("button", { name: "Go on with word night" }).waitFor();
    await shoot(page, "words");
    await question(page).fill("tyger tyger burning quietly");
    await button(page, "Score").click();
    const score = page.getByRole("region", { name: "Score" });
    await score.getByText("burning", { exact: true }).waitFor();
    const texts = await score.getByRole("listitem").allInnerTexts();
    assert.equal(texts.length, 4);
    assert.match(texts[1], /^tyger\s+-\d/);
    assert.match(texts[3], /nowhere/);
    await shoot(page, "score-words");
    await question(page).fill("in the");
    await page.getByRole("combobox", { name: "Order of similar contexts" }).selectOption("2");
    await button(page, "Similar contexts").click();
    await shown(page, "Followed like the");
    await page.getByRole("region", { name: "Similar contexts" }).getByRole("row").nth(1).waitFor();
    await page.goto(server.url + "/console/#/learn?db=said");
    await page.getByRole("textbox", { name: /^Documents/ }).fill("to be or not to be\nthat is the question");
    await button(page, "Count").click();
    await page.getByRole("cell", { name: /^to \(/ }).waitFor();
    assert.match(await server.ask("GET", "/vocabulary?db=said"), /"word":"question"/);
    await page.context().close();
  });

  it("links and matrices: values decoded, from one to the next, and what belongs together", { timeout: 4 * PATIENCE }, async () => {
    const texts = ["the old house stood", "the old barn stood", "a new house fell", "a new barn fell", "the old tree stood"];
    const lines = texts.map((text) => JSON.stringify({ text })).join("\n") + "\n";
    await server.ask("PUT", "/databases/related");
    await server.ask("POST", "/ngrams?db=related&text=true&order=2", lines, { "Content-Type": "application/x-ndjson" });
    await server.ask("POST", "/reduce/links/cnt:?db=related");
    await server.ask("POST", "/reduce/matrix/cnt:?db=related&metric=count");
    const words = (await server.ask("GET", "/vocabulary?db=related")).split("\n").filter((line) => line.includes('"word"')).map((line) => JSON.parse(line));
    const house = words.find((line) => line.word === "house").token;
    const shownLinks = (await server.ask("GET", "/reduce/links/cnt:2:?db=related&text=true")).split("\n").filter((line) => line.includes('"links"')).map((line) => JSON.parse(line));
    const of = shownLinks.find((line) => line.words?.[0] === "house");
    const page = await browser.page(server, "#/model?db=related");
    await question(page).fill("house");
    await page.getByRole("combobox", { name: "Order of similar contexts" }).selectOption("2");
    await button(page, "What belongs together").click();
    const panel = page.getByRole("region", { name: "What belongs together" });
    await panel.getByRole("row").nth(1).waitFor();
    const rows = (await panel.getByRole("row").allInnerTexts()).map((text) => text.split(/\t|\n/).filter((cell) => cell.trim() !== ""));
    assert.deepEqual(rows.filter((row) => row[0] === "related context").slice(0, 1), [["related context", "cosine", "barn", "1"]]);
    assert.ok(rows.some((row) => row.join(" ") === "comes before it count old 1") && rows.some((row) => row.join(" ") === "comes after it p fell 0.5"), JSON.stringify(rows));
    assert.equal(rows.filter((row) => row[0] === "related context").length, Math.min(10, of.links.length));
    await shoot(page, "related");
    await accessible(page, "what belongs together");
    const row = "x" + Buffer.from("mat:2:").toString("hex") + house.toString(16).padStart(8, "0");
    await page.goto(server.url + "/console/#/browse?db=related&name=" + row);
    await page.getByRole("heading", { name: /^Row of the matrix of order 2, count: 2 tokens after it/ }).waitFor();
    await page.getByRole("cell", { name: /^fell \(/ }).waitFor();
    const link = "x" + Buffer.from("link:cosine:").toString("hex") + Buffer.from(of.pair ?? "", "base64").subarray(12).toString("hex");
    await page.goto(server.url + "/console/#/browse?db=related&name=" + link);
    await page.getByRole("heading", { name: /^Links: / }).waitFor();
    await page.getByRole("region", { name: "Value" }).getByRole("row").nth(1).getByRole("button").click();
    await page.getByRole("heading", { name: "Counts, order 2" }).waitFor();
    await page.context().close();
  });

  it("a live model: made, counted into, asked, and only what it answers is offered", { timeout: 4 * PATIENCE }, async () => {
    const page = await browser.page(server, "#/manage?db=default");
    await page.getByRole("textbox", { name: "Name letters", exact: false }).fill("lively");
    await page.getByRole("combobox", { name: /^Live model/ }).selectOption("3");
    await button(page, "Create").click();
    await page.getByRole("heading", { name: "lively", level: 3 }).waitFor();
    assert.equal(JSON.parse(await server.ask("GET", "/databases/lively")).live.order, 3);
    await page.goto(server.url + "/console/#/learn?db=lively");
    if (await speaks()) await page.getByRole("combobox", { name: "Documents are" }).selectOption("tokens");
    await page.getByRole("textbox", { name: /^Documents/ }).fill("2 5 6 7 3\n2 5 6 8 3\n");
    await button(page, "Count").click();
    await page.getByText("documents", { exact: true }).waitFor();
    await page.goto(server.url + "/console/#/model?db=lively&q=2+5+6");
    const found = page.getByRole("region", { name: "Candidates of order 3" });
    await found.waitFor();
    const asked = JSON.parse(await server.ask("POST", "/predict?db=lively", '{"tokens":[2,5,6],"k":20}'));
    const row = await found.getByRole("row").nth(1).getByRole("cell").allInnerTexts();
    assert.deepEqual([row[0], row[1], row[3]], [String(asked.candidates[0].token), asked.candidates[0].p.toPrecision(3), String(asked.candidates[0].order)]);
    const modes = await page.getByRole("combobox", { name: "Answered by" }).locator("option").evaluateAll((all) => all.map((one) => one.value));
    assert.deepEqual(modes, ["", "levels"]);
    await button(page, "Score").click();
    await page.getByRole("region", { name: "Score" }).getByText("Perplexity").waitFor();
    await shoot(page, "live");
    await page.context().close();
  });

  it("counting and smoothing, with what came of it", { timeout: 4 * PATIENCE }, async () => {
    const page = await browser.page(server, "#/learn?db=learnt");
    if (await speaks()) await page.getByRole("combobox", { name: "Documents are" }).selectOption("tokens");
    await page.getByRole("textbox", { name: /^Documents/ }).fill('2 4 5 6 3\n{"tokens":[2,4,7,3]}\n');
    await button(page, "Count").click();
    await page.getByText("contexts created").waitFor();
    assert.equal(JSON.parse(await server.ask("GET", "/pairs/cnt:?count=true&db=learnt")).pairs > 5, true);
    await button(page, "Smooth").click();
    const table = page.getByRole("table", { name: "Smoothed" });
    await table.getByRole("row").nth(3).waitFor();
    assert.ok((await page.getByRole("progressbar").count()) >= 1);
    await shown(page, "Done.");
    await shoot(page, "learn");
    await accessible(page, "learn");
    await page.getByRole("textbox", { name: /^Documents/ }).fill("2 word 3");
    await button(page, "Count").click();
    await shown(page, "line 1");
    await page.context().close();
  });

  it("documents are counted once, although the browser sends them again after a lost answer", { timeout: 4 * PATIENCE }, async () => {
    let posts = 0;
    const between = createServer((asked, answer) => {
      const onwards = request(server.url + asked.url, { method: asked.method, headers: asked.headers }, (came) => {
        if (asked.method === "POST" && asked.url.startsWith("/ngrams") && posts++ === 0) return came.resume().on("end", () => asked.socket.destroy());
        answer.writeHead(came.statusCode, came.headers);
        came.pipe(answer);
      });
      asked.pipe(onwards);
    });
    await new Promise((done) => between.listen(0, "127.0.0.1", done));
    const page = await browser.page({ url: "http://127.0.0.1:" + between.address().port }, "#/learn?db=counted-once");
    if (await speaks()) await page.getByRole("combobox", { name: "Documents are" }).selectOption("tokens");
    await page.getByRole("textbox", { name: /^Documents/ }).fill("7 7 7 7");
    await button(page, "Count").click();
    await page.getByLabel("Counted", { exact: true }).waitFor();
    assert.equal(posts, 2);
    assert.match(await server.ask("GET", "/reduce/totals/cnt:1:?db=counted-once"), /"token":7,"count":4,/);
    await page.context().close();
    between.close();
    between.closeAllConnections();
  });

  it("every call of the contract is a form; a stream has its rate, is cancelled, downloaded, and copied as curl and as Python", { timeout: 6 * PATIENCE }, async () => {
    const page = await browser.page(server, "#/calls?db=sample");
    const call = page.getByRole("combobox", { name: "Call" });
    await call.waitFor();
    const contract = await server.ask("GET", "/openapi.yaml");
    const ids = [...contract.matchAll(/^      operationId: (\w+)/gm)].map((found) => found[1]);
    const options = await call.locator("option").evaluateAll((all) => all.map((one) => one.value));
    assert.deepEqual([...options].sort(), [...ids].sort());
    for (const id of options) {
      await call.selectOption(id);
      await button(page, "Send").waitFor();
    }
    await call.selectOption("scanPairs");
    await page.getByRole("textbox", { name: /^pair/ }).fill("greeting:");
    await page.getByRole("combobox", { name: "values" }).selectOption("true");
    await button(page, "Send").click();
    await shown(page, "The answer is whole.");
    const body = await page.getByLabel("Body of the answer").innerText();
    assert.equal(body.trim().split("\n").length, 5);
    const [download] = await Promise.all([page.waitForEvent("download"), button(page, "Download the answer").click()]);
    assert.equal(readFileSync(await download.path(), "utf8").trim(), body.trim());
    await button(page, "Copy as curl").click();
    await shown(page, "curl copied");
    const curl = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(execFileSync("sh", ["-c", curl], { env: { ...process.env, no_proxy: "*" } }).toString().trim(), body.trim());
    await button(page, "Copy as Python").click();
    await shown(page, "Python copied");
    const python = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(execFileSync("/usr/bin/python3", ["-c", python], { env: { ...process.env, no_proxy: "*" } }).toString().trim(), body.trim());
    await shoot(page, "calls");
    await accessible(page, "calls");

    await call.selectOption("score");
    await button(page, "Send").click();
    await page.getByLabel("Body of the answer").getByText("perplexity").waitFor();
    await button(page, "Copy as curl").click();
    await until("the curl of the score", async () => (await page.evaluate(() => navigator.clipboard.readText())).includes("/score"));
    const scored = execFileSync("sh", ["-c", await page.evaluate(() => navigator.clipboard.readText())], { env: { ...process.env, no_proxy: "*" } }).toString();
    assert.equal(typeof JSON.parse(scored).log10, "number");

    // Text that curl takes for a file, and characters that are two in JavaScript.
    await call.selectOption("insertValue");
    await page.getByRole("combobox", { name: "Body" }).selectOption({ index: 1 }); // raw bytes
    for (const text of ["@/etc/hostname", "caf\u00e9 \u{1f600}"]) {
      await page.getByRole("textbox", { name: "Text of the body" }).fill(text);
      for (const [what, run] of [["curl", ["sh", "-c"]], ["Python", ["/usr/bin/python3", "-c"]]]) {
        await page.evaluate(() => navigator.clipboard.writeText(""));
        await button(page, "Copy as " + what).click();
        await until(what + " of an insert", async () => (await page.evaluate(() => navigator.clipboard.readText())).includes("/kv"));
        const made = JSON.parse(execFileSync(run[0], [run[1], await page.evaluate(() => navigator.clipboard.readText())], { env: { ...process.env, no_proxy: "*" } }).toString());
        const value = JSON.parse(await server.ask("GET", `/kv/${made.key}?db=sample`)).value;
        assert.equal(Buffer.from(value, "base64").toString(), text, what);
      }
    }

    await call.selectOption("readValue");
    await page.getByRole("textbox", { name: /^key/ }).fill("99999999");
    await button(page, "Send").click();
    await page.getByRole("alert").getByText("key_not_found").waitFor();
    await page.context().close();
  });

  it("a stream is cancelled, and one that breaks off says so", { timeout: 6 * PATIENCE }, async () => {
    const doomed = await Server.start();
    let alive = true;
    try {
      await doomed.fill("default", Array.from({ length: 60000 }, () => randomBytes(240))); // which no coding makes shorter
      const page = await browser.page(doomed, "#/calls?op=scanPairs&p.pair=*");
      // A slow line: neither the reader nor the server is done when somebody presses Cancel, or the server is gone.
      const slow = await page.context().newCDPSession(page);
      await slow.send("Network.enable");
      const speed = (bytes) => slow.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: bytes, uploadThroughput: bytes });
      await button(page, "Send").waitFor();
      await speed(400000);
      await button(page, "Send").click();
      await page.getByText(/[1-9][\d,]* lines, /).waitFor();
      await shoot(page, "stream");
      await button(page, "Cancel").click();
      await shown(page, "Cancelled: what is shown is not all.");
      await button(page, "Send").click();
      await button(page, "Cancel").waitFor();
      await page.getByText(/[1-9][\d,]* lines, /).waitFor();
      alive = false;
      await doomed.stop("SIGKILL");
      await speed(-1);
      await shown(page, "The stream broke off before its end");
      await shoot(page, "broken");
      await page.goto(doomed.url + "/console/").catch(() => undefined);
      await page.context().close();
    } finally {
      if (alive) await doomed.stop();
    }
  });

  it("charts: numbers come, at most one request a second, and none while the tab is hidden", { timeout: 4 * PATIENCE }, async () => {
    const page = await browser.page(server, "#/charts?db=sample");
    const asked = [];
    page.on("request", (request) => asked.push([Date.now(), new URL(request.url()).pathname]));
    const memory = page.locator("figure").filter({ hasText: "Memory" });
    await memory.getByText(/resident: [\d.]+ MiB/).waitFor();
    await page.locator("figure").filter({ hasText: "Size of the database" }).getByText(/files: [\d.]+ [KM]iB/).waitFor();
    await shoot(page, "charts");
    await accessible(page, "charts");
    asked.length = 0;
    await until("two more", () => asked.length >= 2);
    assert.ok(asked.every(([, path]) => path === "/metrics"));
    // By the clock of the page: here they may arrive late, and two at once.
    const times = await page.evaluate(() => performance.getEntriesByType("resource").filter((one) => one.name.endsWith("/metrics")).map((one) => one.startTime));
    const gaps = times.slice(1).map((time, i) => time - times[i]);
    assert.ok(gaps.length >= 2 && Math.min(...gaps) >= 1000, "milliseconds between requests: " + gaps);
    const hide = (hidden) =>
      page.evaluate((value) => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => value });
        document.dispatchEvent(new Event("visibilitychange"));
      }, hidden);
    // By the clock of the page again: what was asked after a moment of it.
    const moment = () => page.evaluate(() => performance.now());
    const since = (from) => page.evaluate((from) => performance.getEntriesByType("resource").filter((one) => one.startTime > from).map((one) => one.name), from);
    await hide(true);
    const hidden = await moment();
    await page.waitForTimeout(4000);
    assert.deepEqual(await since(hidden), []);
    asked.length = 0;
    await hide(false);
    await until("requests again", () => asked.length >= 1);
    await page.getByRole("navigation", { name: "Views" }).getByRole("link", { name: "Start" }).click();
    await page.getByRole("heading", { name: "Start", level: 2 }).waitFor();
    await until("Start to have what it asks for", () => page.evaluate(() => performance.now() - Math.max(...performance.getEntriesByType("resource").map((one) => one.responseEnd)) > 1000));
    const rested = await moment();
    await page.waitForTimeout(2500);
    assert.deepEqual(await since(rested), [], "only charts ask by themselves");
    await page.context().close();
  });

  it("a database is made, checkpointed, saved, restored, and dropped by typing its name", { timeout: 6 * PATIENCE }, async () => {
    const page = await browser.page(server, "#/manage?db=default");
    await page.getByRole("textbox", { name: "Name letters", exact: false }).fill("spare");
    await button(page, "Create").click();
    await page.getByRole("heading", { name: "spare", level: 3 }).waitFor();
    await server.ask("PUT", "/pairs/kept?db=spare", "value");
    await button(page, "Take a checkpoint").click();
    await shown(page, "Done in");
    const [download] = await Promise.all([page.waitForEvent("download"), button(page, "Download a backup").click()]);
    assert.equal(download.suggestedFilename(), "spare.backup");
    await shown(page, "spare.backup: ");
    const head = readFileSync(await download.path()).subarray(0, 8).toString("latin1");
    assert.match(head, /^CHEETAH/);
    await page.getByLabel("Backup", { exact: true }).setInputFiles(await download.path());
    await page.getByRole("textbox", { name: "Name of the new database" }).fill("again");
    await button(page, "Restore").click();
    await page.getByRole("heading", { name: "again", level: 3 }).waitFor();
    assert.equal(await server.ask("GET", "/pairs/kept?db=again&exact=true", undefined, { Accept: "application/octet-stream" }), "value");
    await page.getByLabel("Backup", { exact: true }).setInputFiles({ name: "torn.backup", mimeType: "application/octet-stream", buffer: readFileSync(await download.path()).subarray(0, 3000) });
    await page.getByRole("textbox", { name: "Name of the new database" }).fill("torn");
    await button(page, "Restore").click();
    await page.getByRole("alert").getByText("invalid_backup").waitFor();
    await page.getByRole("combobox", { name: "Database" }).selectOption("spare");
    await page.getByRole("heading", { name: "spare", level: 3 }).waitFor();
    await shoot(page, "manage");
    await accessible(page, "manage");
    await button(page, "Drop this database").click();
    const dialog = page.getByRole("dialog");
    assert.ok(await button(dialog, "Drop it").isDisabled());
    await dialog.getByRole("textbox").fill("spar");
    assert.ok(await button(dialog, "Drop it").isDisabled());
    await accessible(page, "drop");
    await shoot(page, "drop");
    await dialog.getByRole("textbox").fill("spare");
    await button(dialog, "Drop it").click();
    await page.getByRole("heading", { name: "Start", level: 2 }).waitFor();
    assert.ok(!JSON.parse(await server.ask("GET", "/databases")).databases.includes("spare"));
    await page.context().close();
  });

  it("an address from elsewhere: what is no view and no name of a database is not taken", { timeout: 4 * PATIENCE }, async () => {
    await server.ask("PUT", "/pairs/queue:kept?db=default", "v");
    const page = await browser.page(server, "#/manage?db=" + encodeURIComponent("../reduce/queue-drain/queue:#"));
    await button(page, "Take a checkpoint").click();
    await shown(page, /^Done in/);
    assert.match(await server.ask("GET", "/pairs/queue:kept?exact=true&db=default"), /"key"/);
    assert.equal(await page.getByRole("combobox", { name: "Database" }).inputValue(), "default");
    for (const name of ["constructor", "__proto__", "nothing"]) {
      await page.goto(server.url + "/console/#/" + name);
      await page.reload();
      await page.getByRole("heading", { name: "Start", level: 2 }).waitFor();
    }
    await page.context().close();
  });

  it("without a token nothing is shown; a wrong one is told; the right one is kept for the tab only", { timeout: 4 * PATIENCE }, async () => {
    const page = await browser.page(guarded, "#/browse");
    await page.getByRole("alert").getByText("unauthorized").waitFor();
    assert.equal(await page.getByRole("navigation", { name: "Views" }).getByRole("link").count(), 0);
    assert.ok(!(await page.content()).includes("secret:"));
    await accessible(page, "the token");
    await shoot(page, "token");
    await page.getByLabel("Token", { exact: false }).last().fill("this-is-not-a-token-at-all");
    await button(page, "Use this token").click();
    await page.getByRole("alert").getByText("unauthorized").waitFor();
    await page.locator("input[type=password]").fill(TOKENS.admin);
    await button(page, "Use this token").click();
    await page.getByRole("listbox", { name: "Names" }).getByText("secret:").waitFor();
    const kept = await page.evaluate(() => [JSON.stringify(localStorage), document.cookie, location.href, JSON.stringify(sessionStorage)]);
    assert.ok(kept.slice(0, 3).every((text) => !text.includes(TOKENS.admin)) && kept[3].includes(TOKENS.admin));
    await page.reload();
    await page.getByRole("listbox", { name: "Names" }).getByText("secret:").waitFor();
    const second = await page.context().newPage();
    await second.goto(guarded.url + "/console/#/browse");
    await second.getByRole("alert").getByText("unauthorized").waitFor();
    await page.context().close();
  });

  it("a token that only reads sees no control that writes", { timeout: 4 * PATIENCE }, async () => {
    const writes = /^(Load the sample|New pair|Edit|Save|Delete|Count|Smooth|Take a checkpoint|Download a backup|Create|Restore|Drop)/;
    const page = await browser.page(guarded, "#/start");
    await page.locator("input[type=password]").fill(TOKENS.read);
    await button(page, "Use this token").click();
    await shown(page, "Token: read");
    for (const name of ["Start", "Browse", "Model", "Learn", "Charts", "Database"]) {
      await view(page, name);
      if (name === "Browse") {
        await page.getByRole("listbox", { name: "Names" }).getByText("secret:").click();
        await page.getByRole("listbox", { name: "Names" }).getByText("secret:name").click();
        await button(page, "Download the value").waitFor();
      }
      const found = (await page.getByRole("button").allInnerTexts()).filter((text) => writes.test(text));
      assert.deepEqual(found, [], name);
    }
    await view(page, "Calls");
    const call = page.getByRole("combobox", { name: "Call" });
    await button(page, "Send").waitFor();
    const offered = await call.locator("option").evaluateAll((all) => all.map((one) => one.value));
    const contract = await server.ask("GET", "/openapi.yaml");
    const rights = Object.fromEntries([...contract.matchAll(/^      operationId: (\w+)\n      x-right: (\w+)/gm)].map((found) => [found[1], found[2]]));
    const reading = Object.keys(rights).filter((id) => rights[id] === "read" || rights[id] === "open");
    assert.ok(reading.length > 10 && reading.length < Object.keys(rights).length);
    assert.deepEqual([...offered].sort(), reading.sort());

    const writer = await browser.page(guarded, "#/browse?db=shop");
    await writer.locator("input[type=password]").fill(TOKENS.write);
    await button(writer, "Use this token").click();
    await button(writer, "New pair").waitFor();
    await view(writer, "Database");
    assert.equal(await button(writer, "Drop this database").count(), 0);
    await writer.goto(guarded.url + "/console/#/browse?db=default");
    await writer.getByRole("alert").getByText("forbidden").first().waitFor();
    await page.context().close();
    await writer.context().close();
  });

  it("light and dark, and on a phone: nothing is cut off, nothing breaks the rules of accessibility", { timeout: 8 * PATIENCE }, async () => {
    const views = ["start", "browse", "model", "learn", "calls", "charts", "manage"];
    for (const [name, options] of [["dark", { colorScheme: "dark" }], ["phone", { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }]]) {
      const page = await browser.page(server, "#/start?db=sample", options);
      for (const one of views) {
        await page.goto(server.url + "/console/#/" + one + "?db=sample" + (one === "model" ? "&q=2+4" : ""));
        await page.locator("main .panel, main .list, main .field").first().waitFor();
        await page.waitForTimeout(200);
        await shoot(page, name + "-" + one);
        if (name === "dark" || one === "browse" || one === "calls") await accessible(page, name + " " + one);
        const [wide, width] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
        assert.ok(wide <= width, `${name} ${one}: ${wide} of ${width} pixels`);
      }
      await page.context().close();
    }
    const page = await browser.page(server, "#/start", { colorScheme: "dark" });
    const back = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    const dark = await back();
    await page.getByRole("combobox", { name: "Colours" }).selectOption("light");
    await until("light", async () => (await back()) !== dark);
    await page.reload();
    await until("light again", async () => (await back()) !== dark);
    await page.context().close();
  });
});

test("all that was asked is in the contract and of this server; no script failed, nothing met the policy", { timeout: PATIENCE }, async () => {
  assert.ok(browser.asked.length > 100);
  assert.deepEqual(await browser.clean(server), { foreign: [], wrong: [] });
});
