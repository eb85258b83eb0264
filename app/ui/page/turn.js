// A turn: a question, the answer that is shown for it, and the actions on both.
import { decorate, sources } from "./citations.js";
import { h, iconButton, morph } from "./dom.js";
import { moment, number, t } from "./texts.js";
import { drawCalled } from "./tools.js";

export class Turn {
  // `actions` come from `actionsOn` in actions.js
  constructor(actions) {
    this.actions = actions;
    this.document = null;
    this.question = h("div", { class: "question" });
    this.asked = h("div", { class: "asked" });
    this.thought = h("div", { class: "thought-text" });
    this.thoughtTitle = h("summary");
    this.thinking = h("details", { class: "thought", hidden: true }, this.thoughtTitle, this.thought);
    this.called = h("div", { class: "called", role: "group", "aria-label": t("tools"), hidden: true });
    this.answer = h("div", { class: "answer" });
    this.sources = h("div", { class: "sources", hidden: true });
    this.note = h("div", { class: "note", hidden: true });
    this.votes = h("div", { class: "votes", hidden: true });
    this.bar = h("div", { class: "bar" });
    this.more = h("div", { class: "more" });
    this.element = h(
      "article",
      { class: "turn" },
      h("div", { class: "asker" }, this.question, this.asked),
      h("div", { class: "reply" }, this.thinking, this.called, this.answer, this.sources, this.votes, this.note, this.bar, this.more),
    );
    this.html = { t: "", a: "" };
    this.remark = "";
    this.settle = () => {}; // closes the editor in the answer's place
  }

  get id() {
    return this.document?.id ?? "";
  }

  get answerId() {
    return this.document?.answer.id ?? "";
  }

  // Show the person's question before the server has stored it
  propose(question) {
    this.question.replaceChildren(h("pre", { class: "typed", dir: "auto" }, question));
    this.begin();
  }

  begin() {
    this.html = { t: "", a: "" };
    this.remark = ""; // the note at the end of an answer, which is not stored
    this.streaming = true;
    this.element.setAttribute("aria-busy", "true");
    this.answer.replaceChildren(h("span", { class: "caret", title: t("answering") }));
    this.thinking.hidden = true;
    this.call([]);
    this.sources.hidden = true;
    this.votes.hidden = true;
    this.note.hidden = true;
    this.bar.replaceChildren();
    this.more.replaceChildren();
  }

  patch(part, keep, tail) {
    this.html[part] = this.html[part].slice(0, keep) + tail;
    if (part === "t") {
      this.thinking.hidden = false;
      this.thoughtTitle.textContent = t("thinking");
      morph(this.thought, this.html.t);
    } else morph(this.answer, this.html.a);
  }

  // Show the tools that the answer has called so far
  call(calls) {
    drawCalled(this.called, calls);
  }

  // Show how many of several chains of thought have ended
  count(ended, of) {
    this.#tell(t("chains_ended", { ended: number(ended), of: number(of) }));
  }

  end({ note, status, thought_seconds: seconds, votes = null, passages = [], grounded_html: grounded = "" }) {
    this.streaming = false;
    this.note.hidden = true;
    this.#drawVotes(votes);
    this.element.removeAttribute("aria-busy");
    if (!this.html.a) this.answer.replaceChildren();
    if (grounded) morph(this.answer, grounded);
    this.#drawSources(passages);
    this.thoughtTitle.textContent = seconds ? t("thought_for", { seconds: number(seconds, seconds < 10 ? 1 : 0) }) : t("thought");
    this.remark = status === "failed" ? "" : (note ?? "");
    if (note) this.#tell(note);
    else if (status === "stopped") this.#tell(t("stopped"));
  }

  // Draw the turn from the stored document
  draw(document) {
    this.document = document;
    const { answer } = document;
    this.element.dataset.turn = document.id;
    this.element.dataset.answer = answer.id;
    this.question.innerHTML = document.question_html;
    this.#drawAsked();
    if (answer.status === "streaming" || this.streaming) return;
    this.element.removeAttribute("aria-busy");
    this.html = { t: answer.thought_html, a: answer.html };
    this.thinking.hidden = !answer.thought_html;
    this.thoughtTitle.textContent ||= t("thought");
    morph(this.thought, answer.thought_html);
    this.call(answer.called);
    this.#drawAnswer();
    this.#drawSources(document.passages);
    this.#drawVotes(answer.votes);
    this.#drawNote();
    this.#drawBar();
    this.more.replaceChildren();
  }

  #drawAsked() {
    const { siblings, id } = this.document;
    this.asked.replaceChildren(
      ...this.#arrows(siblings, id, (turn) => this.actions.showTurn(turn)),
      iconButton("copy", t("copy_question"), () => this.actions.copyQuestion(this)),
      iconButton("edit", t("edit_question"), () => this.actions.edit(this), { "data-does": "edit" }),
    );
  }

  #drawAnswer() {
    const { correction_html: corrected, changes_html: changes, answer } = this.document;
    if (!corrected) return morph(this.answer, answer.html);
    const original = h("details", { class: "changed" }, h("summary", {}, t("show_changes")));
    original.append(h("div", { html: changes }));
    this.answer.replaceChildren(
      h("div", { class: "corrected" }, h("p", { class: "small" }, t("your_correction")), h("div", { html: corrected })),
      original,
    );
  }

  // The passages of documents that the model was shown
  #drawSources(passages) {
    this.sources.hidden = !passages.length;
    if (!passages.length) return;
    const cited = decorate(this.answer, passages);
    this.sources.replaceChildren(...sources(passages, cited, this.answer.querySelector(".doubt") !== null));
  }

  // The number of chains of thought that led to each answer
  #drawVotes(votes) {
    this.votes.hidden = !votes;
    if (!votes) return;
    const { samples, tally } = votes;
    const told = tally.map(([answer, count]) => t("votes_for", { answer, votes: number(count) }));
    const most = tally[0][1];
    const said = { votes: number(most), samples: number(samples), tally: told.join(t("between_votes")) };
    this.votes.textContent = most > 1 ? t("chains_agree", said) : t("chains_differ", said);
  }

  #drawNote() {
    const { answer } = this.document;
    const ending = {
      stopped: t("stopped"),
      aborted: t("aborted"),
      failed: answer.error ? t("failed_because", { reason: answer.error }) : t("failed"),
    }[answer.status] ?? (answer.cut ? t("cut_off") : "");
    const words = [this.remark, ending].filter(Boolean).join(" ");
    this.note.hidden = !words;
    if (!words) return;
    this.#tell(words);
    if (answer.continuable) {
      this.note.append(h("button", { type: "button", class: "link", "data-does": "continue", onclick: () => this.actions.goOn(this) }, t("continue")));
    }
  }

  #tell(words) {
    this.note.hidden = false;
    this.note.replaceChildren(h("span", {}, words));
  }

  #drawBar() {
    const { answers, answer, vote, flagged } = this.document;
    const thumb = (value, name, label) =>
      iconButton(name, label, () => this.actions.vote(this, this.document.vote === value ? 0 : value), {
        "aria-pressed": String(vote === value), "data-does": name,
      });
    const does = (name, key, act) => iconButton(name, t(key), () => act(this), { "data-does": key });
    this.bar.replaceChildren(
      ...this.#arrows(answers, answer.id, (id) => this.actions.showAnswer(id)),
      does("copy", "copy", this.actions.copy),
      thumb(1, "thumb_up", t("good")),
      thumb(-1, "thumb_down", t("bad")),
      does("edit", "improve", this.actions.improve),
      does("again", "regenerate", this.actions.again),
      does("change", "change", this.actions.change),
      does("compare", "compare", this.actions.compare),
      does("more", "details", this.actions.details),
      ...(flagged ? [h("span", { class: "small" }, t("reported"))] : []),
    );
  }

  #arrows(ids, shown, show) {
    if (ids.length < 2) return [];
    const at = ids.indexOf(shown);
    const step = (to, name, label) => iconButton(name, label, () => show(ids[to]), { disabled: !(to in ids), "data-does": name });
    return [
      h(
        "span",
        { class: "arrows" },
        step(at - 1, "back", t("previous")),
        h("span", { class: "count" }, `${at + 1}/${ids.length}`),
        step(at + 1, "forth", t("next")),
      ),
    ];
  }

  // The details of an answer
  facts() {
    const { answer, mode, at, examples } = this.document;
    const rate = answer.tokens && answer.seconds ? (answer.tokens - 1) / answer.seconds : null;
    const { temperature, top_p: topP, max_new_tokens: limit, seed } = answer.sampling;
    const sampling = Object.entries({ temperature, top_p: topP, max_new_tokens: limit, seed })
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => `${t(`sampling_${name}`)} ${number(value, 2)}`);
    return [
      [t("release"), answer.release || t("base_model")],
      [t("mode"), t(`mode_${mode.replaceAll("-", "_")}`)],
      [t("tokens"), answer.tokens === null ? "–" : t("tokens_of", { prompt: number(answer.prompt_tokens), answer: number(answer.tokens) })],
      [t("speed"), rate ? t("per_second", { tokens: number(rate, 1) }) : "–"],
      [t("waited"), answer.wait_seconds === null ? "–" : t("seconds", { seconds: number(answer.wait_seconds, 2) })],
      [t("sampling"), sampling.join(" · ") || "–"],
      ...("thinking" in answer.sampling ? [[t("think_first"), answer.sampling.thinking ? t("yes") : t("no")]] : []),
      [t("examples"), examples.length ? number(examples.length) : t("none")],
      [t("asked_at"), moment(at)],
    ];
  }
}
