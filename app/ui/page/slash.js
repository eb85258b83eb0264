// Saved prompts in the composer: "/" at the beginning opens their list, and Tab moves through the
// {{fields}} of the chosen prompt.
import { h } from "./dom.js";
import { announce } from "./notices.js";
import { t } from "./texts.js";

const FIELD = /\{\{[^{}\n]+\}\}/g;

export class SlashList {
  // `put` sets the text of the box
  constructor(box, prompts, put) {
    this.box = box;
    this.prompts = prompts;
    this.put = put;
    this.options = []; // [element, function called when it is chosen]
    this.at = -1;
    this.dismissed = false; // closed by Esc, until the box is empty again
    this.fills = false; // whether Tab moves from field to field
    this.element = h("ul", { class: "slash", id: "slash", role: "listbox", "aria-label": t("saved_prompts"), hidden: true });
    box.setAttribute("aria-controls", "slash");
    box.setAttribute("aria-autocomplete", "list");
    box.addEventListener("blur", () => this.#close());
  }

  // The text in the box has changed
  typed() {
    const { value } = this.box;
    if (!value) this.dismissed = this.fills = false;
    if (this.dismissed || !value.startsWith("/") || value.includes("\n")) return this.#close();
    this.#open(value.slice(1).trim());
  }

  // Returns whether the key was handled by the list or a field
  pressed(event) {
    const act = this.element.hidden ? this.#fieldKeys(event) : this.#listKeys(event);
    if (!act) return false;
    event.preventDefault();
    event.stopPropagation();
    act();
    return true;
  }

  #listKeys({ key, shiftKey, isComposing }) {
    if (isComposing) return null;
    const chosen = this.options[this.at]?.[1];
    const count = this.options.length;
    return {
      ArrowDown: () => this.#mark((this.at + 1) % count),
      ArrowUp: () => this.#mark((this.at > 0 ? this.at : count) - 1),
      Escape: () => ((this.dismissed = true), this.#close()),
      Enter: chosen && !shiftKey ? chosen : null,
      Tab: chosen && !shiftKey ? chosen : null,
    }[key];
  }

  #fieldKeys({ key, shiftKey }) {
    if (key !== "Tab" || !this.fills) return null;
    const fields = [...this.box.value.matchAll(FIELD)];
    const { selectionStart: begin, selectionEnd: end } = this.box;
    const next = shiftKey ? fields.findLast((field) => field.index < begin) : fields.find((field) => field.index >= end);
    const other = next ?? fields.find((field) => field.index !== begin);
    this.fills = fields.length > 0;
    return other ? () => this.#select(other) : null;
  }

  #open(words) {
    const wanted = words.toLowerCase();
    const found = this.prompts.of("saved").filter(({ title, text }) => `${title}\n${text}`.toLowerCase().includes(wanted));
    this.options = found.map((prompt) => [this.#option(prompt.title, prompt.text), () => this.#choose(prompt)]);
    this.options.push([this.#option(t("save_as_prompt"), ""), () => this.#save(words)]);
    this.options.forEach(([element, act], at) => {
      element.id = `slash-${at}`;
      element.addEventListener("mousedown", (event) => event.preventDefault()); // the box keeps the focus
      element.addEventListener("click", act);
    });
    this.element.replaceChildren(...this.options.map(([element]) => element));
    this.element.hidden = false;
    this.#mark(found.length || !words ? 0 : -1); // without a match, Enter sends the text
    announce(t("prompts_found", { count: found.length }));
  }

  #option(title, text) {
    return h("li", { role: "option", "aria-selected": "false" }, h("span", {}, title), text && h("small", {}, text));
  }

  #mark(at) {
    this.at = at;
    this.options.forEach(([element], each) => element.setAttribute("aria-selected", String(each === at)));
    const active = this.options[at]?.[0];
    if (active) this.box.setAttribute("aria-activedescendant", active.id);
    else this.box.removeAttribute("aria-activedescendant");
    active?.scrollIntoView({ block: "nearest" });
  }

  #close() {
    this.element.hidden = true;
    this.options = [];
    this.box.removeAttribute("aria-activedescendant");
  }

  #choose({ text }) {
    this.#close();
    this.put(text);
    this.box.focus();
    const first = [...text.matchAll(FIELD)][0];
    this.fills = Boolean(first);
    if (first) this.#select(first);
    else this.box.setSelectionRange(text.length, text.length);
  }

  #select(field) {
    this.box.setSelectionRange(field.index, field.index + field[0].length);
  }

  #save(text) {
    this.#close();
    this.put("");
    this.prompts.edit({ kind: "saved", text });
  }
}
