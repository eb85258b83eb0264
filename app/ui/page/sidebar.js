// The side bar: conversations by day, search, and the actions on a conversation.
import { get, post, remove } from "./api.js";
import { h, icon, iconButton } from "./dom.js";
import { dialogue, toast } from "./notices.js";
import { day, t } from "./texts.js";

const UNDO_SECONDS = 8;
const TYPING_PAUSE_MS = 150;
export const FEEDBACK = "feedback"; // marks "My feedback" instead of a conversation

export class Sidebar {
  // `actions` has open(id), begin(), feedback(), settings(), renamed(summary), fail(error); `account` is
  // the person's name, null where there are no accounts
  constructor(actions, account) {
    this.actions = actions;
    this.current = "";
    this.rows = { pinned: [], conversations: [], more: false };
    this.search = h("input", {
      type: "search", id: "search", placeholder: t("search"), "aria-label": t("search"), oninput: () => this.#typed(),
    });
    this.list = h("nav", { class: "conversations", "aria-label": t("conversations") });
    this.feedbackRow = h(
      "a",
      { class: "row", id: "my-feedback", href: "?view=feedback", onclick: (event) => this.#feedback(event) },
      icon("feedback"),
      t("my_feedback"),
    );
    this.element = h(
      "aside",
      { class: "side", id: "side", "aria-label": t("conversations") },
      h("div", { class: "brand" }, h("span", {}, "Burnish"), iconButton("menu", t("hide_side"), () => this.toggle(false))),
      h("button", { type: "button", class: "row new", id: "new-chat", onclick: () => this.#begin() }, icon("plus"), t("new_chat")),
      h("label", { class: "row search" }, icon("search"), this.search),
      this.list,
      h(
        "footer",
        {},
        this.feedbackRow,
        account && h("a", { class: "row", id: "account", href: "account" }, icon("person"), account),
        h("button", { type: "button", class: "row", id: "settings", onclick: actions.settings }, icon("sliders"), t("settings")),
      ),
    );
    this.shade = h("div", { class: "shade", onclick: () => this.toggle(false) });
  }

  toggle(open = !this.isOpen) {
    document.getElementById("burnish").classList.toggle(this.narrow ? "side-open" : "side-closed", this.narrow ? open : !open);
    if (open && this.narrow) this.element.querySelector("button").focus();
  }

  #begin() {
    this.toggle(!this.narrow);
    this.actions.begin();
  }

  #feedback(event) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // the browser opens a new tab
    event.preventDefault();
    this.toggle(!this.narrow);
    this.actions.feedback();
  }

  get narrow() {
    return matchMedia("(max-width: 800px)").matches;
  }

  get isOpen() {
    const classes = document.getElementById("burnish").classList;
    return this.narrow ? classes.contains("side-open") : !classes.contains("side-closed");
  }

  async load() {
    try {
      this.rows = await get("chat/conversations");
      this.#draw();
    } catch (error) {
      this.actions.fail(error);
    }
  }

  // A conversation that has changed moves to the top of its list
  show(summary) {
    const others = (rows) => rows.filter((row) => row.id !== summary.id);
    this.rows.pinned = others(this.rows.pinned);
    this.rows.conversations = others(this.rows.conversations);
    (summary.pinned ? this.rows.pinned : this.rows.conversations).unshift(summary);
    if (!this.search.value.trim()) this.#draw();
  }

  // Mark the current entry: a conversation's id, or FEEDBACK
  mark(id) {
    this.current = id;
    this.feedbackRow.setAttribute("aria-current", id === FEEDBACK ? "page" : "false");
    for (const row of this.list.querySelectorAll(".conversation")) {
      row.toggleAttribute("data-current", row.dataset.id === id);
      row.querySelector("a").setAttribute("aria-current", row.dataset.id === id ? "page" : "false");
    }
  }

  #typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.#find(), TYPING_PAUSE_MS);
  }

  async #find() {
    const words = this.search.value.trim();
    if (!words) return this.#draw();
    try {
      const { found } = await get(`chat/conversations?words=${encodeURIComponent(words)}`);
      if (words !== this.search.value.trim()) return;
      this.list.replaceChildren(
        found.length ? this.#group(t("found"), found) : h("p", { class: "empty" }, t("nothing_found")),
      );
    } catch (error) {
      this.actions.fail(error);
    }
  }

  async #more() {
    const last = this.rows.conversations.at(-1);
    const next = await get(`chat/conversations?before=${last.at}&before_id=${last.id}`);
    this.rows.conversations.push(...next.conversations);
    this.rows.more = next.more;
    this.#draw();
  }

  #draw() {
    const groups = Map.groupBy
      ? Map.groupBy(this.rows.conversations, (row) => day(row.at))
      : this.rows.conversations.reduce((map, row) => map.set(day(row.at), [...(map.get(day(row.at)) ?? []), row]), new Map());
    this.list.replaceChildren(
      ...(this.rows.pinned.length ? [this.#group(t("pinned"), this.rows.pinned)] : []),
      ...[...groups].map(([title, rows]) => this.#group(title, rows)),
      ...(this.rows.more ? [h("button", { type: "button", class: "row", onclick: () => this.#more() }, t("show_more"))] : []),
    );
    this.mark(this.current);
  }

  #group(title, rows) {
    return h("section", {}, h("h2", {}, title), h("ul", {}, rows.map((row) => this.#row(row))));
  }

  #row(row) {
    const follow = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // the browser opens a new tab
      event.preventDefault();
      this.toggle(!this.narrow);
      this.actions.open(row.id);
    };
    const menu = iconButton("more", t("more_about", { title: row.title }), () => this.#menu(row, menu), { "aria-haspopup": "menu" });
    const item = h(
      "li",
      { class: "conversation" },
      h("a", { href: `?c=${row.id}`, onclick: follow, title: row.title }, h("span", {}, row.title), row.excerpt && h("small", {}, row.excerpt)),
      menu,
    );
    item.dataset.id = row.id;
    return item;
  }

  #menu(row, anchor) {
    const item = (label, act) => h("button", { type: "button", role: "menuitem", onclick: () => (box.close(), act()) }, label);
    const box = h(
      "dialog",
      { class: "menu", "aria-label": row.title, onclick: (event) => event.target === box && box.close() },
      h(
        "div",
        { role: "menu" },
        item(t("rename"), () => this.#rename(row)),
        item(row.pinned ? t("unpin") : t("pin"), () => this.#change(row, { pinned: !row.pinned })),
        item(t("export_markdown"), () => location.assign(`chat/conversations/${row.id}/export`)),
        item(t("export_json"), () => location.assign(`chat/conversations/${row.id}/export?form=json`)),
        item(t("delete"), () => this.#delete(row)),
      ),
    );
    const place = anchor.getBoundingClientRect();
    box.style.left = `${Math.min(place.left, innerWidth - 200)}px`;
    box.style.top = `${Math.min(place.bottom, innerHeight - 220)}px`;
    box.addEventListener("close", () => box.remove());
    document.getElementById("burnish").append(box);
    box.showModal();
  }

  #rename(row) {
    const name = h("input", { type: "text", value: row.title, "aria-label": t("title"), maxlength: "200" });
    const save = (event) => {
      event.preventDefault();
      box.close();
      if (name.value.trim()) this.#change(row, { title: name.value });
    };
    const box = dialogue(t("rename"), h("form", { onsubmit: save }, name, h("button", { class: "primary" }, t("save"))));
    name.select();
  }

  async #change(row, change) {
    try {
      const { id, title, pinned, at } = await post(`chat/conversations/${row.id}`, change);
      await this.load();
      if (id === this.current) this.actions.renamed({ id, title, pinned, at });
    } catch (error) {
      this.actions.fail(error);
    }
  }

  async #delete(row) {
    try {
      await remove(`chat/conversations/${row.id}`);
    } catch (error) {
      return this.actions.fail(error);
    }
    if (row.id === this.current) this.actions.begin();
    await this.load();
    const undo = async () => {
      try {
        await post(`chat/conversations/${row.id}/restore`);
        await this.load();
        this.actions.open(row.id);
      } catch (error) {
        this.actions.fail(error);
      }
    };
    toast(t("deleted", { title: row.title }), [t("undo"), undo], UNDO_SECONDS);
  }
}
