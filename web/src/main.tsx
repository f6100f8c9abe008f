import { render } from "preact";
import "./style/base.css";
import "./style/chat.css";
import { startSession } from "./state/session";
import { App } from "./ui/app";

const root = document.getElementById("app");
if (root) render(<App />, root);
void startSession();

// The worker keeps the app itself at hand; without it (or outside a secure context) the page works just the same.
if (import.meta.env.PROD && "serviceWorker" in navigator)
  navigator.serviceWorker.register("/sw.js").catch(() => undefined);
