// The documents that questions are answered from: the choice of a collection, and the dialogue that
// shows what is in each and adds files.
import { Refused, get, remove, upload } from "./api.js";
import { h, iconButton, stored } from "./dom.js";
import { dialogue } from "./notices.js";
import { number, t } from "./texts.js";

const KINDS = ".pdf,.docx,.md,.markdown,.html,.htm,.txt,.csv";
const MEGABYTE = 2 ** 20;
const same = (a, b) => a?.name === b?.name && Boolean(a?.shared) === Boolean(b?.shared);

export class Documents {
  // `fail` shows an error above the composer
  constructor(fail) {
    this.fail = fail;
    this.chosen = null; // { name, shared }
    this.key = "";
    this.listed = { own: [], shared: [], max_bytes: 0 };
    this.button = iconButton("clip", t("documents"), () => this.open(), { id: "documents" });
    this.chip = h("div", { class: "of-documents", hidden: true });
    this.list = h("ul", { class: "collections" });
    this.said = h("p", { class: "small", role: "status", id: "documents-said" });
  }

  // Each conversation remembers its choice in this browser
  about(conversation) {
    this.key = `documents.${conversation}`;
    this.#take(JSON.parse(stored(this.key) || "null"));
  }

  begun(conversation) {
    stored(this.key, "");
    this.key = `documents.${conversation}`;
    this.#choose(this.chosen);
  }

  async open() {
    this.said.textContent = "";
    try {
      this.listed = await get("api/documents");
    } catch (error) {
      return this.fail(error);
    }
    this.#draw();
    const box = dialogue(t("documents"), h("p", { class: "small" }, t("documents_is")), this.list, this.#form(), this.said);
    box.id = "documents-box";
    return box;
  }

  // Add files, dropped or chosen, to a collection of the person's, and ask it from now on
  async add(files, name) {
    const refused = [];
    for (const file of files) {
      if (file.size > this.listed.max_bytes) {
        refused.push(t("document_too_large", { name: file.name, limit: this.listed.max_bytes / MEGABYTE }));
        continue;
      }
      this.said.textContent = t("document_is_read", { name: file.name });
      const asked = new URLSearchParams({ collection: name, name: file.name });
      try {
        const { collection } = await upload(`api/documents?${asked}`, file);
        this.#choose({ name: collection, shared: false });
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        refused.push(error.kind === "Unreachable" ? t("unreachable") : error.message);
      }
      this.listed = await get("api/documents");
      this.#draw();
    }
    this.said.textContent = refused.join(" ") || t("documents_are_read");
  }

  #form() {
    const own = this.chosen && !this.chosen.shared ? this.chosen.name : this.listed.own[0]?.collection;
    const name = h("input", { type: "text", id: "collection-name", required: true, maxlength: "120" });
    name.value = own ?? t("my_documents");
    const chooser = h("input", { type: "file", id: "document-files", "aria-label": t("add_files"), class: "unseen", tabindex: "-1", multiple: true, accept: KINDS });
    chooser.addEventListener("change", async () => {
      await this.add([...chooser.files], name.value.trim() || t("my_documents"));
      chooser.value = "";
    });
    return h(
      "form",
      { class: "add-files", onsubmit: (event) => (event.preventDefault(), chooser.click()) },
      h("label", { class: "field" }, h("span", {}, t("into_collection")), name),
      h("button", { class: "primary", id: "add-files" }, t("add_files")),
      chooser,
    );
  }

  #draw() {
    const collections = new Map();
    for (const shared of [false, true]) {
      for (const document of shared ? this.listed.shared : this.listed.own) {
        const key = `${shared} ${document.collection}`;
        if (!collections.has(key)) collections.set(key, { name: document.collection, shared, documents: [] });
        collections.get(key).documents.push(document);
      }
    }
    const none = this.#row(null, t("no_documents"), []);
    this.list.replaceChildren(none, ...[...collections.values()].map((each) => this.#collection(each)));
  }

  #collection({ name, shared, documents }) {
    const rows = documents.map((document) =>
      h(
        "li",
        {},
        h("span", { class: "document-name" }, document.name),
        shared ? null : iconButton("close", t("remove_document", { name: document.name }), () => this.#remove(document), { "data-does": "remove-document" }),
      ),
    );
    const count = documents.length === 1 ? t("one_document") : t("so_many_documents", { count: number(documents.length) });
    const words = shared ? t("shared_documents", { count }) : count;
    return this.#row({ name, shared }, name, [h("details", {}, h("summary", { class: "small" }, words), h("ul", {}, rows))]);
  }

  #row(collection, name, below) {
    const radio = h("input", { type: "radio", name: "collection", checked: same(collection, this.chosen), onchange: () => this.#choose(collection) });
    return h("li", { class: "collection" }, h("label", {}, radio, h("span", {}, name)), ...below);
  }

  async #remove(document) {
    try {
      await remove(`api/documents/${document.id}`);
      this.listed = await get("api/documents");
      if (this.chosen && !this.chosen.shared && !this.listed.own.some((each) => each.collection === this.chosen.name)) this.#choose(null);
      this.#draw();
      this.said.textContent = t("document_is_removed", { name: document.name });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.said.textContent = error.message;
    }
  }

  #choose(collection) {
    stored(this.key, collection ? JSON.stringify(collection) : "");
    this.#take(collection);
  }

  #take(collection) {
    this.chosen = collection;
    this.button.setAttribute("aria-pressed", String(Boolean(collection)));
    this.chip.hidden = !collection;
    if (!collection) return;
    this.chip.replaceChildren(
      h("button", { type: "button", class: "link", onclick: () => this.open() }, t("answered_from", { name: collection.name })),
      iconButton("close", t("no_documents"), () => this.#choose(null), { "data-does": "no-documents" }),
    );
  }
}
