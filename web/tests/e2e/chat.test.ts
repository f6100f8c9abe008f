// The chat, on both sizes, with what both servers can do; what needs a script runs against the scripted server alone.
import { readFile } from "node:fs/promises";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { seriousProblems } from "./axe";
import {
  answered,
  ask,
  kSizes,
  openStage,
  realUrl,
  type Scheme,
  shot,
  type Size,
  type Stage,
  until,
  type Visit,
  visit,
} from "./browser";

let stage: Stage;
let at: Visit | undefined;
beforeAll(async () => void (stage = await openStage()));
afterAll(() => stage.close());
afterEach(async () => {
  const problems = at?.problems ?? [];
  await at?.close();
  at = undefined;
  expect(problems).toEqual([]);
});
const open = async (size: Size = "desktop", scheme: Scheme = "light", hash = ""): Promise<Page> => {
  at = await visit(stage, size, scheme, hash);
  return at.page;
};
const lastAnswer = (page: Page): Promise<string> => page.locator(".answer .markdown").last().innerText();
const scripted = it.skipIf(realUrl !== undefined);

for (const size of Object.keys(kSizes) as Size[])
  for (const scheme of ["light", "dark"] as const)
    describe(`${size}, ${scheme}`, () => {
      it("answers, with reasoning and numbers, and has no serious accessibility problem", async () => {
        const page = await open(size, scheme);
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `welcome-${size}-${scheme}`);
        await ask(page, "What is 811 + 663?");
        await answered(page);
        if (!realUrl) expect(await lastAnswer(page)).toContain("1474");
        expect(await page.locator(".reasoning summary").innerText()).toMatch(/^Thought for .+ · .*tokens$/);
        for (const name of ["ttft", "speed", "prompt", "cached", "answer", "cost"])
          expect(await page.locator(`.number-${name}`).count(), name).toBe(1);
        expect(await page.evaluate("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `answer-${size}-${scheme}`);
        await page.getByRole("button", { name: "Settings" }).click();
        await page.getByText("Sampling", { exact: true }).click();
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `settings-${size}-${scheme}`);
      });
      it("looks through the lens", async () => {
        const page = await open(size, scheme, "#/lens");
        await page
          .getByRole("textbox", { name: "Text or prompt" })
          .fill("What is 811 + 663? The needle is here. ".repeat(60));
        await page.getByRole("button", { name: "Look" }).click();
        await page.waitForSelector(".lens-map canvas");
        await page.locator(".lens-text .t").nth(30).click();
        await until(page, "document.querySelectorAll('.t.l1, .t.l2, .t.l3, .t.l4, .t.l5, .t.l6, .t.l7').length > 0");
        expect(await page.locator(".lens-summary").innerText()).toMatch(/\d of \d+ visible tokens/);
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `lens-${size}-${scheme}`);
      });
      it("watches the server", async () => {
        const page = await open(size, scheme, "#/dashboard");
        await until(page, "document.querySelector('.now dd')?.textContent !== '–'");
        await page.waitForSelector(".usage");
        expect(await seriousProblems(page)).toEqual([]);
        await page.waitForTimeout(realUrl ? 0 : 4500);
        await shot(page, `dashboard-${size}-${scheme}`);
      });
    });

describe("conversations", () => {
  it("edits, regenerates and goes between versions", async () => {
    const page = await open();
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
    expect(await page.locator(".message.user .bubble").innerText()).toContain("3 + 4");
    await page.getByRole("button", { name: "Previous version" }).first().click();
    await expect.poll(() => page.locator(".message.user .bubble").innerText()).toContain("1 + 2");
  });

  it("keeps conversations over a reload, and exports and imports them", async () => {
    const page = await open();
    await ask(page, "What is 5 + 6?");
    await answered(page);
    const before = await page.locator(".answer").innerText();
    await page.reload();
    await page.locator(".conversations li button").first().click();
    await page.waitForSelector(".answer footer");
    expect(await page.locator(".answer").innerText()).toBe(before);
    await page.getByRole("button", { name: "More" }).click();
    const [markdown] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("menuitem", { name: "Export as Markdown" }).click(),
    ]);
    expect(await readFile(await markdown.path(), "utf8")).toContain("What is 5 + 6?");
    await page.getByRole("button", { name: "More" }).click();
    const [json] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("menuitem", { name: "Export as JSON" }).click(),
    ]);
    await page.locator(".conversations input[type=file]").setInputFiles(await json.path());
    await page.getByText("1 conversation imported.").waitFor();
    expect(await page.locator(".conversations li").count()).toBe(2);
    expect(await page.locator(".answer").innerText()).toBe(before);
  });

  it("stops", async () => {
    const page = await open();
    await ask(page, realUrl ? "Count from 1 to 500, one number a line." : "!slow");
    await page.waitForSelector(".answer.coming");
    await page.waitForSelector(".answer .markdown, .answer .reasoning");
    await page.getByRole("button", { name: "Stop" }).click();
    await answered(page);
    expect(await page.locator(".answer").innerText()).toContain("Stopped.");
    if (stage.mock) await expect.poll(() => stage.mock?.aborted).toBeGreaterThan(0);
  });

  it("works by keyboard alone", async () => {
    const page = await open();
    await page.getByRole("textbox", { name: "Message" }).waitFor();
    await page.keyboard.type("What is 7 + 8?");
    await page.keyboard.press("Enter");
    await answered(page);
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
    await reach("Probabilities");
    await page.keyboard.press("Enter");
    await reach("Tokens of the answer").catch(async () => {
      for (let i = 0; i < 12; ++i) await page.keyboard.press("Shift+Tab");
      await reach("Tokens of the answer");
    });
    await page.keyboard.press("ArrowRight");
    await page.locator(".token-card").waitFor();
    await reach("Lens");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".lens-text");
    await reach("The tokens. Arrow keys move, Enter chooses the query.");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("Enter");
    await page.waitForSelector(".t.query");
  });
});

describe("what an answer shows", () => {
  it("probabilities on hover", async () => {
    const page = await open();
    await ask(page, "What is 20 + 30?");
    await answered(page);
    await page.getByRole("button", { name: "Probabilities" }).click();
    await page.locator(".token").first().hover();
    expect(await page.locator(".token-card tr").count()).toBeGreaterThan(1);
    expect(await seriousProblems(page)).toEqual([]);
    await shot(page, "probabilities");
  });
  it("its request as code", async () => {
    const page = await open();
    await ask(page, "What is 20 + 30?");
    await answered(page);
    await page.locator(".answer").getByRole("button", { name: "Code" }).click();
    const code = page.locator("dialog pre");
    expect(await code.innerText()).toContain("/v1/chat/completions");
    await page.getByText("Python", { exact: true }).click();
    expect(await code.innerText()).toContain("OpenAI(");
    expect(await seriousProblems(page)).toEqual([]);
    await shot(page, "code");
    await page.keyboard.press("Escape");
    await code.waitFor({ state: "detached" });
  });
  it("the calculator's calls", async () => {
    const page = await open();
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByText("Calculator, answered by this page").click();
    await page.keyboard.press("Escape");
    await ask(page, "Use the calculator: 71234 + 8766");
    await page.locator(".tool-result").waitFor({ timeout: 45_000 });
    await until(page, "document.querySelectorAll('.answer footer').length === 2");
    expect(await page.locator(".tool-result").innerText()).toContain("80000");
    await shot(page, "calculator");
  });
  it("files, with their tokens counted", async () => {
    const page = await open();
    await page.locator(".composer input[type=file]").setInputFiles([
      { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("alpha beta gamma ".repeat(40)) },
      { name: "picture.png", mimeType: "image/png", buffer: Buffer.from([0x89, 0x50, 0, 0xff]) },
    ]);
    await page.getByText("picture.png is not a text file in UTF-8.").waitFor();
    await until(page, "/\\d of [\\d,]+ tokens/.test(document.querySelector('.context-meter')?.textContent ?? '')");
    await ask(page, "What is in it?");
    await answered(page);
    if (stage.mock) expect(JSON.stringify(stage.mock.bodies.at(-1))).toContain("File: notes.txt");
  });
});

describe("when things go wrong", () => {
  scripted("hostile content does no harm", async () => {
    const page = await open();
    await ask(page, "!hostile");
    await answered(page);
    await page.waitForTimeout(500);
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
  scripted("characters cut between chunks come out whole", async () => {
    const page = await open();
    await ask(page, "!split");
    await answered(page);
    expect(await lastAnswer(page)).toBe("Grüße, 世界 🌊 donebad [\ufffd(]");
  });
  scripted("a break keeps the text, and the answer goes on", async () => {
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
  scripted.each([
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
  scripted("a tool's call is answered by hand", async () => {
    const page = await open();
    await page.getByRole("button", { name: "Settings" }).click();
    await page
      .getByRole("textbox", { name: "Tools as JSON" })
      .fill('{"title":"forecast","type":"object","properties":{"city":{"type":"string"}}}');
    await page.getByText("1 tool", { exact: true }).waitFor();
    await page.keyboard.press("Escape");
    await ask(page, "The weather in 2 days?");
    await page.getByRole("textbox", { name: /Result for the model/ }).fill("rain");
    await page.getByRole("button", { name: "Send results" }).click();
    await until(page, "document.querySelectorAll('.answer footer').length === 2");
    expect(await lastAnswer(page)).toBe("The tool says rain.");
  });
  scripted("a server that wants a key gets one, and it is forgotten unless asked to be kept", async () => {
    const locked = await openStage({ key: "sk-secret" });
    try {
      const there = await visit(locked);
      const { page } = there;
      await page.getByText("The server wants an API key.").first().waitFor();
      await page.getByLabel("API key").fill("sk-secret");
      await page.keyboard.press("Tab");
      await page.getByText("Ask something").waitFor();
      await ask(page, "What is 1 + 1?");
      await answered(page);
      expect(await page.evaluate("JSON.stringify(localStorage)")).not.toContain("sk-secret");
      await there.close();
    } finally {
      await locked.close();
    }
  });
});

describe("the app", () => {
  it("loads little at first, and opens without the server", async () => {
    const page = await open();
    await until(page, "navigator.serviceWorker.getRegistration().then((r) => r?.active?.state === 'activated')");
    const keys = (await page.evaluate(
      "caches.keys().then(async (k) => (await (await caches.open(k[0])).keys()).map((r) => r.url))",
    )) as string[];
    expect(keys.some((url) => url.includes("/v1/") || url.includes("katex"))).toBe(false);
    await page.reload();
    await page.context().setOffline(true);
    await page.reload();
    await page.getByRole("textbox", { name: "Message" }).waitFor();
    await page.context().setOffline(false);
  });
});
