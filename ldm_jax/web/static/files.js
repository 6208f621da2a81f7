// The files that a model is conditioned on, such as a small picture to enlarge, or boxes: each by
// drop or file, with a preview.

import { announce, find, iconButton, make, plural, tell } from "./dom.js";
import { labelOf } from "./fields.js";
import { dataUrl } from "./picture.js";
import { rememberPicture, rememberedPicture } from "./store.js";

/** Where a picture of the gallery goes, if the model has it. */
const FOR_PICTURES = ["edit_image", "low_res"];
/** Characters of a text that are shown. */
const SHOWN = 600;

const isPicture = (file) => file.type.startsWith("image/");
const isText = (file) => file.type === "application/json" || /\.json$/i.test(file.name ?? "");

/** How many times as bright a picture must be to be seen: the numbers of a class map are dark. */
function brighter(image) {
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((n) => Math.min(n, 128));
  const context = make("canvas", { width, height }).getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, width, height);
  const most = context.getImageData(0, 0, width, height).data
    .reduce((found, value, i) => (i % 4 === 3 ? found : Math.max(found, value)), 0);
  return most ? 255 / most : 1;
}

export class FileInput {
  constructor({ name, help }, changed) {
    this.name = name;
    this.changed = changed;
    this.file = null;
    this.error = make("p", { class: "error", id: `${name}-error`, role: "alert", hidden: true });
    const label = make("span", { class: "label", id: `${name}-label` }, labelOf({ name }));
    this.input = make("input", { type: "file", id: `${name}-file`, hidden: true,
      "aria-labelledby": label.id });
    this.choose = make("button", { type: "button", class: "link", id: `${name}-choose`,
      "aria-describedby": label.id, onclick: () => this.input.click() }, "Choose a file");
    this.zone = make("div", { class: "drop-zone" },
      make("p", {}, this.choose, " or drop one here."), this.input);
    this.paper = make("div", { class: "paper" });
    this.note = make("p", { class: "note" });
    this.easel = make("div", { class: "easel", hidden: true }, this.paper,
      iconButton("close", "Take the file away", () => this.clear()), this.note);
    this.element = make("div", { class: "field", "data-field": name }, label, this.zone, this.easel,
      make("p", { class: "note" }, help), this.error);
    this.input.addEventListener("change", () => {
      if (this.input.files[0]) this.set(this.input.files[0]);
      this.input.value = "";
    });
  }

  async set(file) {
    tell(this.error, null);
    const shown = await this.preview(file).catch(() => null);
    if (!shown) {
      tell(this.error, "The picture cannot be read; its file may be damaged.");
      return;
    }
    this.paper.replaceChildren(...shown);
    this.file = file;
    this.show();
    announce(this.note.textContent);
  }

  /** What is seen of a file; what it means, the server says. */
  async preview(file) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    const called = file.name ? `${file.name}, ` : "";
    this.note.textContent = `${called}${plural(file.size, "byte")}`;
    this.paper.hidden = !isPicture(file) && !isText(file);
    this.paper.classList.remove("tiny");
    if (isText(file)) {
      const text = await file.text();
      return [make("pre", { class: "file-text" },
        text.length > SHOWN ? `${text.slice(0, SHOWN)} …` : text)];
    }
    if (!isPicture(file)) return [];
    this.url = URL.createObjectURL(file);
    const image = make("img", { alt: "", class: "under", src: this.url });
    await image.decode();
    const { naturalWidth: width, naturalHeight: height } = image;
    if (brighter(image) > 2) image.style.filter = `brightness(${brighter(image)})`;
    this.note.textContent = `${called}${width} × ${height}`;
    this.paper.classList.toggle("tiny", Math.max(width, height) < 256);
    return [image];
  }

  show() {
    this.zone.hidden = this.file !== null;
    this.easel.hidden = this.file === null;
    rememberPicture(this.name, this.file);
    this.changed();
  }

  clear(focus = true) {
    tell(this.error, null);
    this.file = null;
    this.show();
    if (focus) this.choose.focus();
  }
}

export class Files {
  /** `changed` is called whenever a file is another. */
  constructor(changed) {
    this.changed = changed;
    this.inputs = [];
  }

  /** What the model takes. A file stays where another model takes it, too. */
  async show(described) {
    const before = new Map(this.inputs.map((input) => [input.name, input.file]));
    this.inputs = described.map((one) => new FileInput(one, this.changed));
    find("files").replaceChildren(...this.inputs.map(({ element }) => element));
    find("files-in").hidden = !described.length;
    for (const input of this.inputs) {
      const file = before.get(input.name) ?? await rememberedPicture(input.name);
      if (file) await input.set(file);
    }
  }

  input(name) {
    return this.inputs.find((input) => input.name === name) ?? null;
  }

  /** Whether the size of what is drawn follows from a file. */
  get sized() {
    return this.inputs.some(({ file }) => file && !isText(file));
  }

  missing() {
    return this.inputs.filter(({ file }) => !file).map(({ name }) =>
      ({ field: name, message: "This model is conditioned on such a file: choose one." }));
  }

  /** The input on whose place something lies, or else the one that a picture is for. */
  at(element) {
    return this.inputs.find((input) => input.element.contains(element)) ?? null;
  }

  get forPictures() {
    return this.inputs.find(({ name }) => FOR_PICTURES.includes(name)) ?? null;
  }

  /** Those that `blobs` has by name; the others are taken away. */
  async restore(blobs) {
    for (const input of this.inputs) {
      if (blobs[input.name]) await input.set(blobs[input.name]);
      else if (input.file) input.clear(false);
    }
  }

  /** As the server takes it. */
  async data() {
    const given = this.inputs.filter(({ file }) => file);
    const data = await Promise.all(given.map(async ({ name, file }) => [name, await dataUrl(file)]));
    return Object.fromEntries(data);
  }
}
