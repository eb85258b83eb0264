// The console's queue of comparisons: two answers at a time.
import { h } from "./dom.js";
import { openQueue } from "./queue.js";
import { number, t } from "./texts.js";

const label = (choice) => t(choice === null ? "queue_skip" : choice === "tie" ? "queue_tie" : `compare_${choice}`);

function draw(item) {
  const side = (html, key) => h("section", { class: "side-by-side", "aria-label": t(key) }, h("h2", {}, t(key)), h("div", { html }));
  const said = ({ role, html }) => h("div", { class: role === "user" ? "question" : "small", html });
  return [
    item.before.length > 0 && h("details", { class: "before" }, h("summary", { class: "small" }, t("queue_before", { count: number(item.before.length) })), item.before.map(said)),
    h("div", { class: "question", id: "asked", html: item.question_html }),
    h("div", { class: "sides" }, side(item.first, "answer_one"), side(item.second, "answer_two")),
  ];
}

await openQueue(() => ({
  title: t("queue_title"),
  empty_title: t("queue_empty_title"),
  empty: t("queue_empty"),
  path: "comparisons",
  list: "comparisons",
  choices: ["left", "right", "tie", "both_bad"],
  label,
  draw,
  request: ({ id }, choice) => (choice ? [`comparisons/${id}/choice`, { choice }] : [`comparisons/${id}/skip`, {}]),
}));
