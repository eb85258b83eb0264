// A queue of the console: one thing at a time, decided by keys alone. The next one is on the page before
// it is needed, and what was decided is sent while the next one is read. Knows nothing of what waits:
// a kind of queue says how it is fetched, shown, labelled and sent.
import { get, post } from "./api.js";
import { h } from "./dom.js";
import { announce, mountNotices, toast } from "./notices.js";
import { useTheme } from "./settings.js";
import { learn, number, t } from "./texts.js";

const LEAST_AHEAD = 3; // items on the page; fewer, and more are fetched
const UNDO_KEYS = ["u", "Backspace"];
const SKIP_KEYS = ["s"];

// A kind has: `title`, `empty_title` and `empty` (texts), `list` (the path of what waits), `path` (of one
// of them), `choices` (names of what the keys 1, 2, ... do), `label(choice)`, `draw(item)`: elements,
// `request(item, choice)`: the path and the body to send, or null to send nothing; a skip is null.
// `intercept(queue, choice)`, if it has one, says whether a choice is no decision yet
export class Queue {
  ahead = []; // the first one is shown
  settled = []; // what was decided or skipped here, the last one last
  waiting = 0; // on the server, too
  #last = Promise.resolve(); // requests leave one after the other, in the order of the keys
  #unsent = 0; // by how much those that have not arrived will change what waits
  #fetching = null;
  #drawn; // the item on the page

  constructor(kind) {
    this.kind = kind;
    this.progress = h("p", { class: "small", id: "progress" });
    this.back = h("button", { type: "button", class: "link", id: "undo", hidden: true, onclick: () => this.undo() });
    this.body = h("div", { class: "judged", id: "pair", tabindex: "0" });
    this.choices = h(
      "div",
      { class: `choices of-${kind.choices.length}`, role: "group", "aria-label": kind.title },
      kind.choices.map((does, i) => h("button", { type: "button", "data-choice": does, onclick: () => this.decide(does) }, kind.label(does), h("kbd", {}, String(i + 1)))),
      h("button", { type: "button", class: "link", id: "skip", onclick: () => this.settle(null) }, t("queue_skip"), h("kbd", {}, "S")),
    );
    this.element = h(
      "main",
      { class: "queue" },
      h("header", { class: "top" }, h("a", { class: "link", href: "./" }, t("queue_console")), h("h1", {}, kind.title), this.progress, this.back),
      h("div", { class: "scroller" }, this.body),
      h("footer", {}, this.choices),
    );
    addEventListener("keydown", (event) => this.#pressed(event));
  }

  #inOrder(request) {
    const done = this.#last.then(request);
    this.#last = done.catch(() => {});
    return done;
  }

  async fetch() {
    const known = () => [...this.ahead, ...this.settled.slice(-40)].map(({ id }) => `beside=${id}`).join("&");
    this.#fetching ??= this.#inOrder(() => get(`${this.kind.list}?${known()}`)).finally(() => (this.#fetching = null));
    const { waiting, counts } = await this.#fetching;
    const ids = new Set([...this.ahead, ...this.settled].map(({ id }) => id));
    this.ahead.push(...waiting.filter(({ id }) => !ids.has(id)));
    this.waiting = counts.waiting + this.#unsent;
  }

  // What a button or its key does with what is shown: the kind may have a way of its own
  decide(does) {
    if (this.ahead.length && !this.kind.intercept?.(this, does)) this.settle(does);
  }

  // Decide about what is shown, or skip it with null
  settle(does) {
    const item = this.ahead.shift();
    if (!item) return;
    item.label = this.kind.label(does);
    item.sent = this.kind.request(item, does);
    this.settled.push(item);
    if (item.sent) {
      this.waiting -= 1;
      this.#send(item, -1, () => post(...item.sent));
    }
    this.draw();
    announce(this.ahead.length ? t("queue_next") : this.kind.empty_title);
    if (this.ahead.length < LEAST_AHEAD) this.#fetchMore();
  }

  undo() {
    const item = this.settled.pop();
    if (!item) return;
    this.ahead.unshift(item);
    if (item.sent) {
      this.waiting += 1;
      this.#send(null, 1, () => post(`${this.kind.path}/${item.id}/undo`));
    }
    this.draw();
    announce(t("queue_undone"));
  }

  // `change`: by how much the request changes what waits
  #send(item, change, request) {
    const failed = (error) => {
      if (error.status === 409 || error.status === 404) return toast(t("queue_settled"));
      if (item && this.settled.includes(item)) {
        this.settled = this.settled.filter((each) => each !== item);
        this.ahead.unshift(item);
        this.waiting += 1;
        this.draw();
      }
      toast(t("queue_not_saved", { reason: error.message || t("queue_away") }), null, 8);
    };
    this.#unsent += change;
    const done = this.#inOrder(request).finally(() => (this.#unsent -= change));
    done.catch(failed);
  }

  // What is shown already is not drawn again: somebody may be writing in it
  async #fetchMore() {
    try {
      await this.fetch();
      if (this.ahead[0] && this.ahead[0] === this.#drawn) this.#drawProgress();
      else this.draw();
    } catch (error) {
      toast(t("queue_not_saved", { reason: error.message || t("queue_away") }));
    }
  }

  draw() {
    const item = (this.#drawn = this.ahead[0]);
    this.#drawProgress();
    const last = this.settled.at(-1); // what the last key did can be seen, and taken back
    this.back.hidden = !last;
    if (last) this.back.replaceChildren(t("queue_undo", { what: last.label }), h("kbd", {}, "U"));
    this.choices.hidden = !item;
    this.body.replaceChildren(...(item ? this.kind.draw(item) : this.#nothing()).filter(Boolean));
    this.body.parentElement.scrollTop = 0;
    this.body.focus({ preventScroll: true });
  }

  #drawProgress() {
    const decided = this.settled.filter(({ sent }) => sent).length;
    const counts = { judged: number(decided), waiting: number(Math.max(0, this.waiting)) };
    this.progress.textContent = t("queue_progress", counts);
  }

  #nothing() {
    return [
      h(
        "div",
        { class: "empty", id: "nothing" },
        h("h2", {}, this.kind.empty_title),
        h("p", {}, this.kind.empty),
        h("button", { type: "button", class: "primary", onclick: () => this.#fetchMore() }, t("queue_look")),
      ),
    ];
  }

  #pressed(event) {
    if (event.target.closest?.("textarea")) return; // a key is a letter there
    const { choices } = this.kind;
    const modified = event.ctrlKey || event.metaKey || event.altKey || event.repeat;
    if (modified) {
      if (!(event.key === "z" && (event.ctrlKey || event.metaKey))) return;
      this.undo();
    } else if (choices[Number(event.key) - 1]) this.decide(choices[Number(event.key) - 1]);
    else if (SKIP_KEYS.includes(event.key.toLowerCase()) || event.key === String(choices.length + 1)) this.settle(null);
    else if (UNDO_KEYS.includes(event.key) || event.key === "U") this.undo();
    else return;
    event.preventDefault();
  }
}

// Show a kind of queue; `make` is called once the texts are known
export async function openQueue(make) {
  const root = h("div", { id: "burnish" });
  document.body.append(root);
  const { language, texts } = await get("comparisons/texts");
  learn(language, texts);
  useTheme(root, "system");
  mountNotices(root);
  const queue = new Queue(make());
  root.prepend(queue.element);
  await queue.fetch();
  queue.draw();
  root.dataset.ready = "";
}
