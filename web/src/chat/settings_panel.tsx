// What this conversation is asked with, and the key for the server.
import { useState } from "preact/hooks";
import type { Sampling } from "../api/types";
import { parseTools } from "../model/tools";
import { changeSettings, current, modelOf, models, refreshModels } from "../state/session";
import { apiKey, rememberKey } from "../state/settings";
import { texts } from "../strings";
import { Dialog, Switch } from "../ui/controls";

type NumberKey = Exclude<keyof Sampling, "stop">;
const kNumbers: { key: NumberKey; min?: number; max?: number; step: number }[] = [
  { key: "temperature", min: 0, max: 2, step: 0.05 },
  { key: "top_p", min: 0, max: 1, step: 0.01 },
  { key: "top_k", min: 0, step: 1 },
  { key: "min_p", min: 0, max: 1, step: 0.01 },
  { key: "presence_penalty", min: -2, max: 2, step: 0.1 },
  { key: "frequency_penalty", min: -2, max: 2, step: 0.1 },
  { key: "max_tokens", min: 1, step: 1 },
  { key: "seed", step: 1 },
];

function SamplingFields() {
  const { sampling } = current.value.settings;
  const set = (change: Sampling): void => changeSettings({ sampling: { ...sampling, ...change } });
  return (
    <>
      <p class="muted small">{texts.settings.samplingHint}</p>
      <div class="fields">
        {kNumbers.map(({ key, min, max, step }) => (
          <label class="field" key={key}>
            <span>{texts.settings[key]}</span>
            <input
              type="number"
              inputMode="decimal"
              min={min}
              max={max}
              step={step}
              value={sampling[key] ?? ""}
              placeholder={texts.settings.range(min, max)}
              onChange={(event) => {
                const value = event.currentTarget.valueAsNumber;
                set({ [key]: Number.isNaN(value) ? undefined : value });
              }}
            />
          </label>
        ))}
      </div>
      <label class="field">
        <span>{texts.settings.stop}</span>
        <textarea
          rows={2}
          value={(sampling.stop ?? []).join("\n")}
          onChange={(event) =>
            set({
              stop: event.currentTarget.value
                .split("\n")
                .filter((line) => line !== "")
                .slice(0, 16),
            })
          }
        />
      </label>
    </>
  );
}

function ToolFields() {
  const { settings } = current.value;
  const parsed = parseTools(settings.tools);
  return (
    <>
      <Switch
        label={texts.settings.calculator}
        checked={settings.calculator}
        onChange={(calculator) => changeSettings({ calculator })}
      />
      <label class="field">
        <span>{texts.settings.toolsJson}</span>
        <textarea
          rows={5}
          class="mono"
          spellcheck={false}
          value={settings.tools}
          aria-describedby="tools-hint"
          aria-invalid={parsed.problem !== undefined}
          onInput={(event) => changeSettings({ tools: event.currentTarget.value })}
        />
      </label>
      <p id="tools-hint" class={`small ${parsed.problem === undefined ? "muted" : "bad"}`}>
        {parsed.problem ??
          (parsed.tools?.length ? texts.settings.toolCount(parsed.tools.length) : texts.settings.toolsHint)}
      </p>
    </>
  );
}

export function ConnectionFields() {
  const [key, setKey] = useState(apiKey.value);
  const apply = (): void => {
    if (key.trim() === apiKey.value) return;
    apiKey.value = key.trim();
    void refreshModels();
  };
  return (
    <>
      <form class="key" onSubmit={(event) => (event.preventDefault(), apply())}>
        <label class="field">
          <span>{texts.settings.key}</span>
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            value={key}
            onInput={(event) => setKey(event.currentTarget.value)}
            onChange={apply}
          />
        </label>
        <button type="submit" class="primary">
          {texts.settings.useKey}
        </button>
      </form>
      <p class="muted small">{texts.settings.keyHint}</p>
      <label class="check">
        <input
          type="checkbox"
          checked={rememberKey.value}
          onChange={(event) => (rememberKey.value = event.currentTarget.checked)}
        />
        {texts.settings.remember}
      </label>
    </>
  );
}

export function SettingsPanel({ onClose }: { onClose: () => void }) {
  const { settings } = current.value;
  return (
    <Dialog title={texts.settings.title} class="drawer" onClose={onClose}>
      <label class="field">
        <span>{texts.settings.model}</span>
        <select
          value={modelOf(settings)?.id ?? ""}
          onChange={(event) => changeSettings({ model: event.currentTarget.value })}
        >
          {models.value.length === 0 && <option value="">{texts.chat.noModel}</option>}
          {models.value.map(({ id }) => (
            <option key={id} value={id}>
              {id}
            </option>
          ))}
        </select>
      </label>
      <label class="field">
        <span>{texts.settings.system}</span>
        <textarea
          rows={4}
          value={settings.system}
          onInput={(event) => changeSettings({ system: event.currentTarget.value })}
        />
      </label>
      <details open>
        <summary>{texts.settings.tools}</summary>
        <ToolFields />
      </details>
      <details>
        <summary>{texts.settings.sampling}</summary>
        <SamplingFields />
      </details>
      <Switch
        label={texts.settings.logprobs}
        checked={settings.logprobs}
        onChange={(logprobs) => changeSettings({ logprobs })}
      />
      <details>
        <summary>{texts.settings.connection}</summary>
        <ConnectionFields />
      </details>
    </Dialog>
  );
}
