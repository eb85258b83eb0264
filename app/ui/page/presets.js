// The choice of a system prompt: a select element in the composer.
import { h, stored } from "./dom.js";
import { t } from "./texts.js";

const EDIT = "edit"; // the last option opens the dialogue

export class Presets {
  constructor(prompts) {
    this.prompts = prompts;
    this.key = "";
    this.text = ""; // the system prompt; "" is the operator's
    this.element = h("select", { id: "preset", "aria-label": t("preset"), title: t("preset"), onchange: () => this.#chosen() });
    prompts.changed.push(() => this.#draw());
    this.#draw();
  }

  // The browser remembers the choice for conversations without a question
  about(conversation) {
    this.key = ["new", "temporary"].includes(conversation) ? `preset.${conversation}` : "";
    this.use(this.key && stored(this.key));
  }

  begun() {
    if (this.key) stored(this.key, "");
    this.key = "";
  }

  // Select the prompt of the conversation's last question
  use(text) {
    this.text = text;
    this.#draw();
  }

  // The text of a deleted prompt is not sent: the visible choice is the one that is used
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
