// Import of conversations from another chat application: a file chosen in the settings or dropped.
// A dropped file of another kind is a document.
import { upload } from "./api.js";
import { h } from "./dom.js";
import { toast } from "./notices.js";
import { t } from "./texts.js";

const MEGABYTE = 2 ** 20;
const EXPORT = /\.(zip|json)$/i;
const READING_SECONDS = 12; // for a report of several sentences

export class Imports {
  // `page` has boot, fail(error), sidebar, composer and documents
  constructor(page) {
    this.page = page;
    this.curtain = h("div", { class: "curtain", hidden: true }, h("p", {}, t("import_drop")));
    this.#takeDrops();
  }

  // The element for the settings
  setting(close) {
    const chooser = h("input", { type: "file", id: "import-file", "aria-label": t("import"), class: "unseen", tabindex: "-1", accept: ".zip,.json,application/zip,application/json" });
    chooser.addEventListener("change", () => {
      close();
      this.take(chooser.files[0]);
    });
    const button = h("button", { type: "button", id: "import", class: "quiet", onclick: () => chooser.click() }, t("import_choose"));
    return [
      h("div", { class: "setting" }, h("span", {}, t("import")), button, chooser),
      h("p", { class: "small" }, t("import_is")),
      h("p", { class: "small" }, t("import_consent")),
    ];
  }

  async take(file) {
    const { boot, composer, fail, sidebar } = this.page;
    if (file.size > boot.max_import_bytes) {
      composer.complain(t("import_too_large", { limit: boot.max_import_bytes / MEGABYTE }));
      return;
    }
    const close = toast(t("importing", { name: file.name }), null, 0);
    try {
      const report = await upload("chat/import", file);
      await sidebar.load();
      toast(told(report), null, READING_SECONDS);
    } catch (error) {
      if (error.kind === "Unreachable") composer.complain(t("import_broke_off"), [t("try_again"), () => this.take(file)]);
      else fail(error);
    } finally {
      close();
    }
  }

  async #addDocuments(files) {
    const { documents } = this.page;
    const box = await documents.open();
    if (box) await documents.add(files, box.querySelector("#collection-name").value);
  }

  #takeDrops() {
    const hasFile = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      this.curtain.hidden = false;
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) this.curtain.hidden = true; // the pointer left the window
    });
    addEventListener("drop", (event) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      this.curtain.hidden = true;
      for (const open of document.querySelectorAll("dialog[open]")) open.close();
      const files = [...event.dataTransfer.files];
      if (EXPORT.test(files[0]?.name)) this.take(files[0]);
      else this.#addDocuments(files);
    });
  }
}

// The report as sentences
function told({ conversations, added, set_aside: aside }) {
  const before = conversations - added;
  const said = [added === 1 ? t("imported_one") : added ? t("imported", { count: added }) : t("imported_before")];
  if (added && before) said.push(t("imported_rest", { count: before }));
  for (const [why, count] of Object.entries(aside)) said.push(t("imported_aside", { count, why }));
  return said.join(" ");
}
