// What is drawn into a block after it stands: maths and the colours of code, by libraries that load when first needed.
import { texts } from "../strings";
import { copyText } from "./copy";
import { sanitize } from "./markdown";

const kLongestCode = 60_000; // characters; colours for more would be felt while scrolling

async function drawMaths(element: HTMLElement): Promise<void> {
  const { default: katex } = await import("./katex");
  const source = element.textContent ?? "";
  const drawn = document.createElement(element.classList.contains("tex-display") ? "div" : "span");
  drawn.className = element.className.replace(/\btex\b/, "maths");
  try {
    // Built as elements, with styles set by script, so that the content security policy need not allow style attributes.
    katex.render(source, drawn, {
      displayMode: element.classList.contains("tex-display"),
      output: "htmlAndMathml",
      throwOnError: true,
      trust: false,
      strict: "ignore",
      maxSize: 20,
      maxExpand: 500,
    });
  } catch {
    return; // the source stays
  }
  element.replaceWith(drawn);
}

async function colour(code: HTMLElement, language: string): Promise<void> {
  const source = code.textContent ?? "";
  if (source.length > kLongestCode) return;
  const { default: hljs } = await import("./highlight");
  if (!hljs.getLanguage(language)) return;
  const { value } = hljs.highlight(source, { language, ignoreIllegals: true });
  code.replaceChildren(sanitize(value));
}

function addCopyButton(pre: HTMLElement, language: string): void {
  const bar = document.createElement("div");
  bar.className = "code-bar";
  const name = document.createElement("span");
  name.textContent = language;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet small";
  button.textContent = texts.actions.copy;
  button.addEventListener("click", () => {
    void copyText(pre.textContent ?? "").then((done) => {
      if (!done) return;
      button.textContent = texts.actions.copied;
      setTimeout(() => (button.textContent = texts.actions.copy), 1500);
    });
  });
  bar.append(name, button);
  const frame = document.createElement("div");
  frame.className = "code-frame";
  pre.tabIndex = 0; // wide code scrolls by the keyboard as well
  pre.replaceWith(frame);
  frame.append(bar, pre);
}

// `complete`: nothing more comes, so that code may be coloured.
export function enrich(root: HTMLElement, complete: boolean): void {
  for (const element of root.querySelectorAll<HTMLElement>("code.tex")) void drawMaths(element);
  for (const code of root.querySelectorAll<HTMLElement>("pre > code")) {
    const pre = code.parentElement;
    if (!pre) continue;
    const language = /language-([\w+#-]+)/.exec(code.className)?.[1] ?? "";
    addCopyButton(pre, language);
    if (complete && language) void colour(code, language);
  }
}
