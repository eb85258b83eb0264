// The console's queue: an operator compares two answers at a time, by keys alone. The next comparison
// is on the page before it is needed, and what was judged is sent while the next one is read.
import { get, post } from "./api.js";
import { h } from "./dom.js";
import { announce, mountNotices, toast } from "./notices.js";
import { useTheme } from "./settings.js";
import { learn, number, t } from "./texts.js";

const CHOICES = ["left", "right", "tie", "both_bad"];
const LEAST_AHEAD = 3; // comparisons on the page; fewer, and more are fetched
const UNDO_KEYS = ["u", "Backspace"];
const SKIP_KEYS = ["s", "5"];

const label = (choice) => t(choice === null ? "queue_skip" : choice === "tie" ? "queue_tie" : `compare_${choice}`);

class Queue {
  ahead = []; // the first one is shown
  settled = []; // what was judged or skipped here, the last one last
  waiting = 0; // on the server, too
  #last = Promise.resolve(); // requests leave one after the other, in the order of the keys
  #unsent = 0; // by how much those that have not arrived will change what waits
  #fetching = null;

  constructor() {
    this.progress = h("p", { class: "small", id: "progress" });
    this.back = h("button", { type: "button", class: "link", id: "undo", hidden: true, onclick: () => this.undo() });
    this.body = h("div", { class: "judged", id: "pair", tabindex: "0" });
    this.choices = h(
      "div",
      { class: "choices", role: "group", "aria-label": t("queue_title") },
      CHOICES.map((choice, i) => h("button", { type: "button", "data-choice": choice, onclick: () => this.settle(choice) }, label(choice), h("kbd", {}, String(i + 1)))),
      h("button", { type: "button", class: "link", id: "skip", onclick: () => this.settle(null) }, t("queue_skip"), h("kbd", {}, "S")),
    );
    this.element = h(
      "main",
      { class: "queue" },
      h("header", { class: "top" }, h("a", { class: "link", href: "./" }, t("queue_console")), h("h1", {}, t("queue_title")), this.progress, this.back),
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
    this.#fetching ??= this.#inOrder(() => get(`comparisons?${known()}`)).finally(() => (this.#fetching = null));
    const { comparisons, counts } = await this.#fetching;
    const ids = new Set([...this.ahead, ...this.settled].map(({ id }) => id));
    this.ahead.push(...comparisons.filter(({ id }) => !ids.has(id)));
    this.waiting = counts.waiting + this.#unsent;
  }

  // Judge what is shown, or skip it with null
  settle(choice) {
    const item = this.ahead.shift();
    if (!item) return;
    item.label = label(choice);
    this.settled.push(item);
    this.waiting -= 1;
    const path = `comparisons/${item.id}`;
    const [to, body] = choice ? [`${path}/choice`, { choice }] : [`${path}/skip`, {}];
    this.#send(item, -1, () => post(to, body));
    this.draw();
    announce(t(this.ahead.length ? "queue_next" : "queue_empty_title"));
    if (this.ahead.length < LEAST_AHEAD) this.#fetchMore();
  }

  undo() {
    const item = this.settled.pop();
    if (!item) return;
    this.ahead.unshift(item);
    this.waiting += 1;
    this.#send(null, 1, () => post(`comparisons/${item.id}/undo`));
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

  async #fetchMore() {
    const shown = this.ahead[0];
    try {
      await this.fetch();
      if (this.ahead[0] === shown && shown) this.#drawProgress();
      else this.draw();
    } catch (error) {
      toast(t("queue_not_saved", { reason: error.message || t("queue_away") }));
    }
  }

  draw() {
    const item = this.ahead[0];
    this.#drawProgress();
    const last = this.settled.at(-1); // what the last key did can be seen, and taken back
    this.back.hidden = !last;
    if (last) this.back.replaceChildren(t("queue_undo", { what: last.label }), h("kbd", {}, "U"));
    this.choices.hidden = !item;
    this.body.replaceChildren(...(item ? this.#pair(item) : this.#nothing()));
    this.body.parentElement.scrollTop = 0;
    this.body.focus({ preventScroll: true });
  }

  #drawProgress() {
    const counts = { judged: number(this.settled.length), waiting: number(Math.max(0, this.waiting)) };
    this.progress.textContent = t("queue_progress", counts);
  }

  #pair(item) {
    const side = (html, key) => h("section", { class: "side-by-side", "aria-label": t(key) }, h("h2", {}, t(key)), h("div", { html }));
    const said = ({ role, html }) => h("div", { class: role === "user" ? "question" : "small", html });
    return [
      item.before.length > 0 && h("details", { class: "before" }, h("summary", { class: "small" }, t("queue_before", { count: number(item.before.length) })), item.before.map(said)),
      h("div", { class: "question", id: "asked", html: item.question_html }),
      h("div", { class: "sides" }, side(item.first, "answer_one"), side(item.second, "answer_two")),
    ].filter(Boolean);
  }

  #nothing() {
    return [
      h(
        "div",
        { class: "empty", id: "nothing" },
        h("h2", {}, t("queue_empty_title")),
        h("p", {}, t("queue_empty")),
        h("button", { type: "button", class: "primary", onclick: () => this.#fetchMore() }, t("queue_look")),
      ),
    ];
  }

  #pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) {
      if (!(event.key === "z" && (event.ctrlKey || event.metaKey))) return;
      this.undo();
    } else if (CHOICES[Number(event.key) - 1]) this.settle(CHOICES[Number(event.key) - 1]);
    else if (SKIP_KEYS.includes(event.key.toLowerCase())) this.settle(null);
    else if (UNDO_KEYS.includes(event.key) || event.key === "U") this.undo();
    else return;
    event.preventDefault();
  }
}

const root = h("div", { id: "burnish" });
document.body.append(root);
const { language, texts } = await get("comparisons/texts");
learn(language, texts);
useTheme(root, "system");
mountNotices(root);
const queue = new Queue();
root.prepend(queue.element);
await queue.fetch();
queue.draw();
root.dataset.ready = "";
