// Text of an answer. Blocks that stand are left alone while the last one grows.
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { BlockSplitter, sanitize } from "../text/markdown";
import { enrich } from "../text/enrich";
import { visible } from "../text/visible";
import { memo } from "../ui/memo";

const BlockView = memo(function BlockView({ html, complete }: { html: string; complete: boolean }) {
  const ref = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const root = ref.current;
    if (!root) return;
    root.replaceChildren(sanitize(html));
    enrich(root, complete);
  }, [html, complete]);
  return <div ref={ref} class="block" />;
});

export function MarkdownView({ text, complete }: { text: string; complete: boolean }) {
  const splitter = useRef<BlockSplitter>();
  const blocks = useMemo(() => (splitter.current ??= new BlockSplitter()).update(text), [text]);
  return (
    <div class="markdown" dir="auto">
      {blocks.map((block, i) => (
        <BlockView key={block.key} html={block.html} complete={complete || i < blocks.length - 1} />
      ))}
    </div>
  );
}

const kPiece = 3000; // characters

// Cuts at line feeds where it can, so that the pieces before the last stay the same while the text grows.
export function pieces(text: string): string[] {
  const list: string[] = [];
  for (let from = 0; from < text.length;) {
    let to = from + kPiece;
    if (to < text.length) {
      const feed = text.indexOf("\n", to);
      to = feed >= 0 && feed < to + kPiece ? feed + 1 : to;
      // Never between the halves of a character.
      if (/[\uD800-\uDBFF]/.test(text[to - 1] ?? "")) --to;
    }
    list.push(text.slice(from, to));
    from = to;
  }
  return list;
}

const Piece = memo(function Piece({ text }: { text: string }) {
  return <div class="piece">{visible(text.endsWith("\n") ? text.slice(0, -1) : text)}</div>;
});

// Text as it is.
export function PlainView({ text }: { text: string }) {
  return (
    <div class="plain" dir="auto">
      {pieces(text).map((piece, i) => (
        <Piece key={i} text={piece} />
      ))}
    </div>
  );
}
