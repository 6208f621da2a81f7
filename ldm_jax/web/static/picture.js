// The picture that drawing starts from: by drop, paste or file, with a mask painted on it.

import { announce, either, find, iconButton, make, tell } from "./dom.js";
import { MaskPainter } from "./mask.js";
import { rememberPicture, rememberedPicture } from "./store.js";

/** The bytes of a file as a data URL. */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function decoded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

export class Picture {
  /** `changed` is called whenever picture or mask is another. */
  constructor(changed) {
    this.changed = changed;
    this.now = null;
    this.allowed = { picture: false, mask: false, needed: false, formats: null };
    this.painter = new MaskPainter(() => this.maskChanged());
    this.error = find("init_image-error");
    this.image = make("img", { alt: "", class: "under" });
    this.paper = make("div", { class: "paper" }, this.image, this.painter.canvas,
      this.painter.ring);
    this.maskNote = make("p", { class: "note" }, "Paint over what is to be drawn anew.");
    find("easel").append(this.paper,
      iconButton("close", "Take the picture away", () => this.clear()),
      this.painter.tools, this.maskNote);
    find("picture-choose").addEventListener("click", () => find("picture-file").click());
    find("picture-file").addEventListener("change", (event) => {
      if (event.target.files[0]) this.set(event.target.files[0]);
      event.target.value = "";
    });
  }

  /** What the model takes. */
  allow({ takes_picture: picture, takes_mask: mask, needs_mask: needed,
    picture_formats: formats }) {
    this.allowed = { picture, mask, needed, formats };
    find("picture-file").accept = Object.values(formats).join();
    find("picture-label").textContent = needed ? "Picture to fill in" : "Picture to start from";
    find("picture-in").hidden = !picture;
    this.painter.tools.hidden = this.painter.canvas.hidden = this.maskNote.hidden = !mask;
  }

  get given() {
    return this.allowed.picture && this.now !== null;
  }

  get masked() {
    return this.given && this.allowed.mask && this.mask !== null;
  }

  /** What a model for inpainting cannot do without. */
  missing() {
    if (!this.allowed.needed || this.masked) return [];
    return [this.given
      ? { field: "mask", message: "Paint over what this model is to fill in." }
      : { field: "init_image", message: "This model fills in parts of a picture: choose one." }];
  }

  async restore() {
    const [file, mask] = await Promise.all(["init_image", "mask"].map(rememberedPicture));
    if (file) await this.set(file, mask ?? null);
  }

  /** Takes a file, and a mask's data URL or URL; tells what is wrong with it. */
  async set(file, mask = null) {
    tell(this.error, null);
    const { formats } = this.allowed;
    // A picture from before the page was loaded was looked at when it was given.
    if (formats && !Object.values(formats).includes(file.type)) {
      tell(this.error, `This is no picture in ${either(Object.keys(formats))}.`);
      return;
    }
    const url = URL.createObjectURL(file);
    try {
      await decoded(url);
    } catch {
      tell(this.error, "The picture cannot be read; its file may be damaged.");
      URL.revokeObjectURL(url);
      return;
    }
    if (this.now) URL.revokeObjectURL(this.now.url);
    this.image.src = url;
    await this.image.decode();
    const { naturalWidth: width, naturalHeight: height } = this.image;
    this.now = { file, url, width, height };
    this.paper.classList.toggle("tiny", Math.max(width, height) < 256);
    this.painter.start(width, height, mask ? await decoded(mask) : null);
    this.mask = this.painter.data();
    find("drop-zone").hidden = true;
    find("easel").hidden = false;
    announce(`Picture of ${width} by ${height} pixels`);
    this.keep();
    this.changed();
  }

  clear() {
    if (this.now) URL.revokeObjectURL(this.now.url);
    this.now = this.mask = null;
    find("easel").hidden = true;
    find("drop-zone").hidden = false;
    tell(this.error, null);
    this.keep();
    this.changed();
    find("picture-choose").focus();
  }

  maskChanged() {
    this.mask = this.painter.data();
    tell(find("mask-error"), null);
    this.keep();
    this.changed();
  }

  keep() {
    rememberPicture("init_image", this.now?.file);
    rememberPicture("mask", this.mask);
  }

  /** As the server takes it. */
  async data() {
    return {
      init_image: this.given ? await dataUrl(this.now.file) : null,
      mask: this.masked ? this.mask : null,
    };
  }
}
