// One setting as a field of the form: its label, its input, what is wrong with it. A field holds a
// value only if that is another than the usual one; `read()` is undefined otherwise.

import { make, tell, words } from "./dom.js";

/** What the page knows of some settings besides what the server says: the words people know them
 * by, and the range that a slider offers. Any setting may do without. */
const LOOKS = {
  prompt: { label: "Prompt", rows: 3, hint: "" },
  negative_prompt: { label: "Negative prompt", rows: 1, hint: "" },
  classes: { label: "Class", hint: ({ most }) =>
    `0 to ${most}. Several, such as 0, 1, are drawn one after the other.` },
  num: { label: "Pictures", hint: "" },
  seed: { hint: "" },
  sampler: { hint: "" },
  steps: { slider: [1, 100, 1], hint: "" },
  guidance_scale: { label: "Guidance", slider: [1, 20, 0.5], hint: "" },
  vae: { label: "VAE" },
  literal_prompts: { label: "Brackets are plain text" },
  height: { hint: "" },
  width: { hint: "" },
  strength: { slider: [0, 1, 0.05], hint: "0 keeps the picture, 1 draws all anew." },
  low_res: { label: "Small picture" },
  noise_level: { hint: "Noise on the small picture hides its faults; 0 is none." },
  mask_blur: { label: "Soft edge", slider: [0, 64, 1], hint: "Pixels at the mask's edge." },
  only_masked: { label: "Only the masked part", none: "off",
    hint: "Draw it at full size, with so many pixels around it." },
};

export const labelOf = (setting) => LOOKS[setting.name]?.label ?? words(setting.name);
const isNumber = (type) => type === "integer" || type === "number";
/** Bounds beyond this are no help to anybody. */
const FAR = 1e12;

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const empty = (value) => value === null || value === undefined || value.length === 0;

/** The text of one entry of a list or of a field as a value; throws a sentence. */
export function parse(setting, text) {
  const label = labelOf(setting);
  if (!isNumber(setting.type)) return text;
  const value = Number(text);
  const whole = setting.type === "integer";
  if (text.trim() === "" || !Number.isFinite(value) || (whole && !Number.isInteger(value))) {
    throw new Error(`${label} must be ${whole ? "a whole number" : "a number"}, not “${text}”.`);
  }
  const { least, most, above } = setting;
  const tooSmall = least !== null && (above ? value <= least : value < least);
  if (tooSmall || (most !== null && value > most)) {
    throw new Error(`${label} must be ${range(setting)}, not ${text}.`);
  }
  return value;
}

function range({ least, most, above }) {
  const from = least === null ? "" : above ? `above ${least}` : `${least} or more`;
  const to = most === null || most >= FAR ? "" : `at most ${most}`;
  return least !== null && to && !above ? `from ${least} to ${most}`
    : [from, to].filter(Boolean).join(" and ");
}

function inputOf(setting, look, id) {
  const { type } = setting;
  if (type === "choice") {
    const usual = empty(setting.default) ? "not set" : `${setting.default} (usual)`;
    return make("select", { id }, make("option", { value: "" }, usual),
      ...setting.choices.map((name) => make("option", { value: name }, String(name))));
  }
  if (type === "flag") return make("input", { id, type: "checkbox" });
  if (look.rows) return make("textarea", { id, rows: look.rows, spellcheck: "false" });
  if (isNumber(type) && !setting.many) {
    const whole = type === "integer";
    return make("input", { id, type: "number", min: setting.least, max: setting.most,
      step: whole ? 1 : "any", inputmode: whole ? "numeric" : "decimal" });
  }
  return make("input", { id, type: "text", autocomplete: "off" });
}

export class Field {
  /** `changed` is called after every change by hand. */
  constructor(setting, changed) {
    this.setting = { ...setting };
    this.given = setting.default;
    this.look = LOOKS[setting.name] ?? {};
    this.changed = changed;
    const id = setting.name;
    this.input = inputOf(this.setting, this.look, id);
    this.errorLine = make("p", { class: "error", id: `${id}-error`, role: "alert", hidden: true });
    const { hint: own = setting.help } = this.look;
    const hint = typeof own === "function" ? own(setting) : own;
    this.hint = hint ? make("p", { class: "note", id: `${id}-hint` }, hint) : null;
    this.label = make("label", { for: id }, labelOf(setting));
    this.slider = this.look.slider ? this.makeSlider() : null;
    const control = this.slider
      ? make("div", { class: "with-slider" }, this.slider, this.input) : this.input;
    const row = setting.type === "flag"
      ? [make("div", { class: "flag" }, this.input, this.label)] : [this.label, control];
    this.element = make("div", { class: "field", "data-field": id }, ...row, this.hint,
      this.errorLine);
    this.input.setAttribute("aria-describedby",
      [this.hint?.id, this.errorLine.id].filter(Boolean).join(" "));
    this.input.addEventListener("input", () => this.edited());
    this.input.addEventListener("change", () => this.left());
    this.write(undefined);
  }

  makeSlider() {
    const [min, max, step] = this.look.slider;
    // The number beside it says the same to keyboards and screen readers.
    const slider = make("input", { type: "range", min, max, step, tabindex: -1,
      "aria-hidden": "true" });
    slider.addEventListener("input", () => {
      this.input.value = slider.value;
      this.edited();
    });
    return slider;
  }

  edited() {
    this.complain(null);
    this.mark();
    this.changed(this);
  }

  /** An empty field goes back to the usual value; others say what is wrong with them. */
  left() {
    const { type } = this.setting;
    if (isNumber(type) && !this.setting.many && this.input.value === ""
        && !this.input.validity.badInput) this.write(undefined);
    this.complain(this.problem());
    this.changed(this);
  }

  /** What is wrong with what was typed, or null. */
  problem() {
    try {
      this.read();
      return null;
    } catch (error) {
      return error.message;
    }
  }

  /** The value, or undefined for the usual one; throws a sentence about what cannot be one. */
  read() {
    const { type } = this.setting;
    const found = this.raw(type);
    return (empty(found) && type !== "flag") || same(found, this.setting.default)
      ? undefined : found;
  }

  /** What to send: also a usual value that is not the server's. */
  value() {
    const usual = this.setting.default;
    return this.read() ?? (empty(usual) || same(usual, this.given) ? undefined : usual);
  }

  raw(type) {
    if (type === "flag") return this.input.checked;
    const text = this.input.value;
    if (this.input.validity.badInput) return parse(this.setting, "this");
    if (this.setting.name === "prompt") return text.trim() ? [text] : [];
    if (this.setting.many) {
      const entries = text.split(/[,;]\s*|\s+/).filter(Boolean);
      return entries.map((entry) => parse(this.setting, entry));
    }
    return text === "" ? null : parse(this.setting, text);
  }

  write(value) {
    const { type } = this.setting;
    const shown = value ?? this.setting.default;
    if (type === "flag") this.input.checked = Boolean(shown);
    else if (type === "choice") this.input.value = value ?? "";
    else this.input.value = empty(shown) ? "" : this.setting.many ? shown.join(", ") : shown;
    if (isNumber(type)) {
      this.input.placeholder = empty(this.setting.default) ? this.look.none ?? "not set" : "";
    }
    this.complain(null);
    this.mark();
  }

  /** Another usual value; what was changed by hand stays. */
  setDefault(value, placeholder = "not set") {
    const kept = this.problem() === null ? this.read() : undefined;
    this.setting.default = value;
    this.look = { ...this.look, none: placeholder };
    this.write(kept);
  }

  /** The usual value that the server has for a picture with this longer side. */
  followSide(side) {
    const [, usual] = this.setting.default_by_side.findLast(([least]) => side >= least);
    this.given = usual;
    this.setDefault(usual);
  }

  mark() {
    let changed = true;
    try {
      changed = this.read() !== undefined;
    } catch {
      // What cannot be read was changed.
    }
    this.element.classList.toggle("changed", changed);
    if (this.slider) {
      const number = Number(this.input.value || this.setting.default || this.slider.min);
      this.slider.value = number;
      const [min, max] = this.look.slider;
      const share = Math.min(1, Math.max(0, (number - min) / (max - min)));
      this.slider.style.setProperty("--share", `${100 * share}%`);
    }
  }

  complain(message) {
    tell(this.errorLine, message);
    if (message) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }

  enable(on) {
    this.input.disabled = !on;
    this.element.classList.toggle("off", !on);
  }
}
