// When things go wrong: hostile texts, broken connections, servers that refuse, restart or want a key.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Browser } from "playwright-core";
import { answered, ask, endless, lastAnswer, launch, openStage, shot, textOf, until } from "./browser";
import { hasServer, startServer } from "./server";
import { Visits } from "./visits";

const visits = new Visits({ scripted: true }); // fails when it should
const { open, openAt } = visits;

const kHostileName = '<img src=x onerror="window.pwned=9">\u202e.txt';

describe("hostile content", () => {
  it("in an answer does no harm", async () => {
    const page = await open();
    await ask(page, "!hostile");
    await answered(page);
    await until(page, "document.querySelector('.answer .code-frame .hljs-tag')"); // all that is drawn late
    expect(await page.evaluate("window.pwned")).toBeUndefined();
    expect(
      await page.locator(".answer script, .answer iframe, .answer form, .answer style, .answer input").count(),
    ).toBe(0);
    expect(await page.locator('.answer a[href^="javascript"], .answer a[href^="data"]').count()).toBe(0);
    const text = await page.locator(".answer .markdown").evaluate((element) => element.textContent ?? "");
    expect(text).toContain("⟨U+202E⟩");
    expect(text).toContain("⟨U+001B⟩");
    expect(text).toContain("<script>window.pwned = 1</script>");
    expect(await page.evaluate("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
    await page.locator(".scroll").evaluate((element) => element.scrollTo(0, 0));
    await page.waitForTimeout(200);
    await shot(page, "hostile");
  });
  it("in a question and in a file's name does no harm", async () => {
    const page = await open();
    await page
      .locator(".composer input[type=file]")
      .setInputFiles([{ name: kHostileName, mimeType: "text/plain", buffer: Buffer.from(`\u202e${"x".repeat(1e5)}`) }]);
    await ask(page, '<img src=x onerror="window.pwned=10">\u202ereversed \u0007');
    await answered(page);
    expect(await page.evaluate("window.pwned")).toBeUndefined();
    for (const place of [".message.user .bubble", ".conversations li", ".page-head .title"])
      expect(await textOf(page.locator(place)), place).toContain("⟨U+202E⟩reversed");
    await page.locator(".file summary").click();
    expect(await page.evaluate("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
    await shot(page, "hostile-question");
  });
  it("in a file that is imported does no harm", async () => {
    const page = await open();
    const node = {
      id: "a",
      parent: null,
      role: "assistant",
      content: "<script>window.pwned=11</script>[x](javascript:1)",
    };
    const conversation = {
      title: kHostileName,
      nodes: { a: { ...node, reasoning: "\u202e", tokens: "[1" } },
      chosen: {},
    };
    const file = { format: "fathom-conversations", version: 1, conversations: [conversation] };
    await page.locator(".conversations input[type=file]").setInputFiles({
      name: "import.json",
      mimeType: "application/json",
      buffer: Buffer.from(JSON.stringify(file)),
    });
    await page.getByText("1 conversation imported.").waitFor();
    await page.getByRole("button", { name: "Probabilities" }).click();
    await page.getByRole("button", { name: "Probabilities" }).click();
    expect(await lastAnswer(page)).toContain("<script>");
    expect(await page.evaluate("window.pwned")).toBeUndefined();
  });
  it("characters cut between chunks come out whole", async () => {
    const page = await open();
    await ask(page, "!split");
    await answered(page);
    expect(await lastAnswer(page)).toBe("Grüße, 世界 🌊 donebad [\ufffd(]");
  });
});

describe("a server that fails", () => {
  it("keeps the text when the connection breaks, and the answer goes on", async () => {
    const page = await open();
    await ask(page, "!break");
    await answered(page);
    expect(await page.getByRole("alert").innerText()).toContain("The text so far is kept.");
    expect(await lastAnswer(page)).toContain("restarts in the middle of");
    await shot(page, "broken");
    await page.getByRole("button", { name: "Continue" }).click();
    await until(page, "!document.querySelector('.problem')");
    await answered(page);
    expect(await lastAnswer(page)).toBe(
      "The text so far is kept when the server restarts in the middle of it, and the answer goes on from there.",
    );
  });
  it.each([
    ["!break-empty", "The connection broke before the answer began."],
    ["!error-event", "the server is draining"],
    ["!busy", "The server is busy. Try again in 3 s."],
    ["!invalid", "temperature: found 7, expected a number from 0 to 2"],
  ])("%s is told", async (question, words) => {
    const page = await open();
    await ask(page, question);
    await answered(page);
    expect(await page.getByRole("alert").innerText()).toContain(words);
  });
});

it("a server that wants a key gets one, and it is forgotten unless asked to be kept", async () => {
  const locked = await openStage({ keys: true });
  try {
    const page = await openAt(locked);
    await page.getByText("The server wants an API key.").first().waitFor();
    await shot(page, "key");
    await page.getByLabel("API key").fill("sk-wrong");
    await page.keyboard.press("Enter");
    await page.getByText("The server wants an API key.").first().waitFor();
    await page.getByLabel("API key").fill(locked.key ?? "");
    await page.getByRole("button", { name: "Use" }).click();
    await page.getByText("Ask something").waitFor();
    await ask(page, "What is 1 + 1?");
    await answered(page);
    expect(await lastAnswer(page)).toMatch(/\d/);
    expect(await page.evaluate("JSON.stringify(localStorage)")).not.toContain(locked.key);
    await page.getByRole("link", { name: "Dashboard" }).click();
    await page.locator(".usage").getByText("Key", { exact: true }).click();
    await page.locator(".usage tbody").getByText("alice").waitFor();
    await visits.leave();
  } finally {
    await locked.close();
  }
});

describe.skipIf(!hasServer)("a real server", () => {
  let browser: Browser;
  beforeAll(async () => void (browser = await launch()));
  afterAll(() => browser.close());

  it("that is killed and started again in the middle of an answer: told, kept, and taken up", async () => {
    let server = await startServer();
    try {
      const { url } = server;
      const page = await openAt({ url, browser });
      await page.getByText("Thinking", { exact: true }).click(); // its text is the answer
      await endless(page);
      await ask(page, "What is 811 + 663?");
      await expect.poll(() => lastAnswer(page).catch(() => "")).toMatch(/.{20}/s);
      await server.crash();
      await answered(page);
      expect(await page.getByRole("alert").innerText()).toContain("The text so far is kept.");
      const kept = await lastAnswer(page);
      expect(kept.length).toBeGreaterThanOrEqual(20);
      await shot(page, "restarted");

      await page.getByRole("button", { name: "Continue" }).click();
      await page.getByText("The server cannot be reached. It may be restarting.").waitFor();
      expect(await lastAnswer(page)).toBe(kept);
      server = await startServer({ port: Number(new URL(url).port) });
      await page.getByRole("button", { name: "Continue" }).click();
      await expect.poll(async () => (await lastAnswer(page)).length).toBeGreaterThan(kept.length);
      expect((await lastAnswer(page)).startsWith(kept)).toBe(true);
      await page.getByRole("button", { name: "Stop" }).click();
      await answered(page);
      expect(await page.locator(".problem").count()).toBe(0);
      await visits.leave();
    } finally {
      await server.close();
    }
  });

  it("that ends an answer for a reason: the reason is told", async () => {
    const server = await startServer({ limits: { request_seconds: 2 } });
    try {
      const page = await openAt({ url: server.url, browser });
      await endless(page);
      await ask(page, "What is 811 + 663?");
      await answered(page);
      expect(await page.getByRole("alert").innerText()).toContain("the answer took longer than this server allows");
      await visits.leave();
    } finally {
      await server.close();
    }
  });
});
