// The console's queue of drafts: a question and an answer beside the passage that both were made from.
// They are approved as they are or in other words, or dropped; skipped ones wait for another time.
import { label as placeOf } from "./citations.js";
import { h } from "./dom.js";
import { openQueue } from "./queue.js";
import { t } from "./texts.js";

const label = (does) => t(does === null ? "queue_skip" : `draft_${does}`);

function field(item, name) {
  const onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) document.querySelector('[data-choice="approve"]').click();
    else if (event.key === "Escape") event.target.blur();
    else return;
    event.preventDefault();
  };
  const oninput = ({ target }) => (item[name] = target.value);
  const written = h("textarea", { rows: name === "question" ? 2 : 5, "data-field": name, "aria-label": t(`draft_${name}`), onkeydown, oninput });
  written.value = item[name];
  return written;
}

function part(item, name) {
  const shown = item.edited ? field(item, name) : h("p", { class: "drafted", id: `drafted-${name}` }, item[name]);
  return [h("h3", {}, t(`draft_${name}`)), shown];
}

function draw(item) {
  const where = `${item.collection} · ${placeOf(item.passage)}`;
  return [
    h(
      "div",
      { class: "sides" },
      h("section", { class: "side-by-side", id: "draft", "aria-label": t("draft") }, h("h2", {}, t("draft")), part(item, "question"), part(item, "answer"), item.edited && h("p", { class: "small" }, t("draft_keys"))),
      h("section", { class: "side-by-side", "aria-label": t("draft_passage") }, h("h2", {}, t("draft_passage")), h("p", { class: "small" }, where), h("div", { id: "draft-passage", html: item.passage.text_html })),
    ),
  ];
}

// Open the two texts to be written in, in place of a decision
function intercept(queue, does) {
  if (does !== "edit") return false;
  queue.ahead[0].edited = true;
  queue.draw();
  queue.body.querySelector('[data-field="answer"]').focus();
  return true;
}

function request({ id, question, answer }, does) {
  if (does === null) return null;
  return does === "approve" ? [`drafts/${id}/approve`, { question, answer }] : [`drafts/${id}/drop`, {}];
}

await openQueue(() => ({
  title: t("drafts_title"),
  empty_title: t("drafts_empty_title"),
  empty: t("drafts_empty"),
  path: "drafts",
  list: "drafts/waiting",
  choices: ["approve", "edit", "drop"],
  label,
  draw,
  intercept,
  request,
}));
