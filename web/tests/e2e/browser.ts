// A browser and the server it talks to: the program that FATHOM names, or the scripted one.
import { mkdirSync } from "node:fs";
import { type Browser, type BrowserContext, chromium, type Locator, type Page } from "playwright-core";
import { type Mock, startMock } from "../mock/server";
import { hasServer, type ServerOptions, startServer } from "./server";

export const shotFolder = process.env["FATHOM_SHOTS"]; // screenshots to look at; none without

const kPatienceMs = 60_000; // for a machine that has much else to do

export const kSizes = { desktop: { width: 1280, height: 820 }, phone: { width: 390, height: 844 } };
export type Size = keyof typeof kSizes;
export type Scheme = "light" | "dark";

export const launch = (): Promise<Browser> =>
  chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

export interface Stage {
  url: string;
  key: string | undefined; // where one is wanted
  mock: Mock | undefined; // undefined: a real server
  browser: Browser;
  close(): Promise<void>;
}

// scripted: the scripted server, whatever FATHOM says.
export type StageOptions = ServerOptions & { scripted?: boolean };

export async function openStage(options: StageOptions = {}): Promise<Stage> {
  const key = options.keys ? "sk-secret" : undefined;
  const mock = hasServer && !options.scripted ? undefined : await startMock({ key });
  const server = mock ? { ...mock, key } : await startServer(options);
  const browser = await launch();
  return {
    url: server.url,
    key: server.key,
    mock,
    browser,
    close: async () => {
      await browser.close();
      await server.close();
    },
  };
}

export interface Visit {
  context: BrowserContext;
  page: Page;
  problems: string[]; // errors of the page, and requests that left the server
  close(): Promise<void>;
}

export async function visit(
  stage: { url: string; browser: Browser },
  size: Size = "desktop",
  scheme: Scheme = "light",
  hash = "",
): Promise<Visit> {
  const context = await stage.browser.newContext({
    viewport: kSizes[size],
    colorScheme: scheme,
    hasTouch: size === "phone",
    isMobile: size === "phone",
    acceptDownloads: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(kPatienceMs);
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

// The last answer once it is complete, however it ended, and once there are so many.
export async function answered(page: Page, count = 1): Promise<void> {
  await page.waitForFunction(
    (wanted) =>
      !document.querySelector(".answer.coming, .answer[aria-busy=true]") &&
      document.querySelectorAll(".answer footer").length >= wanted,
    count,
    { timeout: kPatienceMs },
  );
}

// What a message says, painted yet or not: what is out of sight, or came a moment ago, has no innerText (content-visibility).
export const textOf = async (part: Locator): Promise<string> => ((await part.textContent()) ?? "").trim();

export const lastAnswer = (page: Page): Promise<string> => textOf(page.locator(".answer .markdown").last());

// From here on chat requests have these members too.
export async function asking(page: Page, members: object): Promise<void> {
  await page.route("**/v1/chat/completions", async (route) => {
    const body = route.request().postDataJSON() as { messages: { content: string }[] };
    await route.continue({ postData: JSON.stringify({ ...body, ...members }) });
  });
}

// The small model's answers are short: asked not to end them it goes on until somebody stops it.
export const endless = (page: Page): Promise<void> => asking(page, { ignore_eos: true });

// What a phone folds away.
export async function openMenu(page: Page): Promise<void> {
  const button = page.getByRole("button", { name: "Menu", exact: true });
  if (await button.isVisible()) await button.click();
}

export async function shot(page: Page, name: string): Promise<void> {
  if (!shotFolder) return;
  mkdirSync(shotFolder, { recursive: true });
  await page.screenshot({ path: `${shotFolder}/${name}.png` });
}

// Asks over and over by the debugger's protocol: the page's own policy admits no code from a text.
export async function until(page: Page, expression: string): Promise<void> {
  for (const end = Date.now() + kPatienceMs; !(await page.evaluate(expression)); await page.waitForTimeout(50))
    if (Date.now() > end) throw new Error(`never true: ${expression}`);
}
