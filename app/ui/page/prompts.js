// The prompts of the person and the operator, and the dialogue that edits the person's own.
import { get, post, put, remove } from "./api.js";
import { h, iconButton } from "./dom.js";
import { dialogue } from "./notices.js";
import { t } from "./texts.js";

const KINDS = ["saved", "system"];
const MAX_TITLE = 80;
const MAX_TEXT = 8000;

export class Prompts {
  // `fail` shows an error; `changed` is called after each loading of the prompts
  constructor(fail) {
    this.fail = fail;
    this.own = [];
    this.shared = [];
    this.changed = [];
  }

  async load() {
    try {
      const { own, shared } = await get("chat/prompts");
      this.own = own;
      this.shared = shared.map((prompt) => ({ ...prompt, id: `shared:${prompt.title}` }));
    } catch (error) {
      this.fail(error);
    }
    for (const draw of this.changed) draw();
  }

  of(kind) {
    return [...this.own, ...this.shared].filter((prompt) => prompt.kind === kind);
  }

  // Edit the person's prompts; `draft` is the initial text of a new one
  edit(draft = {}) {
    const list = h("ul", { class: "prompts" });
    const form = new PromptForm(draft, (prompt, id) => this.#save(() => (id ? put(`chat/prompts/${id}`, prompt) : post("chat/prompts", prompt))));
    const draw = () =>
      list.replaceChildren(...this.own.map((prompt) => this.#row(prompt, form)), ...(this.own.length ? [] : [h("li", { class: "small" }, t("no_prompts"))]));
    this.changed.push(draw);
    draw();
    const box = dialogue(t("my_prompts"), list, form.element);
    box.addEventListener("close", () => this.changed.splice(this.changed.indexOf(draw), 1));
    form.focus();
  }

  #row(prompt, form) {
    const { id, title, kind } = prompt;
    const take = async () => {
      if (!(await this.#save(() => remove(`chat/prompts/${id}`)))) return;
      form.undo(t("deleted", { title }), () => this.#save(() => post("chat/prompts", { kind, title, text: prompt.text })));
    };
    return h(
      "li",
      { class: "prompt" },
      h("span", { class: "prompt-title" }, title),
      h("span", { class: "small" }, t(`prompt_${kind}`)),
      iconButton("edit", t("edit_prompt", { title }), () => form.take(prompt), { "data-does": "edit-prompt" }),
      iconButton("close", t("remove_prompt", { title }), take, { "data-does": "remove-prompt" }),
    );
  }

  // Returns whether the prompt was stored; if so, the prompts are reloaded
  async #save(store) {
    try {
      await store();
    } catch (error) {
      document.querySelector("dialog.dialogue")?.close(); // the error is shown above the composer
      this.fail(error);
      return false;
    }
    await this.load();
    return true;
  }
}

class PromptForm {
  constructor({ kind = "saved", text = "" }, save) {
    this.id = "";
    this.kind = h("select", { id: "prompt-kind" }, KINDS.map((each) => h("option", { value: each }, t(`prompt_${each}`))));
    this.title = h("input", { type: "text", id: "prompt-title", required: true, maxlength: String(MAX_TITLE) });
    this.text = h("textarea", { id: "prompt-text", required: true, rows: "4", maxlength: String(MAX_TEXT) });
    this.said = h("p", { class: "small", role: "status" });
    this.kind.addEventListener("change", () => this.#explain());
    this.kind.value = kind;
    this.text.value = text;
    const submit = async (event) => {
      event.preventDefault();
      const prompt = { kind: this.kind.value, title: this.title.value, text: this.text.value };
      if (!(await save(prompt, this.id))) return;
      this.take({ kind: prompt.kind, title: "", text: "" });
      this.said.textContent = t("prompt_is_kept", { title: prompt.title });
    };
    this.element = h(
      "form",
      { onsubmit: submit },
      h("label", { class: "field" }, h("span", {}, t("kind_of_prompt")), this.kind),
      h("label", { class: "field" }, h("span", {}, t("title")), this.title),
      h("label", { class: "field" }, h("span", {}, t("text_of_prompt")), this.text),
      this.said,
      h("div", { class: "row-of" }, h("button", { class: "primary", id: "save-prompt" }, t("save"))),
    );
    this.#explain();
  }

  focus() {
    this.title.focus();
  }

  // The edited prompt; without an id it becomes a new one
  take({ id = "", kind, title, text }) {
    this.id = id;
    this.kind.value = kind;
    this.title.value = title;
    this.text.value = text;
    this.#explain();
    this.focus();
  }

  undo(words, act) {
    const again = () => (this.#explain(), act());
    this.said.replaceChildren(words, h("button", { type: "button", class: "link", onclick: again }, t("undo")));
  }

  #explain() {
    this.said.textContent = t(`prompt_${this.kind.value}_is`, { field: "{{text}}" });
  }
}
