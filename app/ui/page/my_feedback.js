// The page "My feedback": the outcome of each of a person's statements, and their decisions.
import { follow, get, post } from "./api.js";
import { h, icon } from "./dom.js";
import { ownExamples } from "./own_examples.js";
import { yourDecisions } from "./my_decisions.js";
import { moment, number, t } from "./texts.js";

const ICONS = { vote: { 1: "thumb_up", "-1": "thumb_down" }, correction: "edit", choice: "compare", flag: "more" };
const COUNTS = ["teaches", "waits", "measures", "unused"];

export class MyFeedback {
  // `actions` has open(conversation), fail(error), forgotten(receipt)
  constructor(actions) {
    this.actions = actions;
    this.summary = h("p", { class: "summary", id: "feedback-summary" });
    this.list = h("ol", { class: "statements" });
    this.more = h("button", { type: "button", class: "link", hidden: true, onclick: () => this.#more() }, t("show_more"));
    this.aside = h("div", { class: "yours" });
    this.element = h("div", { class: "feedback", id: "feedback" }, this.summary, this.aside, this.list, this.more);
    this.asking = new AbortController(); // aborted when the page is left
  }

  async load() {
    try {
      const page = await get("chat/feedback");
      const examples = await ownExamples(this.actions.fail);
      this.#summarise(page);
      this.#draw(page, true);
      this.aside.replaceChildren(
        yourDecisions(page, { ...this.actions, changed: () => this.#again() }),
        h("details", { class: "panel", id: "own-examples" }, h("summary", {}, t("my_examples")), h("p", { class: "small" }, t("my_examples_is")), ...examples),
      );
    } catch (error) {
      this.actions.fail(error);
    }
  }

  // Abort pending requests when the page is left
  leave() {
    this.asking.abort();
  }

  async #again() {
    const page = await get("chat/feedback");
    this.#summarise(page);
    this.#draw(page, true);
  }

  async #more() {
    try {
      this.#draw(await get(`chat/feedback?before=${this.last}`), false);
    } catch (error) {
      this.actions.fail(error);
    }
  }

  #summarise({ summary, live }) {
    const counts = COUNTS.filter((name) => summary[name]).map((name) => t(`my_count_${name}`, { count: number(summary[name]) }));
    if (summary.learnt) counts.push(t("my_count_learnt", { count: number(summary.learnt), release: live }));
    const said = summary.said === 1 ? t("my_said_one") : t("my_said", { count: number(summary.said) });
    this.summary.textContent = summary.said ? [said, ...counts].join(" · ") : t("my_nothing");
  }

  #draw({ statements, more }, fresh) {
    if (fresh) this.list.replaceChildren();
    this.list.append(...statements.map((said) => this.#statement(said)));
    this.last = statements.at(-1)?.event ?? this.last;
    this.more.hidden = !more;
  }

  #statement(said) {
    const place = h("div", { class: "texts" });
    const follow = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // the browser opens a new tab
      event.preventDefault();
      this.actions.open(said.conversation);
    };
    const question = said.conversation
      ? h("a", { href: `?c=${said.conversation}`, onclick: follow, dir: "auto" }, said.question)
      : h("span", { dir: "auto" }, said.question);
    const { vote: thumb, ...others } = ICONS;
    return h(
      "li",
      { class: "said", "data-event": String(said.event), "data-became": said.became },
      icon(said.kind === "vote" ? thumb[said.vote] : others[said.kind]),
      h(
        "div",
        {},
        h("h2", {}, question),
        h("p", { class: "words", dir: "auto" }, words(said)),
        h("p", { class: "became" }, became(said)),
        said.snapshot && h("p", { class: "small lineage" }, lineage(said)),
        h(
          "p",
          { class: "row-of" },
          h("time", { class: "small" }, moment(said.at)),
          h("button", { type: "button", class: "link", "data-does": "texts", onclick: () => this.#texts(said, place) }, t("my_texts")),
          wasLive(said) && h("button", { type: "button", class: "link", "data-does": "now", onclick: (event) => this.#now(said, place, event.currentTarget) }, t("my_now")),
        ),
        place,
      ),
    );
  }

  // Show the whole texts, or hide them if they are shown
  async #texts(said, place) {
    if (place.querySelector(".whole")) return place.replaceChildren();
    try {
      const { answers, correction_html: corrected, changes_html: changes } = await get(`chat/feedback/${said.event}`);
      const sides = answers.map((answer, index) =>
        side(answers.length > 1 ? t(index ? "answer_two" : "answer_one") : t("my_then", { release: answer.release || t("base_model") }), answer.html),
      );
      place.replaceChildren(
        h(
          "div",
          { class: "whole" },
          h("div", { class: sides.length > 1 ? "sides" : "" }, sides),
          corrected && h("div", { class: "corrected" }, h("p", { class: "small" }, t("your_correction")), h("div", { html: corrected })),
          changes && h("details", { class: "changed" }, h("summary", {}, t("show_changes")), h("div", { html: changes })),
        ),
      );
    } catch (error) {
      this.actions.fail(error);
    }
  }

  // Show the stored answer beside the live release's answer to the same prompt, which is not stored
  async #now(said, place, button) {
    button.disabled = true;
    const fresh = h("div", {}, h("span", { class: "caret", title: t("answering") }));
    const now = side(t("my_answers_now", { release: "…" }), "", fresh);
    try {
      const { answers } = await get(`chat/feedback/${said.event}`);
      const [then] = said.choice === "right" ? answers.slice(1) : answers;
      place.replaceChildren(
        h("div", { class: "sides" }, side(t("my_then", { release: then.release || t("base_model") }), then.html), now),
      );
      let html = "";
      let live = "";
      this.asking.signal.addEventListener("abort", () => live && post(`chat/answers/${live}/stop`).catch(() => {}));
      await follow(`chat/answers/${then.id}/now`, {}, {
        begin: (begun) => (live = begun.live),
        patch: (part, keep, tail) => {
          if (part !== "a") return;
          html = html.slice(0, keep) + tail;
          fresh.innerHTML = html;
        },
        end: ({ note, release }) => {
          live = "";
          now.querySelector("h3").textContent = t("my_answers_now", { release: release || t("base_model") });
          if (!html) fresh.textContent = note;
        },
      }, this.asking.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      place.replaceChildren();
      this.actions.fail(error);
    } finally {
      button.disabled = false;
    }
  }
}

const wasLive = ({ release }) => release !== null && release.state !== "not_live";

const side = (title, html, body = h("div", { html })) =>
  h("section", { class: "side-by-side", "aria-label": title }, h("h3", {}, title), body);

// The statement as one line
function words({ kind, vote, reasons, comment, correction, choice }) {
  if (kind === "correction") return t("my_with_words", { what: t("your_correction"), words: correction });
  if (kind === "choice") return t(`compare_${choice}`);
  if (kind === "flag") return t("reported");
  const why = [reasons.map((reason) => t(`reason_${reason}`)).join(", "), comment && `“${comment}”`];
  return [t(vote > 0 ? "good" : "bad"), ...why].filter(Boolean).join(" · ");
}

function became({ became: state, made, why_not: reasons }) {
  const listed = (each) => each.join(t("my_separator"));
  return t(`my_became_${state}`, { made: listed(made.map((kind) => t(`my_made_${kind}`))), reasons: listed(reasons) });
}

function lineage({ became: state, snapshot, release }) {
  if (release) return t(`my_release_${release.state}`, { snapshot, release: release.name });
  return t(state === "teaches" ? "my_no_release" : "my_frozen", { snapshot });
}
