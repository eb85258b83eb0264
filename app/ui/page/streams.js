// The running answers. Each is followed in its turn until it ends or the page is left; the composer's
// button stops the newest one.
import { follow, post } from "./api.js";

export class Streams {
  // `changed(running)` is called with whether an answer is running
  constructor(changed) {
    this.changed = changed;
    this.followed = new Set();
    this.newest = null;
  }

  get running() {
    return this.newest !== null;
  }

  // Draws one answer in its turn and resolves with the stream's last event, as `api.follow` does.
  // `on` has `begun(data)`, which may return false to stop following, `grown()` and `ended(data)`
  async follow(turn, path, body, on) {
    const stream = { id: "", isStopped: false, left: new AbortController() };
    this.followed.add(stream);
    this.#make(stream);
    turn.streaming = true;
    try {
      return await follow(path, body, {
        begin: (data) => {
          stream.id = data.live;
          if (stream.isStopped) this.#stop(stream);
          if (on.begun(data) === false) return stream.left.abort();
          turn.html = { t: "", a: "" };
          if (data.turn) turn.draw(data.turn);
        },
        patch: (part, keep, tail) => {
          turn.patch(part, keep, tail);
          on.grown();
        },
        chains: (ended, of) => turn.count(ended, of),
        called: (calls) => {
          turn.call(calls);
          on.grown();
        },
        end: (data) => {
          turn.end(data);
          on.ended(data);
        },
      }, stream.left.signal);
    } finally {
      turn.streaming = false;
      this.followed.delete(stream);
      if (this.newest === stream) this.#make(null);
    }
  }

  stop() {
    if (this.newest) this.#stop(this.newest);
  }

  // Disconnect: the answers go on without this page, and browsers limit connections
  leave() {
    for (const stream of this.followed) if (stream.id) stream.left.abort();
    this.#make(null);
  }

  #make(stream) {
    this.newest = stream;
    this.changed(stream !== null);
  }

  #stop(stream) {
    stream.isStopped = true;
    if (stream.id) post(`chat/answers/${stream.id}/stop`).catch(() => {}); // the answer may have ended
  }
}
