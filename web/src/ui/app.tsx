// The frame: pages, conversations, theme; and what a phone folds away.
import { useSignal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { ChatPage } from "../chat/chat_page";
import { notice } from "../state/session";
import { type Theme, theme } from "../state/settings";
import { texts } from "../strings";
import { ConversationList } from "./conversation_list";
import { IconButton } from "./controls";
import { Icon, type IconName } from "./icons";
import { type Page, page } from "./route";

const kPages: [Page, IconName][] = [
  ["chat", "chat"],
  ["lens", "lens"],
  ["dashboard", "chart"],
];

// A page that is loaded when it is first opened.
function Lazy({ load }: { load: () => Promise<ComponentType> }) {
  const [Loaded, setLoaded] = useState<ComponentType | undefined>();
  const [failed, setFailed] = useState(false);
  useEffect(
    () =>
      void load().then(
        (component) => setLoaded(() => component),
        () => setFailed(true),
      ),
    [load],
  );
  if (Loaded) return <Loaded />;
  if (!failed) return <p class="page-loading">{texts.app.loading}</p>;
  // The server is gone, or has another version of the app; what a browser failed to load once it does not ask for again.
  return (
    <div class="page-loading" role="alert">
      <p>{texts.app.notLoaded}</p>
      <button type="button" onClick={() => location.reload()}>
        {texts.app.reload}
      </button>
    </div>
  );
}
const loadLens = (): Promise<ComponentType> => import("../lens/lens_page").then((module) => module.LensPage);
const loadDashboard = (): Promise<ComponentType> =>
  import("../dashboard/dashboard_page").then((module) => module.DashboardPage);

export function App() {
  const menuOpen = useSignal(false);
  useEffect(() => {
    document.title = page.value === "chat" ? texts.app.name : `${texts.pages[page.value]} – ${texts.app.name}`;
  }, [page.value]);
  const closeMenu = (): void => void (menuOpen.value = false);
  return (
    <div
      class={`app ${menuOpen.value ? "menu-open" : ""}`}
      onKeyDown={(event) => event.key === "Escape" && closeMenu()}
    >
      <a
        class="skip"
        href="#main"
        onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}
      >
        {texts.app.skip}
      </a>
      <div class="phone-bar">
        <IconButton
          icon="menu"
          label={texts.app.menu}
          expanded={menuOpen.value}
          onClick={() => (menuOpen.value = !menuOpen.value)}
        />
        <span class="brand">{texts.pages[page.value]}</span>
      </div>
      {menuOpen.value && <div class="scrim" onClick={closeMenu} />}
      <aside class="side" id="side">
        <a class="brand" href="#/chat" onClick={closeMenu}>
          <img src="/icon.svg" alt="" width="26" height="26" />
          {texts.app.name}
        </a>
        <nav aria-label={texts.app.nav}>
          {kPages.map(([name, icon]) => (
            <a
              key={name}
              href={`#/${name}`}
              aria-current={page.value === name ? "page" : undefined}
              onClick={closeMenu}
            >
              <Icon name={icon} />
              {texts.pages[name]}
            </a>
          ))}
        </nav>
        <ConversationList onChosen={closeMenu} />
        <label class="theme">
          <span class="visually-hidden">{texts.theme.label}</span>
          <select value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value as Theme)}>
            <option value="auto">{texts.theme.auto}</option>
            <option value="light">{texts.theme.light}</option>
            <option value="dark">{texts.theme.dark}</option>
          </select>
        </label>
      </aside>
      <main id="main" tabIndex={-1}>
        {page.value === "chat" && <ChatPage />}
        {page.value === "lens" && <Lazy key="lens" load={loadLens} />}
        {page.value === "dashboard" && <Lazy key="dashboard" load={loadDashboard} />}
      </main>
      <div class="notice" role="status" aria-live="polite">
        {notice.value && <p>{notice.value}</p>}
      </div>
    </div>
  );
}
