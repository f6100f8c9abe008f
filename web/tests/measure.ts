// npm run measure: what a user feels, with a real server (FATHOM names the program) and the small model. Prints figures.
import { readdirSync, statSync } from "node:fs";
import type { Page } from "playwright-core";
import { answered, ask, asking, launch, until, visit } from "./e2e/browser";
import { startServer } from "./e2e/server";

const kConversation = 20_000; // tokens
const kPrompt = 31_500; // tokens, of a context of 32,768
const kSampleMs = 6000;

const server = await startServer();
const browser = await launch();

async function countTokens(text: string): Promise<number> {
  const response = await fetch(`${server.url}/tokenize`, { method: "POST", body: JSON.stringify({ prompt: text }) });
  return ((await response.json()) as { count: number }).count;
}

// As many whole paragraphs as make so many tokens.
async function textOf(tokens: number, paragraph: (i: number) => string): Promise<string> {
  let count = Math.ceil(tokens / 10);
  for (let round = 0; ; ++round) {
    const text = Array.from({ length: count }, (_, i) => paragraph(i)).join("");
    const found = await countTokens(text);
    if (round >= 4 && found >= tokens) return text;
    count = round < 4 ? Math.ceil((count * tokens) / found) : count + 1;
  }
}

// Frames while `step` runs at each of them: how many a second, and the longest times between two.
async function frames(page: Page, name: string, step: string): Promise<void> {
  const times = (await page.evaluate(`new Promise((resolve) => {
    const view = document.querySelector(".scroll");
    const times = [];
    let n = 0;
    const frame = (now) => {
      times.push(now);
      ${step};
      ++n;
      if (now - times[0] < ${kSampleMs}) requestAnimationFrame(frame);
      else resolve(times);
    };
    requestAnimationFrame(frame);
  })`)) as number[];
  const gaps = times
    .slice(1)
    .map((time, i) => time - (times[i] ?? 0))
    .sort((a, b) => a - b);
  const seconds = ((times.at(-1) ?? 0) - (times[0] ?? 0)) / 1000;
  const at = (share: number): string => (gaps[Math.floor(share * (gaps.length - 1))] ?? 0).toFixed(0);
  console.log(
    `${name}: ${(gaps.length / seconds).toFixed(1)} frames/s; 95 % within ${at(0.95)} ms, longest ${at(1)} ms`,
  );
}

async function firstLoad(): Promise<void> {
  const { page, close } = await visit({ url: server.url, browser });
  await page.getByRole("textbox", { name: "Message" }).waitFor();
  const bytes = (await page.evaluate(
    "performance.getEntries().filter((e) => 'encodedBodySize' in e).reduce((sum, e) => sum + e.encodedBodySize, 0)",
  )) as number;
  console.log(`first load: ${(bytes / 1000).toFixed(1)} KB on the wire`);
  await close();
}

async function conversation(): Promise<void> {
  const { page, close } = await visit({ url: server.url, browser });
  const markdown = (i: number): string =>
    `Step ${i}: **${i} + ${i}** is \`${2 * i}\`, as ${i} and ${i} make ${2 * i}.\n\n` +
    (i % 9 === 4 ? `| a | b |\n|---|---:|\n| ${i} | ${2 * i} |\n\n` : "") +
    (i % 9 === 7 ? `\`\`\`python\nprint(${i} + ${i})  # ${2 * i}\n\`\`\`\n\n` : "");
  const long = await textOf(kConversation / 2, markdown);
  const short = await textOf(kConversation / 60, markdown);
  const nodes: Record<string, object> = {};
  let parent: string | null = null;
  const add = (role: string, content: string): void => {
    const id = `n${Object.keys(nodes).length}`;
    nodes[id] = { id, parent, role, content, created: Object.keys(nodes).length, status: "done" };
    parent = id;
  };
  add("user", "Everything, please.");
  add("assistant", long);
  for (let i = 0; i < 27; ++i) add(i % 2 ? "assistant" : "user", short);
  add("assistant", "So.");
  const file = JSON.stringify({
    format: "fathom-conversations",
    version: 1,
    conversations: [{ title: "Long", settings: { thinking: false, logprobs: true }, nodes, chosen: {} }],
  });
  await page
    .locator(".conversations input[type=file]")
    .setInputFiles({ name: "long.json", mimeType: "application/json", buffer: Buffer.from(file) });
  await page.waitForSelector(".answer footer");
  await until(page, "document.querySelector('.context-meter')");
  console.log(`conversation: ${await page.locator(".context-meter").innerText()}`);
  await frames(page, "scrolling down", "view.scrollTop = n * 90");
  await frames(page, "scrolling up and down", "view.scrollTop += (n >> 6) % 2 ? -400 : 400");
  await asking(page, { ignore_eos: true });
  for (const [name, move] of [
    ["streaming, followed", ""],
    ["streaming, scrolled meanwhile", "view.scrollTop += (n >> 6) % 2 ? 90 : -90"],
  ] as const) {
    await ask(page, "What is 811 + 663?");
    await page.waitForSelector(".answer.coming .markdown", { timeout: 400_000 });
    await frames(page, name, move);
    if (!(await page.locator(".answer.coming").count())) throw new Error("the answer ended before all was measured");
    await page.getByRole("button", { name: "Stop" }).click();
    await answered(page);
  }
  console.log(`the answer so far: ${await page.locator(".answer .numbers").last().innerText()}`.replace(/\s+/g, " "));
  await close();
}

async function lens(): Promise<void> {
  const { page, close } = await visit({ url: server.url, browser });
  page.setDefaultTimeout(400_000); // a slow machine is to be measured, not given up
  const seconds = (from: number): string => `${((performance.now() - from) / 1000).toFixed(2)} s`;
  const shown = async (): Promise<void> => void (await page.waitForSelector(".lens-map canvas[width]"));
  const text = await textOf(kPrompt, (i) => `The colour of box ${i} is ${i % 7}. `);
  await page.getByText("Thinking", { exact: true }).click();
  await page
    .locator(".composer input[type=file]")
    .setInputFiles([{ name: "boxes.txt", mimeType: "text/plain", buffer: Buffer.from(text) }]);
  await until(page, "/of/.test(document.querySelector('.context-meter')?.textContent ?? '')");
  console.log(`prompt: ${await page.locator(".context-meter").innerText()}`);
  await asking(page, { ignore_eos: true, max_tokens: 50 });
  await ask(page, "What is the colour of box 5?");
  await page.waitForSelector(".answer footer");
  console.log(`its answer: ${await page.locator(".answer .numbers").innerText()}`.replace(/\s+/g, " "));
  let begun = performance.now();
  await page.locator(".answer").getByRole("button", { name: "Lens" }).click();
  await shown();
  console.log(`lens on that answer: ${seconds(begun)}`);
  begun = performance.now();
  await page.getByRole("spinbutton", { name: "Query token" }).fill("20000");
  await page.keyboard.press("Enter");
  await until(page, "/visible tokens/.test(document.querySelector('.lens-summary').textContent)");
  console.log(`another query: ${seconds(begun)}`);
  await frames(page, "scrolling the lens's text", "document.querySelector('.lens-text').scrollTop = n * 200");
  await page.getByRole("button", { name: "Use a text instead" }).click();
  await page.getByRole("textbox", { name: "Text or prompt" }).fill(`Never read before. ${text}`);
  begun = performance.now();
  await page.getByRole("button", { name: "Look" }).click();
  await page.waitForSelector(".lens-map", { state: "detached" });
  await shown();
  console.log(`lens on a text that was never read: ${seconds(begun)}`);
  await close();
}

try {
  const assets = new URL("../dist/assets/", import.meta.url).pathname;
  const compressed = readdirSync(assets).filter((name) => name.endsWith(".br") && /^index-/.test(name));
  const size = compressed.reduce((sum, name) => sum + statSync(assets + name).size, 0);
  console.log(`files of the first page, brotli: ${(size / 1000).toFixed(1)} KB`);
  await firstLoad();
  const only = process.argv[2];
  if (only !== "lens") await conversation();
  if (only !== "conversation") await lens();
} finally {
  await browser.close();
  await server.close();
}
