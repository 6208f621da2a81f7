// The form: the fields that the model has, as the server describes them, in their places.

import { promptButtons } from "./adapters.js";
import { find, make, plural } from "./dom.js";
import { Field } from "./fields.js";
import { Seed } from "./seed.js";
import { Size } from "./size.js";
import { remember, remembered } from "./store.js";
import { TokenCount } from "./tokens.js";

/** Where settings stand; others go where their group says. In this order. */
const PLACES = {
  words: ["prompt", "negative_prompt", "classes"],
  "file-settings": ["noise_level"],
  "picture-settings": ["strength", "mask_blur", "only_masked"],
  basics: ["num", "seed", "steps", "guidance_scale", "sampler"],
};
/** The painter has a button for it. */
const BY_PAINTER = ["invert_mask"];

/** Fields below the headings that they come with. */
function underHeadings(fields) {
  let last = null;
  return fields.flatMap((field) => {
    const { heading } = field.setting;
    const first = heading !== last;
    last = heading;
    return first && heading ? [make("h3", {}, heading), field.element] : [field.element];
  });
}

export class Form {
  /** `changed` is called whenever the form has other values. */
  constructor(picture, files, changed, isLoaded) {
    this.picture = picture;
    this.files = files;
    this.changed = changed;
    this.isLoaded = isLoaded;
    this.fields = {};
    find("more-reset").addEventListener("click", () => this.reset());
    const drawer = find("more-drawer");
    drawer.open = remembered().more ?? false;
    drawer.addEventListener("toggle", () => remember({ more: drawer.open }));
  }

  /** Shows what a model has. What was typed before stays where the model has it, too. */
  show(description) {
    this.description = description;
    this.fields = {};
    for (const setting of description.settings) {
      if (BY_PAINTER.includes(setting.name)) continue;
      this.fields[setting.name] = new Field(setting, (field) => this.edited(field));
    }
    this.picture.allow(description);
    this.files.show(description.files);
    const strength = description.settings.find(({ name }) => name === "strength");
    this.usual = { strength: [strength?.default ?? null, strength?.default_masked ?? null] };
    this.place();
    this.restore(remembered().values ?? {});
    this.pictureChanged();
  }

  place() {
    const { fields } = this;
    const placed = new Set(["height", "width"]);
    for (const [place, names] of Object.entries(PLACES)) {
      const present = names.filter((name) => fields[name]);
      find(place).replaceChildren(...present.map((name) => fields[name].element));
      present.forEach((name) => placed.add(name));
    }
    if (fields.prompt) find("words").append(...promptButtons(this.description, fields));
    const others = Object.entries(fields).filter(([name]) => !placed.has(name))
      .map(([, field]) => field);
    const [main, more] = ["main", "more"].map((group) =>
      others.filter((field) => field.setting.group === group));
    this.size = new Size(fields, this.description.sides);
    find("basics").prepend(this.size.element);
    find("basics").append(...main.map((field) => field.element));
    find("more").replaceChildren(...underHeadings(more));
    if (fields.seed) {
      this.seed = new Seed(fields.seed, remembered().locked ?? false, () => this.kept());
    }
    this.counts = ["prompt", "negative_prompt"].filter((name) => fields[name])
      .map((name) => new TokenCount(fields[name], this.description, this.isLoaded));
  }

  restore(values) {
    for (const [name, field] of Object.entries(this.fields)) {
      if (values[name] !== undefined) field.write(values[name]);
    }
    this.counts.forEach((count) => count.count());
    this.look();
  }

  edited(field) {
    const { name } = field.setting;
    const values = remembered().values ?? {};
    try {
      values[name] = field.read();
    } catch {
      // Kept once it can be read.
    }
    remember({ values });
    this.look();
    this.changed();
  }

  kept() {
    if (this.seed) remember({ locked: this.seed.locked });
  }

  reset() {
    for (const field of this.drawer()) {
      field.write(undefined);
      this.edited(field);
    }
  }

  drawer() {
    return Object.values(this.fields).filter((field) => find("more").contains(field.element));
  }

  /** What depends on other fields: which ones can be set, and how many are. */
  look() {
    for (const field of Object.values(this.fields)) field.enable(this.met(field.setting.needs));
    const changed = this.drawer().filter((field) => field.element.matches(".changed")).length;
    find("more-count").textContent = changed ? `${changed} changed` : "";
    find("more-reset").parentElement.hidden = !changed;
  }

  met(needed) {
    if (needed === "init_image") return this.picture.given;
    if (needed === "mask") return this.picture.masked;
    const input = this.files.input(needed);
    if (input) return input.file !== null;
    const field = this.fields[needed];
    return !field || (this.met(field.setting.needs) && field.element.matches(".changed"));
  }

  pictureChanged() {
    const { given, masked, now } = this.picture;
    for (const name of PLACES["picture-settings"]) {
      const field = this.fields[name];
      if (field) field.element.hidden = !(name === "strength" ? given : masked);
    }
    this.fields.strength?.setDefault(this.usual.strength[masked ? 1 : 0]);
    if (given) this.fields.mask_blur?.followSide(Math.max(now.width, now.height));
    this.size?.followPicture(given || this.files.sized);
    this.look();
    this.changed();
  }

  // ----------------------------------------------------------------------------- to the server

  /** The values that are not the usual ones, and what is wrong with others. */
  request() {
    const request = {};
    const errors = [];
    for (const [name, field] of Object.entries(this.fields)) {
      if (!this.met(field.setting.needs)) continue;
      try {
        const value = field.value();
        if (value !== undefined) request[name] = value;
      } catch (error) {
        errors.push({ field: name, message: error.message });
      }
    }
    return { request, errors };
  }

  /** Takes the values of a request; the names that this model's form does not have. */
  fill(request) {
    const unused = Object.keys(request).filter((name) => !this.fields[name]
      && !BY_PAINTER.includes(name));
    for (const [name, field] of Object.entries(this.fields)) {
      field.write(request[name]);
      this.edited(field);
    }
    this.counts.forEach((count) => count.count());
    return unused;
  }

  /** Whether a setting has a value that need not be told. */
  isUsual(name, value) {
    if (this.description?.sides[name]?.default === value) return true;
    const setting = this.description?.settings.find((one) => one.name === name);
    return setting ? JSON.stringify(value) === JSON.stringify(setting.default) || value === false
      : !value;
  }

  // -------------------------------------------------------------------------------- and back

  forgive() {
    for (const field of Object.values(this.fields)) field.complain(field.problem());
  }

  /** Shows each sentence beside its field, and goes to the first; those without one are returned. */
  complain(errors) {
    const homeless = [];
    let first = null;
    for (const { field: name, message } of errors) {
      const field = this.fields[name];
      if (!field || field.element.hidden) {
        homeless.push({ field: name, message });
        continue;
      }
      field.complain(message);
      first ??= field;
    }
    if (first) {
      const drawer = first.element.closest("details");
      if (drawer) drawer.open = true;
      first.input.focus();
      first.element.scrollIntoView({ block: "nearest" });
    }
    return homeless;
  }

  /** What the button says. */
  pictures() {
    const count = Number(this.fields.num?.input.value) || 1;
    return count === 1 ? "Draw" : `Draw ${plural(count, "picture")}`;
  }
}
