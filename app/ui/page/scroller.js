// The column of turns: it scrolls along with growing text, unless the person scrolled up.
import { h, iconButton } from "./dom.js";
import { t } from "./texts.js";

const NEAR_THE_END = 80; // pixels; within this distance the column follows the stream

export class Scroller {
  constructor() {
    this.follows = true;
    this.list = h("div", { class: "turns", id: "turns" });
    this.element = h("div", { class: "scroller", id: "scroller", tabindex: "-1", onscroll: () => this.#scrolled() }, this.list);
    this.toEndButton = iconButton("down", t("to_the_end"), () => this.toEnd(), { id: "to-end", hidden: true });
  }

  draw(...children) {
    this.list.replaceChildren(...children);
  }

  // Prepend earlier turns without moving the visible ones
  drawAbove(...children) {
    const height = this.element.scrollHeight;
    this.draw(...children);
    this.element.scrollTop += this.element.scrollHeight - height;
  }

  grown() {
    if (this.follows) this.element.scrollTop = this.element.scrollHeight;
    else this.#scrolled();
  }

  toEnd() {
    this.follows = true;
    this.grown();
    this.toEndButton.hidden = true;
  }

  #scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    this.follows = scrollHeight - scrollTop - clientHeight < NEAR_THE_END;
    this.toEndButton.hidden = this.follows;
  }
}
