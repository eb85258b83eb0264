// The composer: the question's box, with one button that sends, or stops a running answer.
import { h, icon, iconButton, stored } from "./dom.js";
import { Presets } from "./presets.js";
import { SlashList } from "./slash.js";
import { t } from "./texts.js";

const NUMBERS = [
  ["temperature", { min: 0, max: 2, step: 0.1 }],
  ["top_p", { min: 0.05, max: 1, step: 0.05 }],
  ["max_new_tokens", { min: 1, max: 32768, step: 1 }],
  ["seed", { min: 0, max: 2147483647, step: 1 }],
];

export class Composer {
  // `actions`: send(question), stop(), and edit() for the up arrow in an empty box
  constructor(boot, prompts, documents, tools, actions) {
    this.actions = actions;
    this.documents = documents;
    this.draftKey = "draft.";
    this.box = h("textarea", {
      id: "question", rows: "1", placeholder: t("ask"), "aria-label": t("question"), autocomplete: "off",
      oninput: () => this.#typed(), onkeydown: (event) => this.#pressed(event),
    });
    this.thinks = h("button", { type: "button", class: "chip", id: "thinking", hidden: boot.thinks === null, onclick: () => this.#think(this.#isThinking ? "no" : "yes") }, t("think_first"));
    this.slash = new SlashList(this.box, prompts, (text) => this.#take(text));
    this.presets = new Presets(prompts);
    this.mode = h(
      "select",
      { id: "mode", "aria-label": t("mode"), title: t("mode"), onchange: () => (stored("mode", this.mode.value), this.#offerChains()) },
      boot.modes.map((mode) => h("option", { value: mode }, t(`mode_${mode.replaceAll("-", "_")}`))),
    );
    const remembered = stored("mode");
    this.mode.value = boot.modes.includes(remembered) ? remembered : boot.modes[0];
    this.samples = h("input", { type: "number", name: "samples", id: "samples", placeholder: String(boot.chains.is), min: boot.chains.min, max: boot.chains.max, step: 1 });
    this.chains = h("label", { hidden: true }, h("span", {}, t("samples")), this.samples);
    this.numbers = NUMBERS.map(([name, limits]) =>
      h("input", { type: "number", name, id: `sampling-${name}`, placeholder: String(boot.sampling[name] ?? t("by_chance")), ...limits }),
    );
    const named = (release) => ({ live: t("live_release"), base: t("base_model") })[release] ?? release.replace("sha256:", "").slice(0, 12);
    this.releases = h("select", { id: "release" }, boot.releases.map((release) => h("option", { value: release }, named(release))));
    this.drawer = h(
      "div",
      { class: "drawer", id: "advanced", hidden: true },
      this.chains,
      this.numbers.map((input) => h("label", {}, h("span", {}, t(`sampling_${input.name}`)), input)),
      h("label", { hidden: !boot.releases.length }, h("span", {}, t("release")), this.releases),
    );
    this.button = h("button", { type: "submit", class: "send", id: "send" });
    this.notice = h("div", { class: "notice", role: "alert", hidden: true });
    this.element = h(
      "form",
      { class: "composer", id: "composer", onsubmit: (event) => this.#submitted(event) },
      this.notice,
      h(
        "div",
        { class: "box" },
        this.slash.element,
        this.box,
        this.drawer,
        documents.chip,
        h(
          "div",
          { class: "tools" },
          documents.button,
          tools.button,
          this.mode,
          this.thinks,
          this.presets.element,
          iconButton("sliders", t("advanced"), () => this.#drawer(), { id: "open-advanced", "aria-expanded": "false" }),
          h("span", { class: "gap" }),
          this.button,
        ),
      ),
      h("p", { class: "small" }, t("may_be_wrong")),
    );
    this.#offerChains();
    this.#think(stored("thinking") || (boot.thinks ? "yes" : "no"));
    this.running(false);
  }

  // The options of the answer, without the sampling parameters
  get manner() {
    const manner = { mode: this.mode.value, system: this.presets.system };
    if (this.#votes && this.samples.value) manner.samples = Number(this.samples.value);
    if (!this.thinks.hidden) manner.thinking = this.#isThinking;
    if (this.documents.chosen) manner.documents = this.documents.chosen;
    return manner;
  }

  // The sampling parameters, the release, and the time zone for tools
  get drawing() {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
    return { sampling: this.sampling, time_zone: zone, ...(this.releases.value && { release: this.releases.value }) };
  }

  get sampling() {
    const filled = this.numbers.filter((input) => input.value !== "" && input.checkValidity());
    return Object.fromEntries(filled.map((input) => [input.name, Number(input.value)]));
  }

  focus() {
    this.box.focus({ preventScroll: true });
  }

  // Each conversation has its own draft, which survives a reload
  about(conversation) {
    this.draftKey = `draft.${conversation}`;
    this.#put(stored(this.draftKey));
    this.presets.about(conversation);
    this.documents.about(conversation);
  }

  // The conversation has an id now; the text typed meanwhile becomes its draft
  begun(conversation) {
    const typed = this.box.value;
    stored(this.draftKey, "");
    this.draftKey = `draft.${conversation}`;
    stored(this.draftKey, typed);
    this.presets.begun();
    this.documents.begun(conversation);
  }

  giveBack(question) {
    if (!this.box.value) this.#put(question);
    stored(this.draftKey, this.box.value);
  }

  clear() {
    stored(this.draftKey, "");
    this.#put("");
  }

  running(is) {
    this.isRunning = is;
    const label = is ? t("stop") : t("send");
    this.button.replaceChildren(icon(is ? "stop" : "send"));
    this.button.title = label;
    this.button.setAttribute("aria-label", label);
    this.button.dataset.state = is ? "stop" : "send";
  }

  // Show an error as a sentence, with an action to remedy it: [label, function]
  complain(words, action) {
    this.notice.replaceChildren(h("span", {}, words));
    if (action) {
      this.notice.append(h("button", { type: "button", class: "link", onclick: action[1] }, action[0]));
    }
    this.notice.append(iconButton("close", t("close"), () => this.content()));
    this.notice.hidden = false;
  }

  // Show an error with a countdown, after which `again` is called if `here()` still holds
  complainUntil(words, seconds, again, here) {
    let left = Math.ceil(seconds);
    const end = () => {
      clearInterval(timer);
      this.content();
    };
    const tick = () => {
      if (!here() || this.notice.hidden) return clearInterval(timer);
      if (left <= 0) return end(), again();
      this.complain(`${words} ${t("asked_again_in", { seconds: left })}`, [t("cancel"), end]);
      left -= 1;
    };
    this.notice.hidden = false;
    const timer = setInterval(tick, 1000);
    tick();
  }

  content() {
    this.notice.hidden = true;
  }

  #put(text) {
    this.box.value = text;
    this.#grow();
  }

  #typed() {
    stored(this.draftKey, this.box.value);
    this.#grow();
    this.slash.typed();
  }

  #take(text) {
    stored(this.draftKey, text);
    this.#put(text);
  }

  #grow() {
    this.box.style.height = "auto";
    this.box.style.height = `${Math.min(this.box.scrollHeight, innerHeight * 0.4)}px`;
  }

  get #isThinking() {
    return this.thinks.getAttribute("aria-pressed") === "true";
  }

  #think(whether) {
    this.thinks.setAttribute("aria-pressed", String(whether === "yes"));
    if (!this.thinks.hidden) stored("thinking", whether);
  }

  get #votes() {
    return this.mode.value === "self-consistency";
  }

  #offerChains() {
    this.chains.hidden = !this.#votes;
  }

  #drawer() {
    this.drawer.hidden = !this.drawer.hidden;
    document.getElementById("open-advanced").setAttribute("aria-expanded", String(!this.drawer.hidden));
  }

  #pressed(event) {
    if (this.slash.pressed(event)) return;
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (this.isRunning) this.complain(t("still_answering"), [t("stop"), () => (this.content(), this.actions.stop())]);
      else this.#send();
    } else if (event.key === "ArrowUp" && !this.box.value && this.actions.edit()) event.preventDefault();
  }

  #submitted(event) {
    event.preventDefault();
    if (this.isRunning) this.actions.stop();
    else this.#send();
  }

  #send() {
    const question = this.box.value;
    const wrong = [...(this.#votes ? [this.samples] : []), ...this.numbers].find((input) => !input.checkValidity());
    if (wrong) {
      this.drawer.hidden = false;
      wrong.reportValidity();
      return;
    }
    if (!question.trim()) return;
    this.clear();
    this.content();
    this.actions.send(question);
    this.focus();
  }
}
