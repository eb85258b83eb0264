// The choice of a system prompt: a quiet select in the composer.
import { h, stored } from "./dom.js";
import { t } from "./texts.js";

const EDIT = "edit"; // the last option is no preset: it opens the dialogue

export class Presets {
  constructor(prompts) {
    this.prompts = prompts;
    this.key = "";
    this.text = ""; // of the system prompt; "" is the operator's
    this.element = h("select", { id: "preset", "aria-label": t("preset"), title: t("preset"), onchange: () => this.#chosen() });
    prompts.changed.push(() => this.#draw());
    this.#draw();
  }

  // What is chosen for a conversation that has no question yet is the browser's to remember
  about(conversation) {
    this.key = ["new", "temporary"].includes(conversation) ? `preset.${conversation}` : "";
    this.use(this.key && stored(this.key));
  }

  begun() {
    if (this.key) stored(this.key, "");
    this.key = "";
  }

  // The prompt that the conversation was last asked with
  use(text) {
    this.text = text;
    this.#draw();
  }

  // Of a prompt that is there no more nothing is sent: what is seen is what is asked with
  get system() {
    return this.#found()?.text ?? "";
  }

  #found() {
    return this.prompts.of("system").find((prompt) => prompt.text === this.text);
  }

  #draw() {
    const option = ({ id, title }) => h("option", { value: id }, title);
    this.element.replaceChildren(
      h("option", { value: "" }, t("preset_default")),
      ...this.prompts.of("system").map(option),
      h("option", { value: EDIT }, t("edit_prompts")),
    );
    this.element.value = this.#found()?.id ?? "";
  }

  #chosen() {
    const { value } = this.element;
    if (value === EDIT) {
      this.#draw();
      return this.prompts.edit({ kind: "system" });
    }
    this.text = this.prompts.of("system").find((prompt) => prompt.id === value)?.text ?? "";
    if (this.key) stored(this.key, this.text);
  }
}
