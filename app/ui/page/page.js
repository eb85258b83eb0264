// The chat page: a view of the store. It shows a conversation as the server has it, and the address
// names the conversation.
import { actionsOn, edit } from "./actions.js";
import { Refused, get, post } from "./api.js";
import { offer } from "./compare.js";
import { Composer } from "./composer.js";
import { Documents } from "./documents.js";
import { copyText, h, iconButton, stored } from "./dom.js";
import { Imports } from "./imports.js";
import { MyFeedback } from "./my_feedback.js";
import { announce, toast } from "./notices.js";
import { Prompts } from "./prompts.js";
import { Scroller } from "./scroller.js";
import { showSettings } from "./settings.js";
import { FEEDBACK, Sidebar } from "./sidebar.js";
import { Streams } from "./streams.js";
import { t } from "./texts.js";
import { Tools } from "./tools.js";
import { Turn } from "./turn.js";

export class Page {
  constructor(boot) {
    this.boot = boot;
    this.conversation = null; // its summary in the side bar
    this.temporary = null; // the messages of a temporary chat
    this.turns = [];
    this.hasEarlier = false; // whether there are turns before those drawn
    this.opened = 0; // counts opened views, so that a late reply is dropped
    this.settled = Promise.resolve(); // resolves when no request for the shown view is under way
    this.fail = this.fail.bind(this);
    this.actions = actionsOn(this);
    this.streams = new Streams((running) => this.composer.running(running));
    this.scroller = new Scroller();
    this.prompts = new Prompts(this.fail);
    this.documents = new Documents(this.fail);
    this.composer = new Composer(boot, this.prompts, this.documents, new Tools(boot, this.fail), { send: (q) => this.ask(q), stop: () => this.streams.stop(), edit: () => this.#editLast() });
    this.sidebar = new Sidebar({
      open: (id) => this.open(id), begin: () => this.begin(), feedback: () => this.showFeedback(),
      settings: () => showSettings(this.boot, this.imports, this.fail), fail: this.fail, renamed: (summary) => this.#titled(summary),
    }, boot.account);
    this.imports = new Imports(this);
    this.title = h("h1", {}, t("new_chat"));
    this.release = h("span", { class: "release", title: t("release") }, boot.release || t("base_model"));
    this.ghost = iconButton("ghost", t("temporary"), () => this.begin({ temporary: !this.temporary }), { id: "temporary", "aria-pressed": "false" });
    this.element = h(
      "main",
      {},
      h("header", { class: "top" }, iconButton("menu", t("show_side"), () => this.sidebar.toggle(), { id: "open-side" }), this.title, this.release, this.ghost),
      this.scroller.element,
      h("div", { class: "bottom" }, this.scroller.toEndButton, this.composer.element),
    );
    addEventListener("popstate", () => this.#fromAddress());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) this.streams.stop();
    });
    this.element.addEventListener("click", copyCode);
  }

  async start() {
    this.sidebar.load();
    this.prompts.load();
    await this.#fromAddress();
    this.composer.focus();
  }

  #fromAddress() {
    const asked = new URLSearchParams(location.search);
    if (asked.get("view") === "feedback") return this.showFeedback({ push: false });
    const id = asked.get("c");
    return id ? this.open(id, { push: false }) : this.begin({ push: false });
  }

  // Opening a conversation

  begin({ push = true, temporary = false } = {}) {
    this.#leave(push ? location.pathname : null);
    this.temporary = temporary ? [] : null;
    this.ghost.setAttribute("aria-pressed", String(temporary));
    this.#titled(null);
    this.composer.about(temporary ? "temporary" : "new");
    this.scroller.draw(this.#welcome());
    this.composer.focus();
  }

  async open(id, { push = true } = {}) {
    this.#leave(push ? `?c=${id}` : null);
    const here = this.#here();
    this.composer.about(id);
    try {
      const view = await get(`chat/conversations/${id}`);
      if (!here()) return;
      this.#draw(view);
      this.composer.presets.use(view.system);
      this.scroller.toEnd();
      for (const live of view.running) this.#join(live);
    } catch (error) {
      if (!here()) return;
      if (error.kind === "UnknownId") {
        this.begin();
        this.composer.complain(t("conversation_gone"));
      } else {
        this.scroller.draw();
        this.fail(error, () => this.open(id, { push: false }));
      }
    }
  }

  // Show "My feedback" in place of a conversation
  async showFeedback({ push = true } = {}) {
    this.#leave(push ? "?view=feedback" : null);
    this.#titled(null, t("my_feedback"));
    this.sidebar.mark(FEEDBACK);
    this.element.classList.add("reading");
    const forgotten = async ({ conversations, releases }) => {
      this.begin();
      await this.sidebar.load();
      toast(t("my_forgotten", { conversations, releases }), null, 12);
    };
    this.feedback = new MyFeedback({ open: (id) => this.open(id), fail: (error) => this.#failReading(error), forgotten });
    this.scroller.draw(this.feedback.element);
    this.scroller.element.scrollTop = 0;
    await this.feedback.load();
  }

  // The composer's notice is hidden while the feedback is shown
  #failReading(error) {
    if (!(error instanceof Refused)) throw error;
    toast(error.kind === "Unreachable" ? t("unreachable") : error.message, null, 12);
  }

  // Reload the conversation from the store; unchanged turns are not redrawn
  async refresh() {
    if (this.conversation) await this.#read(() => get(`chat/conversations/${this.conversation.id}`));
  }

  // Show another branch: { answer } or { turn }
  async show(which) {
    await this.#read(() => post(`chat/conversations/${this.conversation.id}`, which));
  }

  // Draw the view that `request` resolves with
  #read(request) {
    return this.#inOrder(async (here) => {
      if (!here()) return;
      const view = await request();
      if (here()) this.#draw(view);
    });
  }

  // Call `act(here, release)` once earlier requests for this view are answered, and let later ones wait
  // until it calls `release` or ends: a reply is never drawn over a newer view, and a question follows
  // the branch that was chosen before it
  async #inOrder(act) {
    const here = this.#here();
    const earlier = this.settled;
    let release;
    this.settled = new Promise((resolve) => (release = resolve));
    try {
      await earlier;
      return await act(here, release);
    } finally {
      release();
    }
  }

  // Returns a function that tells whether the current view is still shown
  #here() {
    const { opened } = this;
    return () => opened === this.opened;
  }

  #leave(address) {
    this.opened += 1;
    this.settled = Promise.resolve();
    this.streams.leave();
    this.feedback?.leave();
    this.element.classList.remove("reading");
    this.composer.content();
    this.conversation = null;
    this.temporary = null;
    this.turns = [];
    this.hasEarlier = false;
    this.scroller.follows = true;
    this.scroller.draw();
    this.sidebar.mark("");
    if (address !== null && address !== location.search) history.pushState(null, "", address);
  }

  #titled(summary, title = summary?.title) {
    this.conversation = summary;
    this.title.textContent = title ?? (this.temporary ? t("temporary") : t("new_chat"));
    document.title = title ? `${title} · Burnish` : "Burnish";
    this.sidebar.mark(summary?.id ?? "");
  }

  // Its turns

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
    this.scroller.draw(...this.#column());
    this.scroller.grown();
  }

  // Draw the turns, below a button if there are earlier ones
  #column() {
    const more = h("button", { type: "button", class: "link earlier", onclick: () => this.#earlier() }, t("show_earlier"));
    return [...(this.hasEarlier ? [more] : []), ...this.turns.map((turn) => turn.element)];
  }

  async #earlier() {
    const here = this.#here();
    try {
      const { turns, earlier } = await get(`chat/conversations/${this.conversation.id}?before=${this.turns[0].id}`);
      if (!here()) return;
      const drawn = turns.map((document) => {
        const turn = new Turn(this.actions);
        turn.draw(document);
        return turn;
      });
      this.turns.unshift(...drawn);
      this.hasEarlier = earlier;
      this.scroller.drawAbove(...this.#column());
    } catch (error) {
      this.fail(error);
    }
  }

  turnBefore(turn) {
    return this.turns[this.turns.indexOf(turn) - 1] ?? null;
  }

  #editLast() {
    const last = this.turns.at(-1);
    if (!last?.document || this.streams.running || this.temporary) return false;
    edit(this, last);
    return true;
  }

  // Answers

  // `after` is the preceding turn, null if it is not drawn; `parent` is that turn's answer
  async ask(question, place) {
    const { draftKey } = this.composer;
    await this.#inOrder(async (here, release) => {
      if (here()) await this.#ask(question, place, release);
      else stored(draftKey, question); // the person left before the question could be sent
    });
  }

  async #ask(question, { after = this.turns.at(-1) ?? null, parent = after?.answerId || null } = {}, begun) {
    const turn = new Turn(this.actions);
    turn.propose(question);
    const before = this.turns;
    for (const each of before) each.settle();
    this.turns = [...before.slice(0, before.indexOf(after) + 1), turn];
    this.scroller.draw(...this.#column());
    this.scroller.toEnd();
    const body = { question, ...this.composer.manner, ...this.composer.drawing };
    if (this.temporary) Object.assign(body, { temporary: true, history: this.temporary });
    else Object.assign(body, { conversation_id: this.conversation?.id ?? null, parent_answer_id: parent });
    const undo = () => {
      this.turns = before;
      this.scroller.draw(...(before.length ? this.#column() : [this.#welcome()]));
      this.composer.giveBack(question);
    };
    const again = () => (this.composer.clear(), this.ask(question, { after, parent }));
    const end = await this.stream(turn, "chat/questions", body, { undo, again, begun });
    if (end?.status === "done" && turn.answerId) await offer(this, turn);
  }

  // Generate another answer in a turn, or continue the one that is shown
  again(turn, body, path = `chat/answers/${turn.answerId}/again`) {
    return this.#inOrder((here, begun) => {
      if (!here()) return null;
      const { document } = turn;
      const undo = () => {
        turn.document = null;
        turn.draw(document);
      };
      turn.begin();
      return this.stream(turn, path, { ...this.composer.drawing, ...body }, { undo, begun });
    });
  }

  #join(live) {
    const turn = this.turns.find((each) => each.answerId === live);
    if (!turn) return;
    turn.begin();
    this.stream(turn, `chat/answers/${live}/stream`, undefined, { undo: () => this.refresh().catch(this.fail) });
  }

  // Follow one answer in its turn and resolve with the stream's end. `undo` removes a refused answer
  // from the page; `again` repeats the request; `begun` is called once the server has the answer
  async stream(turn, path, body, { undo, again, begun = () => {} } = {}) {
    const here = this.#here();
    try {
      const end = await this.streams.follow(turn, path, body, {
        begun: ({ conversation }) => {
          begun();
          if (conversation) this.sidebar.show(conversation);
          if (!here()) return false;
          if (conversation) this.#begun(conversation);
          return true;
        },
        grown: () => this.scroller.grown(),
        ended: (said) => said.turn && here() && turn.draw(said.turn),
      });
      begun(); // the connection may have been lost before
      if (!here()) return end;
      if (end === null) await this.#ended(turn); // the answer ended while the connection was lost
      else if (this.temporary) this.#remember(turn, end);
      announce(t("answered"));
      this.scroller.grown();
      return end;
    } catch (error) {
      if (!here()) return null;
      undo?.();
      this.fail(error, again);
      return null;
    }
  }

  #begun(conversation) {
    if (!this.conversation) {
      history.replaceState(null, "", `?c=${conversation.id}`);
      this.composer.begun(conversation.id);
    }
    this.#titled(conversation);
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

  // Show an error with an action to retry; if the server is unreachable, retry automatically
  fail(error, again) {
    if (!(error instanceof Refused)) throw error;
    if (error.kind === "UnknownId" && this.conversation) return this.#gone();
    const words = error.kind === "Unreachable" ? t("unreachable") : error.message;
    if (again && error.retryAfter) this.composer.complainUntil(words, error.retryAfter, again, this.#here());
    else this.composer.complain(words, again && [t("try_again"), again]);
  }

  // The conversation was deleted in another tab; keep the typed text for a new one
  #gone() {
    const goOn = () => {
      const typed = this.composer.box.value;
      this.begin();
      this.composer.giveBack(typed);
    };
    this.sidebar.load();
    this.composer.complain(t("conversation_gone"), [t("new_chat"), goOn]);
  }

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
}

async function copyCode(event) {
  const button = event.target.closest(".copy_code_button");
  if (!button) return;
  await copyText(button.parentElement.querySelector("code").textContent);
  button.classList.add("copied");
  setTimeout(() => button.classList.remove("copied"), 1500);
  announce(t("copied"));
}
