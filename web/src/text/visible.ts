// Text from a model or a file, made safe to look at: nothing invisible, nothing that turns the reading direction.

// C0 without tab and line feed, DEL, C1, and the characters that override, embed or isolate directions or that hide.
const kHidden =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

const mark = (character: string): string => {
  const code = character.codePointAt(0) ?? 0;
  if (code === 0x0d) return "";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
};

// Carriage returns go; the others are shown by their number.
export const visible = (text: string): string => text.replace(kHidden, mark);

// A token, for which blanks matter as well: the page draws it with its line feeds as ↵.
export const visibleToken = (text: string): string => visible(text).replace(/\n/g, "↵").replace(/\t/g, "⇥");

// Whether bytes are a text: valid UTF-8 without NUL.
export function decodeText(bytes: ArrayBuffer): string | undefined {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.includes("\0") ? undefined : text;
  } catch {
    return undefined;
  }
}
