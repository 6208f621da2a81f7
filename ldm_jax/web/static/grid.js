// An X/Y grid: values of two settings, every combination of which is drawn.

import { find, make, plural, tell } from "./dom.js";
import { labelOf, parse } from "./fields.js";
import { remember, remembered } from "./store.js";

export const AXES = { x: "Across (X)", y: "Down (Y)" };
const NOT_COMPARED = ["num", "batch_size"];
/** Lists of which one value is compared at a time. */
const ONE_AT_A_TIME = ["prompt", "classes"];

/** Whether each value has a line of its own. */
const inLines = ({ type }) => type === "text" || type === "choice";

class Axis {
  constructor(letter, optional, changed) {
    this.letter = letter;
    this.changed = changed;
    this.settings = [];
    this.select = make("select", { id: `grid-${letter}`, onchange: () => this.chosen() });
    this.optional = optional;
    this.place = make("div", { class: "grid-values" });
    this.error = make("p", { class: "error", id: `grid-${letter}-error`, role: "alert",
      hidden: true });
    this.element = make("div", { class: "field" },
      make("label", { for: `grid-${letter}` }, AXES[letter]), this.select, this.place, this.error);
  }

  show(settings, state) {
    this.settings = settings;
    this.select.replaceChildren(
      make("option", { value: "" }, this.optional ? "nothing else" : "choose a setting"),
      ...settings.map((setting) => make("option", { value: setting.name }, labelOf(setting))));
    this.select.value = settings.some(({ name }) => name === state?.name) ? state.name : "";
    this.chosen(state?.text ?? "");
  }

  get setting() {
    return this.settings.find(({ name }) => name === this.select.value) ?? null;
  }

  chosen(text = "") {
    const { setting } = this;
    this.text = typeof text === "string" ? text : "";
    this.place.replaceChildren(...(setting ? [this.valuesInput(setting)] : []));
    this.edited();
  }

  valuesInput(setting) {
    const describe = `grid-${this.letter}-error`;
    const label = `Values of ${labelOf(setting)}`;
    if (setting.type === "choice") return this.choices(setting, label);
    const lines = setting.type === "text";
    const shape = lines ? { rows: 3 } : { type: "text" };
    const input = make(lines ? "textarea" : "input", { ...shape, "aria-label": label,
      "aria-describedby": describe, spellcheck: "false", autocomplete: "off",
      placeholder: lines ? "One on each line" : "Such as 1, 2, 5", oninput: () => {
        this.text = input.value;
        this.edited();
      } });
    input.value = this.text;
    return input;
  }

  choices(setting, label) {
    const chosen = new Set(this.text.split("\n"));
    const boxes = setting.choices.map((name) => make("input", { type: "checkbox", value: name,
      onchange: () => {
        this.text = boxes.filter((box) => box.checked).map((box) => box.value).join("\n");
        this.edited();
      } }));
    for (const box of boxes) box.checked = chosen.has(box.value);
    return make("div", { class: "chips", role: "group", "aria-label": label },
      ...boxes.map((box) => make("label", { class: "chip" }, box, box.value)));
  }

  edited() {
    tell(this.error, null);
    this.changed();
  }

  /** Takes an axis as the server has it, or none; whether the field can hold its values. */
  fill(axis) {
    const setting = axis && this.settings.find(({ name }) => name === axis.name);
    const text = setting && axis.values.flat().join(inLines(setting) ? "\n" : ", ");
    this.show(this.settings, axis && { name: axis.name, text });
    if (JSON.stringify(this.tried()) === JSON.stringify(axis)) return true;
    this.show(this.settings, null);
    return false;
  }

  tried() {
    try {
      return this.read();
    } catch {
      return undefined;
    }
  }

  texts() {
    const { setting } = this;
    if (!setting) return [];
    return this.text.split(inLines(setting) ? "\n" : /[,;\s]+/).map((text) => text.trim()).filter(Boolean);
  }

  /** The values as the server takes them; throws a sentence. */
  read() {
    const { setting } = this;
    if (!setting) return null;
    const values = this.texts().map((text) => parse(setting, text));
    if (!values.length) throw new Error(`Give values of ${labelOf(setting)} to compare.`);
    return { name: setting.name, values: setting.many ? values.map((value) => [value]) : values };
  }
}

export class Grid {
  constructor(changed) {
    this.changed = changed;
    this.axes = {
      x: new Axis("x", false, () => this.edited()), y: new Axis("y", true, () => this.edited()),
    };
    find("grid-axes").append(this.axes.x.element, this.axes.y.element);
    this.drawer = find("grid-drawer");
    this.drawer.open = remembered().grid?.open ?? false;
    this.drawer.addEventListener("toggle", () => this.edited());
  }

  show(settings) {
    const kept = remembered().grid ?? {};
    const usable = settings.filter(({ type, name, many }) => type !== "flag"
      && !NOT_COMPARED.includes(name) && (!many || ONE_AT_A_TIME.includes(name)));
    this.showing = true;
    for (const [letter, axis] of Object.entries(this.axes)) axis.show(usable, kept[letter]);
    this.showing = false;
    this.edited();
  }

  /** Takes the axes of a grid; the names of the settings that cannot be compared here. */
  fill(axes) {
    this.drawer.open = true;
    return Object.entries(this.axes).filter(([letter, axis]) => !axis.fill(axes[letter] ?? null))
      .map(([letter]) => axes[letter].name);
  }

  get wanted() {
    return this.drawer.open && this.axes.x.setting !== null;
  }

  edited() {
    if (this.showing || !this.axes) return;
    const state = { open: this.drawer.open };
    for (const [letter, axis] of Object.entries(this.axes)) {
      state[letter] = { name: axis.select.value, text: axis.text };
    }
    remember({ grid: state });
    const { x, y } = this.size();
    find("grid-count").textContent = this.wanted && x
      ? `${x} × ${y} = ${plural(x * y, "picture")}` : "";
    this.changed();
  }

  size() {
    const y = this.axes.y.setting ? this.axes.y.texts().length : 1;
    return { x: this.axes.x.texts().length, y };
  }

  /** Both axes, or null where a sentence was shown beside one. */
  read() {
    const found = {};
    for (const [letter, axis] of Object.entries(this.axes)) {
      try {
        found[letter] = axis.read();
      } catch (error) {
        tell(axis.error, error.message);
        axis.place.querySelector("input, textarea")?.focus();
        return null;
      }
    }
    return found;
  }

  /** Shows sentences about the axes; the others are returned. */
  complain(errors) {
    return errors.filter(({ field, message }) => {
      const axis = this.axes[field]
        ?? Object.values(this.axes).find((one) => one.select.value === field);
      if (axis) tell(axis.error, message);
      return !axis;
    });
  }
}
