// Every page at both sizes, light and dark: what it shows, and no serious accessibility problem.
import { describe, expect, it } from "vitest";
import { seriousProblems } from "./axe";
import { answered, ask, kSizes, lastAnswer, openMenu, shot, type Size, textOf, until } from "./browser";
import { Visits } from "./visits";

const visits = new Visits();

for (const size of Object.keys(kSizes) as Size[])
  for (const scheme of ["light", "dark"] as const)
    describe(`${size}, ${scheme}`, () => {
      const open = (hash = "") => visits.open(size, scheme, hash);

      it("answers, with reasoning and numbers", async () => {
        const page = await open();
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `welcome-${size}-${scheme}`);
        await ask(page, "What is 811 + 663?");
        await answered(page);
        expect(await lastAnswer(page)).toMatch(/\d/);
        expect(await page.locator(".reasoning summary").innerText()).toMatch(/^Thought for .+ · .*tokens$/);
        for (const name of ["ttft", "prompt", "cached", "answer", "cost"])
          expect(await page.locator(`.number-${name}`).innerText(), name).toMatch(/\d/);
        expect(await page.evaluate("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `answer-${size}-${scheme}`);
        await page.locator(".reasoning summary").click();
        expect(await textOf(page.locator(".reasoning .plain"))).not.toBe("");
        await shot(page, `reasoning-${size}-${scheme}`);
        await openMenu(page);
        await page.locator(".conversations").getByRole("button", { name: "More" }).click();
        await until(page, "!document.getAnimations().length"); // the menu slides in
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `menu-${size}-${scheme}`);
        await page.keyboard.press("Escape");
        await page.keyboard.press("Escape");
        await page.getByRole("button", { name: "Settings" }).click();
        await page.getByText("Sampling", { exact: true }).click();
        await page.getByText("Connection", { exact: true }).click();
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `settings-${size}-${scheme}`);
      });

      it("looks through the lens, at a text", async () => {
        const page = await open("#/lens");
        await shot(page, `lens-empty-${size}-${scheme}`);
        await page
          .getByRole("textbox", { name: "Text or prompt" })
          .fill("What is 811 + 663? The needle is here. ".repeat(60));
        await page.getByRole("button", { name: "Look" }).click();
        await page.waitForSelector(".lens-map canvas");
        await page.locator(".lens-text .t").nth(30).click();
        await until(page, "document.querySelectorAll('.t.l1, .t.l2, .t.l3, .t.l4, .t.l5, .t.l6, .t.l7').length > 0");
        expect(await page.locator(".lens-summary").innerText()).toMatch(/\d of \d+ visible tokens/);
        expect(await page.evaluate("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `lens-${size}-${scheme}`);
        await page.locator(".lens-side").scrollIntoViewIfNeeded();
        await page.locator(".strongest").scrollIntoViewIfNeeded();
        await shot(page, `lens-cards-${size}-${scheme}`);
      });

      it("watches the server", async () => {
        const page = await open("#/dashboard");
        await until(page, "document.querySelector('.now dd')?.textContent !== '–'");
        await page.waitForSelector(".usage tbody tr");
        expect(await page.evaluate("document.documentElement.scrollWidth <= innerWidth")).toBe(true);
        expect(await seriousProblems(page)).toEqual([]);
        await shot(page, `dashboard-${size}-${scheme}`);
        await page.locator(".usage").scrollIntoViewIfNeeded();
        await shot(page, `usage-${size}-${scheme}`);
      });
    });
