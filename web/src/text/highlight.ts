// Loaded with the first block of code whose language is named.
export { default } from "highlight.js/lib/common";
