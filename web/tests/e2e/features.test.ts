// Every feature once: on a desktop in light, on a phone in dark, and by keyboard alone.
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Download, Page, Request } from "playwright-core";
import { describe, expect, it } from "vitest";
import { seriousProblems } from "./axe";
import { answered, ask, asking, endless, lastAnswer, openMenu, shot, textOf, until } from "./browser";
import { Visits } from "./visits";

const visits = new Visits();
const { open } = visits;
const isChat = (request: Request): boolean => request.url().endsWith("/v1/chat/completions");

const kCalculator = `{"name":"calculator","description":"Exact arithmetic with two numbers.","parameters":{"type":"object",
  "properties":{"operation":{"type":"string","enum":["add","subtract","multiply","divide"]},"a":{"type":"number"},
  "b":{"type":"number"}},"required":["operation","a","b"]}}`;

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

// The text of a download that an entry of the conversations' menu starts.
async function exported(page: Page, entry: string): Promise<{ download: Download; text: string }> {
  await openMenu(page);
  await page.locator(".conversations").getByRole("button", { name: "More" }).click();
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("menuitem", { name: entry, exact: true }).click(),
  ]);
  await page.keyboard.press("Escape"); // a phone's menu
  return { download, text: await readFile(await download.path(), "utf8") };
}

for (const [size, scheme] of [
  ["desktop", "light"],
  ["phone", "dark"],
] as const) {
  describe(`chat, ${size}, ${scheme}`, () => {
    it("streams, and stops", async () => {
      const page = await open(size, scheme);
      if (!visits.stage.mock) await endless(page);
      // Without thinking, which folds when it ends: what is shown would then be less than before.
      await page.getByRole("switch", { name: "Thinking" }).focus();
      await page.keyboard.press("Space");
      await ask(page, visits.stage.mock ? "!slow" : "What is 811 + 663?");
      const length = async (): Promise<number> => (await lastAnswer(page)).length;
      await page.waitForSelector(".answer .markdown");
      const early = await length();
      await expect.poll(length).toBeGreaterThan(early);
      await shot(page, `streaming-${size}`);
      await page.getByRole("button", { name: "Stop" }).click();
      await answered(page);
      expect(await textOf(page.locator(".answer"))).toContain("Stopped.");
      expect(await length()).toBeGreaterThan(early);
      if (visits.stage.mock) await expect.poll(() => visits.stage.mock?.aborted).toBeGreaterThan(0);
      else {
        // The server stops as well.
        const running = async (): Promise<string | undefined> =>
          /^fathom_num_requests_running\S* (\d+)/m.exec(await (await fetch(`${visits.stage.url}/metrics`)).text())?.[1];
        await expect.poll(running).toBe("0");
      }
    });

    it("edits, regenerates and goes between versions", async () => {
      const page = await open(size, scheme);
      await ask(page, "What is 1 + 2?");
      await answered(page);
      await page.getByRole("button", { name: "Regenerate" }).click();
      await page.getByRole("img", { name: "Version 2 of 2" }).waitFor();
      await answered(page);
      await page.getByRole("button", { name: "Previous version" }).click();
      await page.getByRole("img", { name: "Version 1 of 2" }).waitFor();
      await page.locator(".message.user").hover();
      await page.getByRole("button", { name: "Edit" }).click();
      await page.getByRole("textbox", { name: "Edit the message" }).fill("What is 3 + 4?");
      await page.keyboard.press("Enter");
      await answered(page);
      expect(await textOf(page.locator(".message.user .bubble"))).toContain("3 + 4");
      await shot(page, `branches-${size}`);
      await page.getByRole("button", { name: "Previous version" }).first().click();
      await expect.poll(() => textOf(page.locator(".message.user .bubble"))).toContain("1 + 2");
    });

    it("switches thinking, and sends system prompt and sampling", async () => {
      const page = await open(size, scheme);
      const sent: Record<string, unknown>[] = [];
      page.on("request", (request) => isChat(request) && sent.push(request.postDataJSON() as Record<string, unknown>));
      await page.getByRole("switch", { name: "Thinking" }).focus();
      await page.keyboard.press("Space");
      await page.getByRole("button", { name: "Settings" }).click();
      await page.getByRole("textbox", { name: "System prompt" }).fill("Answer in digits.");
      await page.getByText("Sampling", { exact: true }).click();
      await page.getByRole("spinbutton", { name: "Temperature" }).fill("0");
      await page.getByRole("spinbutton", { name: "Most tokens" }).fill("2");
      await page.keyboard.press("Tab");
      await page.keyboard.press("Escape");
      await ask(page, "What is 811 + 663?");
      await answered(page);
      expect(await page.locator(".reasoning").count()).toBe(0);
      expect(sent[0]).toMatchObject({
        thinking: { type: "disabled" },
        temperature: 0,
        max_tokens: 2,
        messages: [{ role: "system", content: "Answer in digits." }, { role: "user" }],
      });
      if (visits.stage.mock) return;
      expect(await textOf(page.locator(".number-answer"))).toContain("2");
      expect(await textOf(page.locator(".cut-off"))).toContain("The answer reached its limit of tokens.");
      const before = await lastAnswer(page);
      await page.getByRole("button", { name: "Continue" }).click();
      await answered(page);
      await expect.poll(() => lastAnswer(page)).toMatch(new RegExp(`^${before.trim()}.+`));
      // What both requests said.
      await expect.poll(() => textOf(page.locator(".number-answer"))).toContain("4");
    });

    it("keeps what is written while other pages and conversations are looked at", async () => {
      const page = await open(size, scheme);
      const box = page.getByRole("textbox", { name: "Message", exact: true });
      const go = async (name: string): Promise<void> => {
        await openMenu(page);
        await page.getByRole("link", { name, exact: true }).click();
      };
      await page.locator(".composer input[type=file]").setInputFiles({
        name: "notes.txt",
        mimeType: "text/plain",
        buffer: Buffer.from("the code is 7"),
      });
      await box.fill("half a quest");
      await go("Dashboard");
      await page.getByRole("heading").first().waitFor();
      await go("Chat");
      expect(await box.inputValue()).toBe("half a quest");
      expect(await textOf(page.locator(".files"))).toContain("notes.txt");
      await ask(page, "half a question");
      await answered(page);
      expect(await box.inputValue()).toBe("");
      expect(await page.locator(".files").count()).toBe(0);
      await box.fill("more");
      await openMenu(page);
      await page.getByRole("button", { name: "New chat" }).click();
      expect(await box.inputValue()).toBe("");
      await openMenu(page);
      await page.locator(".conversations").getByText("half a question").first().click();
      await expect.poll(() => box.inputValue()).toBe("more");
    });

    it("has the built-in calculator answer calls", async () => {
      const page = await open(size, scheme);
      await page.getByRole("button", { name: "Settings" }).click();
      await page.getByText("Calculator, answered by this page").click();
      await page.keyboard.press("Escape");
      await asking(page, { temperature: 0 }); // the page is tested here, not the luck of a draw
      await ask(page, "Use the calculator: 4827 + 3158");
      await answered(page, 2);
      expect(await textOf(page.locator(".tool-call"))).toContain("4827");
      expect(await textOf(page.locator(".tool-result"))).toContain("7985");
      expect(await lastAnswer(page)).toMatch(/7,?985/);
      await shot(page, `calculator-${size}`);
    });

    it("lets a tool's call be answered by hand", async () => {
      const page = await open(size, scheme);
      await page.getByRole("button", { name: "Settings" }).click();
      await page.getByRole("textbox", { name: "Tools as JSON" }).fill(kCalculator);
      await page.getByText("1 tool", { exact: true }).waitFor();
      await page.keyboard.press("Escape");
      await asking(page, { temperature: 0 });
      await ask(page, "Use the calculator: 4827 + 3158");
      await page.getByRole("textbox", { name: /Result for the model/ }).fill("4711");
      expect(await seriousProblems(page)).toEqual([]);
      await shot(page, `tool-by-hand-${size}`);
      await page.getByRole("button", { name: "Send results" }).click();
      await answered(page, 2);
      expect(await lastAnswer(page)).toContain("4711");
    });

    it("attaches files, and counts their tokens against the context", async () => {
      const page = await open(size, scheme);
      const counted = async (): Promise<number> =>
        Number((await page.locator(".context-meter").innerText()).replace(/,/g, "").match(/^\s*(\d+) of 32768/)?.[1]);
      await page.getByRole("textbox", { name: "Message" }).fill("What is in it?");
      await page.locator(".context-meter").waitFor();
      const before = await counted();
      await page.locator(".composer input[type=file]").setInputFiles([
        { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("alpha beta gamma ".repeat(40)) },
        { name: "picture.png", mimeType: "image/png", buffer: Buffer.from([0x89, 0x50, 0, 0xff]) },
      ]);
      await page.getByText("picture.png is not a text file in UTF-8.").waitFor();
      await expect.poll(counted).toBeGreaterThan(before + 100);
      await shot(page, `attached-${size}`);
      const [request] = await Promise.all([page.waitForRequest(isChat), page.keyboard.press("Enter")]);
      await answered(page);
      expect(request.postData()).toContain("File: notes.txt");
      const fold = page.locator(".file summary");
      await fold.scrollIntoViewIfNeeded();
      const top = async (): Promise<number | undefined> => (await fold.boundingBox())?.y;
      const closedAt = await top();
      await fold.click();
      // What is opened does not run away: it is in sight, and painted therefore.
      await expect.poll(() => page.locator(".file .plain").innerText()).toContain("gamma");
      expect(await top()).toBe(closedAt);
      await page
        .locator(".composer input[type=file]")
        .setInputFiles([{ name: "book.txt", mimeType: "text/plain", buffer: Buffer.from("a word ".repeat(30_000)) }]);
      await page.locator(".context-meter.over").waitFor();
      await shot(page, `too-long-${size}`);
    });

    it("keeps conversations over a reload, and exports and imports them", async () => {
      const page = await open(size, scheme);
      await ask(page, "What is 5 + 6?");
      await answered(page);
      const before = await textOf(page.locator(".answer"));
      await openMenu(page);
      await page.getByRole("button", { name: "New chat" }).click();
      await ask(page, "What is 7 + 6?");
      await answered(page);
      await page.reload();
      await openMenu(page);
      await page.locator(".conversations li button").filter({ hasText: "5 + 6" }).click();
      await page.waitForSelector(".answer footer");
      expect(await textOf(page.locator(".answer"))).toBe(before);

      const markdown = await exported(page, "Export as Markdown");
      expect(markdown.download.suggestedFilename()).toBe("What-is-5-6.md");
      expect(markdown.text).toContain("What is 5 + 6?");
      const json = await exported(page, "Export as JSON");
      expect(JSON.parse((await exported(page, "Export all as JSON")).text).conversations).toHaveLength(2);
      const answer = await lastAnswer(page);
      for (const file of [json.download, markdown.download]) {
        const name = file.suggestedFilename();
        const buffer = await readFile(await file.path());
        await page
          .locator(".conversations input[type=file]")
          .setInputFiles({ name, mimeType: "application/octet-stream", buffer });
        await page.getByText("1 conversation imported.").waitFor();
        expect(await lastAnswer(page)).toBe(answer);
        expect(await page.locator(".reasoning").count()).toBe(1);
      }
      expect(await page.locator(".conversations li").count()).toBe(4);
      await openMenu(page);
      await page.locator(".conversations").getByRole("button", { name: "More" }).click();
      await page.getByRole("menuitem", { name: "Remove" }).click();
      await page.getByRole("button", { name: "Remove" }).click();
      await expect.poll(() => page.locator(".conversations li").count()).toBe(3);
    });

    it("shows probabilities on hover", async () => {
      const page = await open(size, scheme);
      await ask(page, "What is 20 + 30?");
      await answered(page);
      await page.getByRole("button", { name: "Probabilities" }).click();
      await page.locator(".token").first().hover();
      expect(await page.locator(".token-card tr").count()).toBeGreaterThan(1);
      expect(await page.locator(".token-card tr.chosen").innerText()).toMatch(/\d %/);
      expect(await seriousProblems(page)).toEqual([]);
      await shot(page, `probabilities-${size}`);
    });

    it("shows its request as code, which runs", async () => {
      const page = await open(size, scheme);
      await ask(page, "What is 20 + 30?");
      await answered(page);
      await page.locator(".answer").getByRole("button", { name: "Code" }).click();
      const code = page.locator("dialog pre");
      const as = async (language: string): Promise<string> => {
        await page.getByText(language, { exact: true }).click();
        return code.innerText();
      };
      expect(await seriousProblems(page)).toEqual([]);
      await shot(page, `code-${size}`);
      const folder = await mkdtemp(join(tmpdir(), "fathom-code-"));
      const run = async (program: string, name: string, text: string): Promise<string> => {
        const file = join(folder, name);
        await writeFile(file, text);
        return (await promisify(execFile)(program, [file], { timeout: 40_000 })).stdout;
      };
      const curl = await run("bash", "code.sh", await as("curl"));
      expect(curl).toContain('"reasoning_content"');
      expect(curl.trimEnd()).toMatch(/data: \[DONE\]$/);
      expect(await run(process.execPath, "code.mjs", await as("JavaScript"))).toMatch(/\d/);
      const python = await as("Python");
      expect(python).toContain("OpenAI(");
      await run("python3", "check.py", `import ast\nast.parse(${JSON.stringify(python)})\n`);
      await rm(folder, { recursive: true });
      await page.keyboard.press("Escape");
      await code.waitFor({ state: "detached" });
    });
  });

  describe(`lens and dashboard, ${size}, ${scheme}`, () => {
    it("opens the lens on an answer, layer by layer", async () => {
      const page = await open(size, scheme);
      await page.getByRole("switch", { name: "Thinking" }).focus();
      await page.keyboard.press("Space");
      // Longer than the selection, so that there is something to leave out; and an answer in plain words.
      await asking(page, { temperature: 0, max_tokens: 40 });
      const numbers = Array.from({ length: 600 }, (_, i) => (i * 37) % 1000);
      await ask(page, `Sort these numbers: ${numbers.join(", ")}`);
      await answered(page);
      const answer = await lastAnswer(page);
      await page.locator(".answer").getByRole("button", { name: "Lens" }).click();
      await page.waitForSelector(".lens-map canvas");
      await page.locator(".lens-text").focus();
      await page.keyboard.press("End"); // the answer's last tokens
      const shown = async (): Promise<string> => (await page.locator(".lens-row .t").allInnerTexts()).join("");
      const bare = (text: string): string => text.replace(/[\s↵]+/g, "");
      await expect.poll(async () => bare(await shown())).toMatch(new RegExp(`${escaped(bare(answer))}$`));
      await page.keyboard.press("Enter");
      await expect
        .poll(() => page.locator(".lens-summary").innerText())
        .toMatch(/(512|2,048) of [\d,]+ visible tokens/);
      // Recall of each layer, loads of its experts, and what dense attention would cost.
      const layers = page.locator(".layer-list button");
      expect(await layers.count()).toBeGreaterThan(1);
      for (const text of await layers.allInnerTexts()) expect(text).toMatch(/Layer \d+\s+[\d.]+ %/);
      const summary = await page.locator(".lens-summary").innerText();
      await layers.nth(1).click();
      expect(await page.locator(".loads span").count()).toBe(16);
      expect(await page.locator(".lens-summary").innerText()).not.toBe(summary);
      expect(await page.locator(".cost").first().innerText()).toMatch(
        /Arithmetic\s.+dense\s+\S+ .?FLOP.+sparse\s+\S+ .?FLOP/s,
      );
      // The map has cells of several colours.
      const colours = await page
        .locator(".lens-map canvas")
        .evaluate(
          (canvas: HTMLCanvasElement) =>
            new Set(
              new Uint32Array(
                canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data.buffer ??
                  new ArrayBuffer(0),
              ),
            ).size,
        );
      expect(colours).toBeGreaterThan(3);
      await shot(page, `lens-of-answer-${size}`);
      // A cell of the map chooses its query.
      const query = page.getByRole("spinbutton", { name: "Query token" });
      const last = await query.inputValue();
      await page.locator(".lens-map canvas").click({ position: { x: 20, y: 200 } });
      await expect.poll(() => query.inputValue()).not.toBe(last);
    });

    it("shows work in progress and what was used", async () => {
      const page = await open(size, scheme);
      if (!visits.stage.mock) await endless(page);
      await ask(page, visits.stage.mock ? "!slow" : "What is 811 + 663?");
      await page.waitForSelector(".answer .markdown, .answer .reasoning");
      await openMenu(page);
      await page.getByRole("navigation").getByRole("link", { name: "Dashboard" }).click();
      const now = (title: string, name: string): Promise<string> =>
        page
          .locator(".chart")
          .filter({ has: page.getByRole("heading", { name: title, exact: true }) })
          .locator(".now > div")
          .filter({ hasText: name })
          .locator("dd")
          .innerText();
      await expect.poll(() => now("Throughput", "generated")).toMatch(/[1-9]/);
      expect(await now("Requests", "running")).toMatch(/[1-9]/);
      expect(await now("Requests", "waiting")).toMatch(/\d/);
      expect(await now("Context cache", "cache in use")).toMatch(/\d %/);
      expect(await now("Memory", "resident")).toMatch(/\d [MG]B/);
      await shot(page, `working-${size}`);
      await openMenu(page);
      await page.getByRole("navigation").getByRole("link", { name: "Chat" }).click();
      await page.getByRole("button", { name: "Stop" }).click();
      await answered(page);
      await openMenu(page);
      await page.getByRole("navigation").getByRole("link", { name: "Dashboard" }).click();
      await page.waitForSelector(".usage tbody tr");
      for (const [by, row] of [
        ["Day", /^20\d\d-\d\d-\d\d\s/],
        ["Key", /\$/],
        ["Model", /^nano\s/],
      ] as const) {
        await page.locator(".usage").getByText(by, { exact: true }).first().click();
        await expect.poll(() => page.locator(".usage tbody tr").first().innerText()).toMatch(row);
      }
      expect(await page.locator(".usage tbody tr").first().innerText()).toMatch(/\$0\.\d*[1-9]/);
    });
  });
}

describe("the app", () => {
  it("works by keyboard alone", async () => {
    const page = await open("desktop", "light");
    await page.getByRole("textbox", { name: "Message" }).waitFor();
    const reach = async (name: string): Promise<void> => {
      for (let i = 0; i < 60; ++i) {
        const focused = await page.evaluate(
          "document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.textContent",
        );
        if (focused === name) return;
        await page.keyboard.press("Tab");
      }
      throw new Error(`Tab never reaches ${name}`);
    };
    await page.keyboard.type("What is 7 + 8?");
    await page.keyboard.press("Enter");
    await answered(page);
    await reach("Regenerate");
    await page.keyboard.press("Enter");
    await answered(page);
    await reach("Previous version");
    await page.keyboard.press("Enter");
    await page.getByRole("img", { name: "Version 1 of 2" }).waitFor();
    await reach("Probabilities");
    await page.keyboard.press("Enter");
    await reach("Tokens of the answer");
    await page.keyboard.press("ArrowRight");
    await page.locator(".token-card").waitFor();
    await reach("Code");
    await page.keyboard.press("Enter");
    await page.locator("dialog").waitFor();
    await page.keyboard.press("Escape");
    await reach("Settings");
    await page.keyboard.press("Enter");
    await page.getByRole("textbox", { name: "System prompt" }).waitFor();
    await page.keyboard.press("Escape");
    await reach("More");
    await page.keyboard.press("Enter");
    await page.getByRole("menuitem", { name: "Rename" }).waitFor();
    await page.keyboard.press("Enter");
    await page.locator("dialog input:focus").waitFor();
    await page.keyboard.type("Sums");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Sums" }).waitFor();
    await reach("Lens");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".lens-input");
    await page.goBack();
    await page.locator(".answer").getByRole("button", { name: "Lens" }).focus();
    await page.keyboard.press("Enter");
    await page.waitForSelector(".lens-text");
    await reach("The tokens. Arrow keys move, Enter chooses the query.");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".t.query");
  });

  // As browsers give it to a page that another machine serves over plain HTTP.
  it("works without what only secure pages have, and tells what it could not load", async () => {
    const page = await open("desktop", "light");
    await page.addInitScript(() => {
      Reflect.deleteProperty(Crypto.prototype, "randomUUID");
      for (const name of ["clipboard", "serviceWorker"]) Reflect.deleteProperty(Navigator.prototype, name);
    });
    await page.evaluate(async () => {
      for (const worker of await navigator.serviceWorker.getRegistrations()) await worker.unregister();
    });
    await page.reload();
    await ask(page, "What is 811 + 663?");
    await answered(page);
    await page.locator(".answer").hover();
    await page.getByRole("button", { name: "Copy" }).last().click();
    await page.getByRole("button", { name: "Copied" }).waitFor();
    await page.route(/dashboard_page/, (route) => route.abort());
    await page.getByRole("link", { name: "Dashboard" }).click();
    await page.getByText("could not be loaded").waitFor();
    await page.unroute(/dashboard_page/);
    await page.getByRole("button", { name: "Load again" }).click();
    await page.getByRole("heading").first().waitFor();
  });

  it("follows the system's colours, or the choice", async () => {
    const page = await open("desktop", "dark");
    const ground = (): Promise<string> => page.evaluate("getComputedStyle(document.body).backgroundColor");
    expect(await ground()).toBe("rgb(15, 22, 27)");
    await page.getByRole("combobox", { name: "Colours" }).selectOption("light");
    expect(await ground()).toBe("rgb(245, 247, 248)");
    await page.reload();
    expect(await ground()).toBe("rgb(245, 247, 248)");
    await page.emulateMedia({ colorScheme: "light" });
    await page.getByRole("combobox", { name: "Colours" }).selectOption("dark");
    expect(await ground()).toBe("rgb(15, 22, 27)");
    await page.getByRole("combobox", { name: "Colours" }).selectOption("auto");
    expect(await ground()).toBe("rgb(245, 247, 248)");
  });

  it("can be installed, loads little at first, and opens without the server", async () => {
    const page = await open("desktop", "light");
    await until(page, "navigator.serviceWorker.getRegistration().then((r) => r?.active?.state === 'activated')");
    const keys = (await page.evaluate(
      "caches.keys().then(async (k) => (await (await caches.open(k[0])).keys()).map((r) => r.url))",
    )) as string[];
    expect(keys.some((url) => url.includes("/v1/") || url.includes("katex"))).toBe(false);
    // What came before anything was asked: by the bytes on the wire, which are compressed.
    const bytes = (await page.evaluate(
      "performance.getEntries().filter((e) => 'encodedBodySize' in e && new URL(e.name).origin === location.origin)" +
        ".reduce((sum, e) => sum + e.encodedBodySize, 0)",
    )) as number;
    expect(bytes).toBeGreaterThan(10_000);
    if (!visits.stage.mock) expect(bytes).toBeLessThan(300_000);

    const manifest = (await (await fetch(`${visits.stage.url}/manifest.webmanifest`)).json()) as {
      display: string;
      start_url: string;
      icons: { src: string; sizes: string }[];
    };
    expect(manifest).toMatchObject({ display: "standalone", start_url: expect.stringMatching(/^\//) });
    expect(manifest.icons.map(({ sizes }) => sizes)).toEqual(expect.arrayContaining(["192x192", "512x512"]));
    for (const { src } of manifest.icons)
      expect((await fetch(new URL(src, visits.stage.url))).headers.get("content-type")).toMatch(/^image\//);
    const head = await fetch(`${visits.stage.url}/`);
    expect(head.headers.get("content-security-policy")).toMatch(
      /default-src 'none'; script-src 'self'; style-src 'self'/,
    );

    await page.reload();
    await page.context().setOffline(true);
    await page.reload();
    await page.getByRole("textbox", { name: "Message" }).waitFor();
    await page.context().setOffline(false);
  });
});
