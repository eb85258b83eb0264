// The chat page. It is a view on the store: what it shows of a conversation is what the server says,
// and the address names the conversation.
import { Refused, follow, get, post, put } from "./api.js";
import { Composer } from "./composer.js";
import { copyText, h, icon, iconButton, stored } from "./dom.js";
import { askWhy, choose, improve } from "./feedback.js";
import { announce, dialogue, mountNotices, toast } from "./notices.js";
import { showSettings, useTheme } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { learn, t } from "./texts.js";
import { Turn } from "./turn.js";

const NEAR_THE_END = 80; // pixels; who is so near follows the stream
const CHANGES = ["shorter", "longer", "simpler", "formal", "other_language"];

class Page {
  constructor(boot) {
    this.boot = boot;
    this.conversation = null; // what the side bar knows of it
    this.temporary = null; // what was said in a temporary chat
    this.turns = [];
    this.hasEarlier = false; // turns before those that are drawn
    this.running = null; // the answer that the composer's button stops
    this.streams = new Set(); // of the answers that are followed
    this.opened = 0; // counts what was opened, so that a late reply is dropped
    this.follows = true;
    this.fail = this.fail.bind(this);
    this.actions = this.#actions();
    this.composer = new Composer(boot, { send: (q) => this.ask(q), stop: () => this.stop(), edit: () => this.#editLast() });
    this.sidebar = new Sidebar({
      open: (id) => this.open(id), begin: () => this.begin(),
      settings: () => showSettings(this.boot, this.fail), fail: this.fail, renamed: (summary) => this.#titled(summary),
    });
    this.title = h("h1", {}, t("new_chat"));
    this.release = h("span", { class: "release", title: t("release") }, boot.release || t("base_model"));
    this.ghost = iconButton("ghost", t("temporary"), () => this.begin({ temporary: !this.temporary }), { id: "temporary", "aria-pressed": "false" });
    this.list = h("div", { class: "turns", id: "turns" });
    this.scroller = h("div", { class: "scroller", id: "scroller", tabindex: "-1", onscroll: () => this.#scrolled() }, this.list);
    this.toEnd = iconButton("down", t("to_the_end"), () => this.#toEnd(true), { id: "to-end", hidden: true });
    this.element = h(
      "main",
      {},
      h("header", { class: "top" }, iconButton("menu", t("show_side"), () => this.sidebar.toggle(), { id: "open-side" }), this.title, this.release, this.ghost),
      this.scroller,
      h("div", { class: "bottom" }, this.toEnd, this.composer.element),
    );
    addEventListener("popstate", () => this.#fromAddress());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.running && !document.querySelector("dialog[open]")) this.stop();
    });
    this.element.addEventListener("click", (event) => this.#copyCode(event));
  }

  async start() {
    this.sidebar.load();
    await this.#fromAddress();
    this.composer.focus();
  }

  #fromAddress() {
    const id = new URLSearchParams(location.search).get("c");
    return id ? this.open(id, { push: false }) : this.begin({ push: false });
  }

  // An empty page
  begin({ push = true, temporary = false } = {}) {
    this.#leave(push ? location.pathname : null);
    this.temporary = temporary ? [] : null;
    this.ghost.setAttribute("aria-pressed", String(temporary));
    this.#titled(null);
    this.composer.about(temporary ? "temporary" : "new");
    this.list.replaceChildren(this.#welcome());
    this.composer.focus();
  }

  async open(id, { push = true } = {}) {
    this.#leave(push ? `?c=${id}` : null);
    const opened = this.opened;
    this.composer.about(id);
    try {
      const view = await get(`chat/conversations/${id}`);
      if (opened !== this.opened) return;
      this.#draw(view);
      this.#toEnd(true);
      for (const live of view.running) this.#join(live);
    } catch (error) {
      if (opened !== this.opened) return;
      if (error.kind === "UnknownId") {
        this.begin();
        this.composer.complain(t("conversation_gone"));
      } else {
        this.list.replaceChildren();
        this.fail(error, () => this.open(id, { push: false }));
      }
    }
  }

  // The conversation as the store has it now; what has not changed is not drawn again
  async refresh() {
    if (!this.conversation) return;
    const opened = this.opened;
    const view = await get(`chat/conversations/${this.conversation.id}`);
    if (opened === this.opened) this.#draw(view);
  }

  #leave(address) {
    this.opened += 1;
    for (const running of this.streams) if (running.id) running.follows.abort(); // a browser has few connections
    this.running = null;
    this.composer.running(false);
    this.composer.content();
    this.conversation = null;
    this.temporary = null;
    this.turns = [];
    this.hasEarlier = false;
    this.follows = true;
    this.list.replaceChildren();
    this.sidebar.mark("");
    if (address !== null && address !== location.search) history.pushState(null, "", address);
  }

  #titled(summary) {
    this.conversation = summary;
    this.title.textContent = summary?.title ?? (this.temporary ? t("temporary") : t("new_chat"));
    document.title = summary ? `${summary.title} · Burnish` : "Burnish";
    this.sidebar.mark(summary?.id ?? "");
  }

  #draw({ turns, earlier, ...summary }) {
    this.#titled(summary);
    const known = new Map(this.turns.map((turn) => [turn.id, turn]));
    const first = turns[0]?.id;
    const kept = this.turns.slice(0, Math.max(0, this.turns.findIndex((turn) => turn.id === first)));
    this.turns = [
      ...kept,
      ...turns.map((document) => {
        const turn = known.get(document.id) ?? new Turn(this.actions);
        if (JSON.stringify(turn.document) !== JSON.stringify(document)) turn.draw(document);
        return turn;
      }),
    ];
    if (!kept.length) this.hasEarlier = earlier;
    this.#place();
    this.#follow();
  }

  // The turns, under a button where there are earlier ones
  #place() {
    const more = this.hasEarlier && h("button", { type: "button", class: "link earlier", onclick: () => this.#earlier() }, t("show_earlier"));
    this.list.replaceChildren(...(more ? [more] : []), ...this.turns.map((turn) => turn.element));
  }

  async #earlier() {
    const opened = this.opened;
    const before = this.turns[0];
    try {
      const { turns, earlier } = await get(`chat/conversations/${this.conversation.id}?before=${before.id}`);
      if (opened !== this.opened) return;
      const drawn = turns.map((document) => {
        const turn = new Turn(this.actions);
        turn.draw(document);
        return turn;
      });
      const height = this.scroller.scrollHeight;
      this.turns.unshift(...drawn);
      this.hasEarlier = earlier;
      this.#place();
      this.scroller.scrollTop += this.scroller.scrollHeight - height;
    } catch (error) {
      this.fail(error);
    }
  }

  // Ask

  // `after` is the turn that the question follows, null where it is not drawn; `parent` its answer
  ask(question, { after = this.turns.at(-1) ?? null, parent = after?.answerId || null } = {}) {
    const turn = new Turn(this.actions);
    turn.propose(question);
    const before = this.turns;
    for (const each of before) each.settle();
    this.turns = [...before.slice(0, before.indexOf(after) + 1), turn];
    this.#place();
    this.#toEnd(true);
    const body = { question, mode: this.composer.mode.value, sampling: this.composer.sampling };
    if (this.temporary) Object.assign(body, { temporary: true, history: this.temporary });
    else Object.assign(body, { conversation_id: this.conversation?.id ?? null, parent_answer_id: parent });
    const undo = () => {
      this.turns = before;
      if (before.length) this.#place();
      else this.list.replaceChildren(this.#welcome());
      this.composer.giveBack(question);
    };
    return this.#stream(turn, "chat/questions", body, { undo, again: () => (this.composer.clear(), this.ask(question, { after, parent })) });
  }

  #again(turn, body, path = `chat/answers/${turn.answerId}/again`) {
    const { document } = turn;
    const undo = () => {
      turn.document = null;
      turn.streaming = false;
      turn.draw(document);
    };
    turn.begin();
    return this.#stream(turn, path, { sampling: this.composer.sampling, ...body }, { undo });
  }

  #join(live) {
    const turn = this.turns.find((each) => each.answerId === live);
    if (!turn) return;
    turn.begin();
    this.#stream(turn, `chat/answers/${live}/stream`, undefined, { undo: () => this.refresh().catch(this.fail) });
  }

  // Follow one answer in its turn. `undo` takes a refused one off the page
  async #stream(turn, path, body, { undo, again } = {}) {
    const opened = this.opened;
    const here = () => opened === this.opened;
    const running = { id: "", follows: new AbortController() };
    this.streams.add(running);
    this.running = running;
    this.composer.running(true);
    turn.streaming = true;
    try {
      const end = await follow(path, body, {
        begin: ({ live, conversation, turn: document }) => {
          running.id = live;
          if (running.stopped) this.#stopRunning(running);
          if (conversation) this.sidebar.show(conversation);
          if (!here()) return running.follows.abort();
          if (conversation && !this.conversation) {
            history.replaceState(null, "", `?c=${conversation.id}`);
            this.composer.begun(conversation.id);
          }
          if (conversation) this.#titled(conversation);
          turn.html = { t: "", a: "" };
          if (document) turn.draw(document);
        },
        patch: (part, keep, tail) => {
          turn.patch(part, keep, tail);
          this.#follow();
        },
        end: (said) => {
          turn.end(said);
          if (said.turn && here()) turn.draw(said.turn);
        },
      }, running.follows.signal);
      if (!here()) return end;
      if (end === null) await this.#ended(turn); // it ended while the connection was lost
      else if (this.temporary) this.#remember(turn, end);
      announce(t("answered"));
      this.#follow();
      return end;
    } catch (error) {
      turn.streaming = false;
      if (!here()) return null;
      undo?.();
      this.fail(error, again);
      return null;
    } finally {
      this.streams.delete(running);
      if (this.running === running) {
        this.running = null;
        this.composer.running(false);
      }
    }
  }

  #ended(turn) {
    turn.end({});
    turn.document = null;
    return this.refresh();
  }

  #remember(turn, end) {
    this.temporary.push(
      { role: "user", content: turn.question.textContent },
      { role: "assistant", content: end.text ?? "" },
    );
  }

  stop() {
    if (this.running) this.#stopRunning(this.running);
  }

  #stopRunning(running) {
    running.stopped = true;
    if (running.id) post(`chat/answers/${running.id}/stop`).catch(() => {}); // it may have ended
  }

  // An error is a sentence with a way on; where the server is away, the way is taken by itself
  fail(error, again) {
    if (!(error instanceof Refused)) throw error;
    const words = error.kind === "Unreachable" ? t("unreachable") : error.message;
    if (!again || !error.retryAfter) return this.composer.complain(words, again && [t("try_again"), again]);
    let left = Math.ceil(error.retryAfter);
    const opened = this.opened;
    const tick = () => {
      if (opened !== this.opened || this.composer.notice.hidden) return clearInterval(timer);
      if (left <= 0) {
        clearInterval(timer);
        this.composer.content();
        return again();
      }
      this.composer.complain(`${words} ${t("asked_again_in", { seconds: left })}`, [t("cancel"), () => (clearInterval(timer), this.composer.content())]);
      left -= 1;
    };
    this.composer.notice.hidden = false;
    const timer = setInterval(tick, 1000);
    tick();
  }

  // What can be done with a turn

  #actions() {
    const store = (kind, act) => async (turn, ...rest) => {
      try {
        await act(turn, ...rest);
      } catch (error) {
        this.fail(error);
      }
    };
    const shown = (body) => async (id) => {
      try {
        this.#draw(await post(`chat/conversations/${this.conversation.id}`, { [body]: id }));
      } catch (error) {
        this.fail(error);
      }
    };
    return {
      showAnswer: shown("answer"),
      showTurn: shown("turn"),
      copyQuestion: (turn) => copyText(turn.document.question).then(() => announce(t("copied"))),
      edit: (turn) => this.#edit(turn),
      copy: store("copy", async (turn) => {
        const { text } = await get(`api/answers/${turn.answerId}`);
        await copyText(text);
        toast(t("copied"), null, 2);
        await post(`api/answers/${turn.answerId}/copy`);
      }),
      vote: store("vote", async (turn, vote) => {
        const before = turn.document;
        turn.draw({ ...before, vote, reasons: [], comment: "" });
        turn.bar.querySelector(`[data-does=${vote < 0 ? "thumb_down" : "thumb_up"}]`)?.focus();
        try {
          await post(`api/answers/${turn.answerId}/vote`, { vote });
        } catch (error) {
          turn.draw(before);
          throw error;
        }
        announce(t(vote ? "thanks" : "vote_cleared"));
        if (vote) askWhy(turn, vote, this.boot.reasons[vote], this.fail);
      }),
      improve: (turn) => improve(turn, () => this.refresh(), this.fail),
      again: (turn) => this.#again(turn, {}),
      goOn: (turn) => this.#again(turn, undefined, `chat/answers/${turn.answerId}/continue`),
      change: (turn) => this.#change(turn),
      compare: (turn) => this.#compare(turn),
      details: (turn) => this.#details(turn),
    };
  }

  #edit(turn) {
    const words = h("textarea", { "aria-label": t("edit_question"), class: "editing" });
    words.value = turn.document.question;
    const leave = () => turn.draw({ ...turn.document });
    const index = this.turns.indexOf(turn);
    const send = (event) => {
      event.preventDefault();
      if (!words.value.trim()) return;
      leave();
      this.ask(words.value, { after: this.turns[index - 1] ?? null, parent: turn.document.follows });
    };
    const keys = (event) => {
      if (event.key === "Escape") (event.stopPropagation(), leave());
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
    };
    turn.question.replaceChildren(
      h(
        "form",
        { class: "improve", onsubmit: send, onkeydown: keys },
        words,
        h("div", { class: "row-of" }, h("button", { class: "primary" }, t("send")), h("button", { type: "button", class: "link", onclick: leave }, t("cancel"))),
      ),
    );
    words.style.height = `${Math.min(words.scrollHeight + 4, innerHeight * 0.4)}px`;
    words.focus();
  }

  #editLast() {
    const last = this.turns.at(-1);
    if (!last?.document || this.running || this.temporary) return false;
    this.#edit(last);
    return true;
  }

  #change(turn) {
    const own = h("input", { type: "text", placeholder: t("own_words"), "aria-label": t("own_words"), maxlength: "500" });
    const ask = (change, instruction) => {
      turn.more.replaceChildren();
      this.#again(turn, { change, instruction });
    };
    const chip = (change) => h("button", { type: "button", class: "chip", "data-change": change, onclick: () => ask(change, t(`instruct_${change}`)) }, t(`change_${change}`));
    const send = (event) => {
      event.preventDefault();
      if (own.value.trim()) ask("own", own.value);
    };
    turn.more.replaceChildren(
      h(
        "form",
        { class: "why", onsubmit: send },
        h("div", { class: "chips", role: "group", "aria-label": t("change") }, CHANGES.map(chip)),
        own,
        iconButton("close", t("close"), () => turn.more.replaceChildren()),
      ),
    );
    turn.more.querySelector("button").focus();
  }

  async #compare(turn) {
    const first = turn.document.answer;
    const { document } = turn;
    turn.more.replaceChildren(h("p", { class: "small" }, t("second_answer_is_written")));
    const silent = new Turn(this.actions);
    const end = await this.#stream(silent, `chat/answers/${first.id}/again`, { to_compare: true, sampling: this.composer.sampling }, {
      undo: () => turn.more.replaceChildren(),
    });
    const second = end?.turn?.answer;
    if (!second || !this.turns.includes(turn)) return turn.more.replaceChildren();
    if (second.status !== "done") return this.actions.showAnswer(first.id); // half an answer is none
    turn.document = null;
    turn.draw(document);
    choose(turn, first, second, (id) => this.actions.showAnswer(id), this.fail);
  }

  #details(turn) {
    const report = async () => {
      box.close();
      try {
        await post(`api/answers/${turn.answerId}/flag`);
        await this.refresh();
        toast(t("report_saved"));
      } catch (error) {
        this.fail(error);
      }
    };
    const box = dialogue(
      t("details"),
      h("dl", {}, turn.facts().flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      h("p", { class: "small" }, t("what_a_report_does")),
      h("button", { type: "button", "data-does": "report", onclick: report }, t("report")),
    );
  }

  // The look

  #welcome() {
    const starter = (number) => {
      const words = t(`starter_${number}`);
      return h("button", { type: "button", class: "starter", onclick: () => this.ask(words) }, words);
    };
    return h(
      "div",
      { class: "welcome" },
      h("h2", {}, this.temporary ? t("temporary") : t("welcome")),
      h("p", {}, this.temporary ? t("temporary_is") : t("welcome_is")),
      h("div", { class: "starters" }, [1, 2, 3, 4].map(starter)),
    );
  }

  async #copyCode(event) {
    const button = event.target.closest(".copy_code_button");
    if (!button) return;
    await copyText(button.parentElement.querySelector("code").textContent);
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1500);
    announce(t("copied"));
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    this.follows = scrollHeight - scrollTop - clientHeight < NEAR_THE_END;
    this.toEnd.hidden = this.follows;
  }

  #follow() {
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
    else this.#scrolled();
  }

  #toEnd(follow) {
    this.follows = follow;
    this.#follow();
    this.toEnd.hidden = true;
  }
}

async function boot() {
  const root = h("div", { id: "burnish" });
  document.body.append(root); // over the frame, whose styles are not for this page
  const said = await get("chat/boot");
  learn(said.language, said.texts);
  useTheme(root, stored("theme"));
  mountNotices(root);
  const page = new Page(said);
  root.prepend(page.sidebar.element, page.sidebar.shade, page.element);
  await page.start();
  root.dataset.ready = "";
}

boot();
