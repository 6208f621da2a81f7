// Width and height: only sizes that the model can draw.

import { make, plural } from "./dom.js";

/** A possible side near to what was typed. */
export function nearest(side, value) {
  const most = Math.floor(side.most / side.multiple) * side.multiple;
  const near = Math.round(value / side.multiple) * side.multiple;
  return Math.min(most, Math.max(side.multiple, near));
}

/** Makes the fields of width and height one part of the form; a model of one size has none. */
export class Size {
  constructor(fields, sides) {
    this.fields = fields;
    this.sides = sides;
    this.free = Boolean(fields.width && fields.height);
    const about = { class: "field size", role: "group", "aria-labelledby": "size-label" };
    this.element = make("div", about,
      make("span", { class: "label", id: "size-label" }, "Size"),
      ...(this.free ? this.choice() : this.fixed()));
  }

  fixed() {
    const { width, height } = this.sides;
    return [make("p", { class: "one-size" }, `${width.default} × ${height.default}`),
      make("p", { class: "note" }, "This model draws no other.")];
  }

  choice() {
    const { multiple } = this.sides.width;
    const parts = ["width", "height"].map((name) => this.fields[name]);
    for (const field of parts) {
      const side = this.sides[field.setting.name];
      field.setDefault(side.default);
      field.label.classList.add("unseen");
      Object.assign(field.input, { min: side.multiple, max: side.most, step: side.multiple });
      field.input.addEventListener("change", () => this.snap(field, side));
    }
    const note = multiple === 1 ? null
      : make("p", { class: "note" }, `In steps of ${plural(multiple, "pixel")}.`);
    return [make("div", { class: "sides" }, parts[0].element,
      make("span", { "aria-hidden": "true" }, "×"), parts[1].element), note];
  }

  snap(field, side) {
    if (field.input.validity.badInput || field.input.value === "") return;
    const near = nearest(side, Number(field.input.value));
    if (near === Number(field.input.value)) return;
    field.input.value = near;
    field.edited();
  }

  /** Pictures that start from another have its size unless one is asked for. */
  followPicture(given) {
    if (!this.free) return;
    for (const [name, side] of Object.entries(this.sides)) {
      this.fields[name].setDefault(given ? null : side.default, "as picture");
    }
  }

  /** Width over height of what is asked for. */
  aspect(picture) {
    const side = (name) => Number(this.fields[name]?.input.value) || picture?.[name]
      || this.sides[name].default;
    return side("width") / side("height") || 1;
  }
}
