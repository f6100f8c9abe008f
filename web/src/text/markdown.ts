// Markdown to safe HTML, block by block: a block that is complete is never looked at again while an answer grows.
import { tex } from "@mdit/plugin-tex";
import DOMPurify from "dompurify";
import MarkdownIt from "markdown-it";
import { texts } from "../strings";
import { visible } from "./visible";

const kDataImage = /^data:image\/(png|jpeg|gif|webp);base64,/i;

// Maths is left as its source in <code class="tex">, which src/text/enrich.ts draws once the library is there.
const markdown = new MarkdownIt({ html: false, linkify: true, breaks: false, typographer: false }).use(tex, {
  delimiters: "all",
  render: (source: string, display: boolean) =>
    `<code class="tex${display ? " tex-display" : ""}">${escapeHtml(source)}</code>`,
});
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false });

function escapeHtml(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");
}

// A picture from elsewhere would be a request to elsewhere: it becomes a link that somebody may or may not follow.
markdown.renderer.rules.image = (tokens, index) => {
  const token = tokens[index];
  const source = String(token?.attrGet("src") ?? "");
  const alt = escapeHtml(token?.content ?? "");
  if (kDataImage.test(source)) return `<img src="${escapeHtml(source)}" alt="${alt}">`;
  return `<a href="${escapeHtml(source)}">${texts.chat.image}: ${alt || escapeHtml(source)}</a>`;
};
// A wide table scrolls by itself instead of the page.
markdown.renderer.rules.table_open = () => '<div class="table-scroll" tabindex="0"><table>';
markdown.renderer.rules.table_close = () => "</table></div>";

// Columns are aligned by an attribute: the content security policy takes no style.
for (const rule of ["th_open", "td_open"] as const)
  markdown.renderer.rules[rule] = (tokens, index, options, _env, self) => {
    const token = tokens[index];
    const align = /text-align:\s*(\w+)/.exec(String(token?.attrGet("style") ?? ""))?.[1];
    if (token && align) token.attrs = [["align", align]];
    return self.renderToken(tokens, index, options);
  };

const purify = DOMPurify(window);
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  // Where a link leads is shown, as its text may say anything.
  node.setAttribute("title", node.getAttribute("href") ?? "");
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

const kTags =
  "p br hr h1 h2 h3 h4 h5 h6 strong em s code pre blockquote ul ol li table thead tbody tr th td a img div span".split(
    " ",
  );

// What may be put into the page: markdown's own elements, no styles, ids, forms, scripts or handlers, links to the web alone.
export function sanitize(html: string): DocumentFragment {
  return purify.sanitize(html, {
    RETURN_DOM_FRAGMENT: true,
    ALLOWED_TAGS: kTags,
    ALLOWED_ATTR: ["href", "src", "alt", "class", "start", "align", "tabindex"],
    ADD_URI_SAFE_ATTR: ["align", "start", "tabindex"], // these hold no address, which the next line would ask of them
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp);base64,)/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
  });
}

export interface Block {
  key: number; // where it starts in the text
  html: string; // still to be sanitised
}

// Splits a growing text. `update` takes the whole text so far; blocks before the last keep their identity.
export class BlockSplitter {
  private done: Block[] = [];
  private text = "";
  private settled = 0; // characters of `text` that `done` holds
  private env: object = {};

  update(source: string): Block[] {
    const text = visible(source);
    if (!text.startsWith(this.text.slice(0, this.settled))) {
      this.done = [];
      this.settled = 0;
      this.env = {};
    }
    this.text = text;
    const tail = text.slice(this.settled);
    const tokens = markdown.parse(tail, this.env);
    const lineStarts = [0];
    for (let at = tail.indexOf("\n"); at >= 0; at = tail.indexOf("\n", at + 1)) lineStarts.push(at + 1);

    const blocks: Block[] = [];
    for (let from = 0; from < tokens.length;) {
      let to = from;
      for (let depth = 0; to < tokens.length;) {
        depth += tokens[to]?.nesting ?? 0;
        ++to;
        if (depth === 0) break;
      }
      const start = lineStarts[tokens[from]?.map?.[0] ?? 0] ?? 0;
      const html = markdown.renderer.render(tokens.slice(from, to), markdown.options, this.env);
      blocks.push({ key: this.settled + start, html });
      from = to;
    }
    // Only the last block can still change, and what comes can only add to it.
    const last = blocks[blocks.length - 1];
    if (last && blocks.length > 1) {
      this.done = [...this.done, ...blocks.slice(0, -1)];
      this.settled = last.key;
      return [...this.done, last];
    }
    return [...this.done, ...blocks];
  }
}
