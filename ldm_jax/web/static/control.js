// ControlNet: which one is shown a picture, as it is or as its edges, how strongly and when.

import { find, make } from "./dom.js";
import { FileInput } from "./files.js";

const NUMBERS = {
  scale: ["Strength", 1, { min: -100, max: 100, step: 0.05 }],
  start: ["From share of the steps", 0, { min: 0, max: 1, step: 0.05 }],
  end: ["Up to share of the steps", 1, { min: 0, max: 1, step: 0.05 }],
};

const FITS = { stretch: "stretched", crop: "cropped to the middle", fill: "filled up around it" };

function labelled(id, label, input) {
  return make("div", { class: "field" }, make("label", { for: id }, label), input);
}

function flag(id, label) {
  const input = make("input", { id, type: "checkbox" });
  const line = make("div", { class: "flag" }, input, make("label", { for: id }, label));
  return [input, make("div", { class: "field" }, line)];
}

export class Control {
  constructor() {
    this.names = [];
    this.picture = new FileInput({ name: "hint", help: "Edges, a depth map, a pose: what the "
      + "drawing is to follow. Without a picture no ControlNet is used." }, () => {});
    this.model = make("select", { id: "control-model" });
    this.numbers = Object.fromEntries(Object.entries(NUMBERS).map(([name, [, usual, range]]) =>
      [name, make("input", { id: `control-${name}`, type: "number", value: usual, ...range })]));
    const [canny, cannyLine] = flag("control-canny", "Show it the picture's edges (Canny)");
    const [guess, guessLine] = flag("control-guess", "Guess what the picture shows (guess mode)");
    this.fit = make("select", { id: "control-fit" }, ...Object.entries(FITS).map(
      ([value, label]) => make("option", { value }, label)));
    Object.assign(this, { canny, guess });
    const numbers = Object.entries(this.numbers).map(([name, input]) =>
      labelled(input.id, NUMBERS[name][0], input));
    find("control").append(labelled("control-model", "ControlNet", this.model),
      this.picture.element, labelled("control-fit", "Of other proportions it is", this.fit),
      cannyLine, make("div", { class: "pair" }, ...numbers), guessLine);
  }

  /** The ControlNets that the server has. */
  show(names) {
    const before = this.model.value;
    this.names = names;
    this.model.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    if (names.includes(before)) this.model.value = before;
    find("control-drawer").hidden = !names.length;
  }

  get used() {
    return this.names.length > 0 && this.picture.file !== null;
  }

  /** As the server takes it; `dataUrl` makes text of a file. */
  async data(dataUrl) {
    if (!this.used) return {};
    const numbers = Object.entries(this.numbers).filter(([, input]) => input.value !== "")
      .map(([name, input]) => [name, Number(input.value)]);
    return { control: [{ model: this.model.value, image: await dataUrl(this.picture.file),
      canny: this.thresholds && this.canny.checked ? this.thresholds : this.canny.checked,
      fit: this.fit.value, guess_mode: this.guess.checked, ...Object.fromEntries(numbers) }] };
  }

  /** Takes what a picture says; `blob` fetches its hint. Of several, the first. */
  async restore([unit], blob) {
    if (!unit?.image) {
      if (this.picture.file) this.picture.clear(false);
      return;
    }
    this.model.value = unit.model;
    this.thresholds = Array.isArray(unit.canny) ? unit.canny : null;
    this.canny.checked = this.thresholds !== null;
    this.guess.checked = unit.guess_mode;
    this.fit.value = unit.fit;
    for (const [name, input] of Object.entries(this.numbers)) input.value = unit[name];
    find("control-drawer").open = true;
    await this.picture.set(await blob(unit.image));
  }
}
