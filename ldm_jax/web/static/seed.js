// The seed: with dice for another one, and a lock. Unlocked, each drawing gets a seed of its own.
// What somebody types is meant: it closes the lock, and an emptied field opens it.

import { announce, icon, iconButton, make } from "./dom.js";

export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

export class Seed {
  /** Puts the buttons into the field of the seed. */
  constructor(field, locked, changed) {
    this.field = field;
    this.changed = changed;
    this.dice = iconButton("dice", "Another seed", () => this.roll());
    this.lock = iconButton("unlock", "Keep this seed", () => this.keep(!this.locked));
    const row = make("div", { class: "with-tools" });
    field.input.replaceWith(row);
    row.append(field.input, this.dice, this.lock);
    field.input.addEventListener("input", () => this.typed());
    this.keep(locked);
  }

  keep(locked) {
    this.locked = locked;
    this.lock.setAttribute("aria-pressed", String(locked));
    this.lock.replaceChildren(icon(locked ? "lock" : "unlock"));
    this.lock.title = locked ? "This seed is kept for every drawing"
      : "Each drawing gets another seed; click to keep this one";
    this.changed();
  }

  typed() {
    const { value, validity } = this.field.input;
    const meant = value !== "" || validity.badInput;
    if (meant === this.locked) return;
    this.keep(meant);
    announce(meant ? "This seed is kept for every drawing" : "Each drawing gets another seed");
  }

  roll() {
    this.field.write(randomSeed());
    this.field.changed(this.field);
    announce(`Seed ${this.field.input.value}`);
  }

  /** Just before drawing. */
  next() {
    if (!this.locked) this.roll();
  }
}
