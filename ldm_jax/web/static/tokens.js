// Counts a prompt's tokens while it is typed. Only the model that is loaded can count.

import * as api from "./api.js";
import { make, plural } from "./dom.js";

const PAUSE = 350;

export class TokenCount {
  /** `loaded` says whether the model that the form shows is in memory. */
  constructor(field, { model, token_limit: limit, chunks }, loaded) {
    this.field = field;
    this.model = model;
    this.limit = limit;
    this.inChunks = chunks;
    this.loaded = loaded;
    this.line = make("p", { class: "note tokens", id: `${field.setting.name}-tokens` });
    field.element.append(this.line);
    const described = field.input.getAttribute("aria-describedby");
    field.input.setAttribute("aria-describedby", `${described} ${this.line.id}`);
    field.input.addEventListener("input", () => this.later());
    this.count();
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.count(), PAUSE);
  }

  async count() {
    const text = this.field.input.value;
    if (!text.trim() || !this.loaded()) {
      this.show("");
      return;
    }
    try {
      const found = await api.tokens(this.model, text);
      if (text === this.field.input.value) this.tell(found);
    } catch (error) {
      // With another model in memory there is nothing to count with; otherwise it says what the
      // prompt's brackets mean to it.
      this.show(error.status === 422 ? error.message : "", true);
    }
  }

  tell({ count, limit, chunks, unknown }) {
    const parts = [chunks > 1 ? `${count} tokens, in ${chunks} chunks of up to ${limit}`
      : `${count} of ${plural(limit, "token")}`];
    const cut = !this.inChunks && count > limit;
    if (cut) parts.push(`the model reads only the first ${limit}`);
    if (unknown.length) parts.push(`the model does not know ${unknown.join(", ")}`);
    this.show(parts.join("; "), cut || unknown.length > 0);
  }

  show(text, warn = false) {
    this.line.textContent = text;
    this.line.classList.toggle("warn", warn);
  }
}
