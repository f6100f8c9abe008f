// A request as a program would make it.
import { useState } from "preact/hooks";
import { codeFor, type Language } from "../model/code";
import { texts } from "../strings";
import { visible } from "../text/visible";
import { CopyButton, Dialog } from "./controls";

const kNames: Record<Language, string> = { curl: "curl", python: "Python", javascript: "JavaScript" };

export function CodeDialog(props: { path: string; body?: object; onClose: () => void }) {
  const [language, setLanguage] = useState<Language>("curl");
  const code = codeFor(language, { origin: location.origin, path: props.path, body: props.body });
  return (
    <Dialog title={texts.code.title} class="wide" onClose={props.onClose}>
      <div class="row between">
        <fieldset class="segments">
          <legend class="visually-hidden">{texts.code.language}</legend>
          {(Object.keys(kNames) as Language[]).map((name) => (
            <label key={name}>
              <input type="radio" name="language" checked={language === name} onChange={() => setLanguage(name)} />
              <span>{kNames[name]}</span>
            </label>
          ))}
        </fieldset>
        <CopyButton text={() => code} />
      </div>
      <pre class="code" tabIndex={0}>
        {visible(code)}
      </pre>
      <p class="muted small">{texts.code.hint}</p>
    </Dialog>
  );
}
