// Draws public/icon-*.png from public/icon.svg, with a Chromium: node scripts/icons.mjs. Needed only when the icon changes.
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";

const folder = new URL("../public/", import.meta.url);
const svg = await readFile(new URL("icon.svg", folder), "utf8");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
const page = await browser.newPage();
// A maskable icon fills its square, and what matters lies within the inner four fifths.
const filled = svg
  .replace('rx="15"', "")
  .replace("<path", '<g transform="translate(6.4 6.4) scale(.8)"><path')
  .replace("</svg>", "</g></svg>");
for (const [name, size, drawing] of [
  ["icon-192", 192, svg],
  ["icon-512", 512, svg],
  ["icon-maskable", 512, filled],
]) {
  await page.setViewportSize({ width: size, height: size });
  await page.setContent(`<style>body{margin:0}svg{display:block;width:${size}px;height:${size}px}</style>${drawing}`);
  await page.screenshot({ path: new URL(`${name}.png`, folder).pathname, omitBackground: true });
}
await browser.close();
