// Files dropped anywhere or pasted: on the picture's place they are what to start from; elsewhere a
// PNG brings its settings back.

import * as api from "./api.js";
import { find, toast } from "./dom.js";

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

/** The picture that is pasted. Office programs add a picture of the text that was copied: then the
 * text is meant. */
function pastedPicture(clipboard) {
  if (!clipboard || clipboard.getData("text/plain").trim()) return null;
  return [...clipboard.files].find((file) => file.type.startsWith("image/")) ?? null;
}

export class Drop {
  /** `restore(found)` fills the form with settings; `use(file)` takes the file as input;
   * `place(element)` is the file input there, or null. */
  constructor({ restore, use, place }) {
    Object.assign(this, { restore, use, place });
    this.depth = 0;
    window.addEventListener("dragenter", (event) => this.over(event, 1));
    window.addEventListener("dragleave", (event) => this.over(event, -1));
    window.addEventListener("dragover", (event) => {
      if (hasFiles(event)) event.preventDefault();
    });
    window.addEventListener("drop", (event) => this.dropped(event));
    window.addEventListener("paste", (event) => {
      const file = pastedPicture(event.clipboardData);
      if (!file) return;
      event.preventDefault();
      this.use(file);
    });
  }

  over(event, step) {
    if (!hasFiles(event)) return;
    this.depth += step;
    find("drop-veil").hidden = this.depth <= 0;
    this.aim(this.depth > 0);
  }

  dropped(event) {
    if (!hasFiles(event)) return;
    event.preventDefault();
    this.depth = 0;
    find("drop-veil").hidden = true;
    this.aim(false);
    const file = event.dataTransfer.files[0];
    if (!file) return;
    if (find("viewer").open) find("viewer").close();
    const input = this.place(event.target);
    if (input) input.set(file);
    else if (find("picture-in").contains(event.target)) this.use(file, true);
    else this.read(file);
  }

  aim(on) {
    for (const id of ["picture-in", "files-in"]) find(id).classList.toggle("aimed", on);
  }

  /** A PNG's settings; another picture may be meant as input. */
  async read(file) {
    if (file.type !== "image/png") {
      toast("Only PNG files keep the settings that they were drawn with.", "Use it as input",
        () => this.use(file));
      return;
    }
    try {
      await this.restore(await api.settingsInFile(file));
    } catch (error) {
      toast(error.message, "Use it as input", () => this.use(file));
    }
  }
}
