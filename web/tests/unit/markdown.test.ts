import { describe, expect, it } from "vitest";
import { BlockSplitter, sanitize } from "../../src/text/markdown";
import { visible, visibleToken } from "../../src/text/visible";

function page(text: string): HTMLElement {
  const root = document.createElement("div");
  for (const { html } of new BlockSplitter().update(text)) root.append(sanitize(html));
  return root;
}

describe("sanitising", () => {
  it.each([
    ["a script", "<script>alert(1)</script>"],
    ["a handler", '<img src=x onerror="alert(1)">'],
    ["a frame", '<iframe src="https://evil.example"></iframe>'],
    ["a form", "<form action=/x><input></form>"],
    ["a style", "<style>*{display:none}</style>"],
    ["a drawing", '<svg onload="alert(1)"><script>1</script></svg>'],
    ["a nest", "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>"],
  ])("shows %s as text", (_, source) => {
    const root = page(source);
    expect(root.querySelector("script,style,iframe,form,input,svg,math,img")).toBeNull();
    expect(root.textContent).toContain(source.slice(0, 5));
  });
  it.each(["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd"])(
    "makes no link of %s",
    (href) => {
      for (const link of page(`[x](${href}) [y](<${href}>)`).querySelectorAll("a"))
        expect(link.getAttribute("href")).toBeNull();
    },
  );
  it("sanitises markup that comes past markdown", () => {
    const root = document.createElement("div");
    root.append(
      sanitize('<p onclick="x()" style="color:red" id="a">t<script>1</script><a href="javascript:1">l</a></p>'),
    );
    expect(root.innerHTML).toBe('<p>t<a title="" target="_blank" rel="noopener noreferrer nofollow">l</a></p>');
  });
  it("fetches no picture, but shows those that are in the text", () => {
    expect(page("![a](https://evil.example/p.png)").querySelector("img")).toBeNull();
    expect(page("![a](/v1/models)").querySelector("img")).toBeNull();
    expect(page("![a](data:image/svg+xml;base64,AAAA)").querySelector("img")).toBeNull();
    expect(page("![a](data:image/png;base64,AAAA)").querySelector("img")?.alt).toBe("a");
  });
  it("leaves maths as its source, and escapes it", () => {
    const code = page("$a<b$ and \\(c\\)").querySelectorAll("code.tex");
    expect([...code].map((one) => one.textContent)).toEqual(["a<b", "c"]);
  });
  it("aligns columns without a style", () => {
    const cells = page("| a | b |\n|---|--:|\n| 1 | 2 |").querySelectorAll("td");
    expect(cells[1]?.getAttribute("align")).toBe("right");
    expect(cells[1]?.getAttribute("style")).toBeNull();
  });
});

describe("what cannot be seen", () => {
  it("is shown", () => {
    expect(visible("a\u202eb\u0007\u0000\r\nc\td")).toBe("a⟨U+202E⟩b⟨U+0007⟩⟨U+0000⟩\nc\td");
    expect(visible("e\u0301 🌊 世界")).toBe("e\u0301 🌊 世界");
    expect(visibleToken(" \n\t")).toBe(" ↵⇥");
  });
});

describe("BlockSplitter", () => {
  const text =
    "# Title\n\nA *paragraph* that\ngoes on.\n\n- one\n\n- two\n  more\n\n```js\nlet a;\n\nlet b;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quote\n\n1. x\n2. y\n\nlast";
  it("gives the same however the text grows", () => {
    const whole = new BlockSplitter()
      .update(text)
      .map(({ html }) => html)
      .join("");
    for (const step of [1, 2, 3, 7, 50]) {
      const splitter = new BlockSplitter();
      let blocks = splitter.update("");
      for (let at = step; at < text.length + step; at += step) blocks = splitter.update(text.slice(0, at));
      expect(blocks.map(({ html }) => html).join(""), `by ${step}`).toBe(whole);
    }
  });
  it("keeps the blocks before the last as they are", () => {
    const splitter = new BlockSplitter();
    const before = splitter.update("one\n\ntwo\n\nthr");
    const after = splitter.update("one\n\ntwo\n\nthree\n\nfour");
    expect(after[0]).toBe(before[0]);
    expect(after[1]).toBe(before[1]);
    expect(after.map(({ key }) => key)).toEqual([0, 5, 10, 17]);
  });
  it("starts anew with another text", () => {
    const splitter = new BlockSplitter();
    splitter.update("one\n\ntwo");
    expect(splitter.update("other").map(({ html }) => html)).toEqual(["<p>other</p>\n"]);
  });
});
