// A browser and the server it talks to: the scripted one, or a real one at FATHOM_URL.
import { mkdirSync } from "node:fs";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { type Mock, startMock } from "../mock/server";

export const realUrl = process.env["FATHOM_URL"];
export const shotFolder = process.env["FATHOM_SHOTS"]; // screenshots to look at; none without

export const kSizes = { desktop: { width: 1280, height: 820 }, phone: { width: 390, height: 844 } };
export type Size = keyof typeof kSizes;
export type Scheme = "light" | "dark";

export interface Stage {
  url: string;
  mock: Mock | undefined;
  browser: Browser;
  close(): Promise<void>;
}

export async function openStage(options: { key?: string } = {}): Promise<Stage> {
  const mock = realUrl ? undefined : await startMock(options);
  const browser = await chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
  return {
    url: realUrl ?? (mock as Mock).url,
    mock,
    browser,
    close: async () => {
      await browser.close();
      await mock?.close();
    },
  };
}

export interface Visit {
  context: BrowserContext;
  page: Page;
  problems: string[]; // errors of the page, and requests that left the server
  close(): Promise<void>;
}

export async function visit(stage: Stage, size: Size = "desktop", scheme: Scheme = "light", hash = ""): Promise<Visit> {
  const context = await stage.browser.newContext({
    viewport: kSizes[size],
    colorScheme: scheme,
    hasTouch: size === "phone",
    isMobile: size === "phone",
    acceptDownloads: true,
  });
  const page = await context.newPage();
  const problems: string[] = [];
  const origin = new URL(stage.url).origin;
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  page.on("console", (message) => {
    // A refused request is reported by the browser as well; the tests look at what the page says of it.
    if (message.type() === "error" && !/Failed to load resource|ERR_/.test(message.text()))
      problems.push(message.text());
  });
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.origin !== origin && !["data:", "blob:"].includes(url.protocol))
      problems.push(`request to ${request.url()}`);
  });
  await page.goto(`${stage.url}/${hash}`);
  await page.waitForSelector("main");
  return { context, page, problems, close: () => context.close() };
}

export async function ask(page: Page, text: string): Promise<void> {
  await page.getByRole("textbox", { name: "Message" }).fill(text);
  await page.keyboard.press("Enter");
}

// The last answer once it is complete, however it ended.
export async function answered(page: Page, timeout = 45_000): Promise<void> {
  await page.waitForSelector(".answer", { timeout });
  await page.waitForFunction(
    () =>
      !document.querySelector(".answer.coming, .answer[aria-busy=true]") && document.querySelector(".answer footer"),
    undefined,
    { timeout },
  );
}

export async function shot(page: Page, name: string): Promise<void> {
  if (!shotFolder) return;
  mkdirSync(shotFolder, { recursive: true });
  await page.screenshot({ path: `${shotFolder}/${name}.png` });
}

// Asks over and over by the debugger's protocol: the page's own policy admits no code from a text.
export async function until(page: Page, expression: string, timeout = 45_000): Promise<void> {
  for (const end = Date.now() + timeout; !(await page.evaluate(expression)); await page.waitForTimeout(50))
    if (Date.now() > end) throw new Error(`never true: ${expression}`);
}
