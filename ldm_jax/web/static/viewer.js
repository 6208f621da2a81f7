// One picture in full, with its settings and what can be done with it.

import * as api from "./api.js";
import { announce, find, make, sentence, tell } from "./dom.js";
import { labelOf } from "./fields.js";
import { AXES } from "./grid.js";

const VARIATIONS = 4;
const SEEDS = 2 ** 32;

const TOLD_FIRST = ["model", "negative_prompt", "classes", "seed", "steps", "sampler",
  "guidance_scale", "width", "height", "strength"];

const row = ([name, value]) =>
  make("div", {}, make("dt", {}, labelOf({ name })), make("dd", {}, told(value)));

/** What was asked for: without what model and sampler filled in, which they do again. */
export function asked({ request, filled }) {
  return Object.fromEntries(Object.entries(request).filter(([name]) => !filled.includes(name)));
}

export class Viewer {
  /** `draw(jobs)` queues, `drawGrid(job, axes)` a grid; `restore(found)` fills the form; `use(blob)`
   * takes the picture as input; `isUsual(name, value)` says what nobody asks about. */
  constructor(gallery, { draw, drawGrid, restore, use, isUsual }) {
    Object.assign(this, { gallery, draw, drawGrid, restore, use, isUsual });
    this.dialog = find("viewer");
    this.varied = new Map();
    const on = (id, run) => find(id).addEventListener("click", () => this.try(run));
    on("viewer-close", () => this.dialog.close());
    on("viewer-newer", () => this.step(-1));
    on("viewer-older", () => this.step(1));
    on("viewer-again", () => this.repeat());
    on("viewer-vary", () => this.vary());
    on("viewer-input", () => this.asInput());
    on("viewer-restore", () => this.toForm());
    on("viewer-delete", () => this.question(true));
    on("question-no", () => this.question(false));
    on("question-yes", () => this.remove());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("close", () => this.gallery.focus(this.name));
    find("viewer-image").addEventListener("load", (event) => {
      event.target.classList.toggle("tiny", event.target.naturalWidth < 256);
    });
  }

  async try(run) {
    tell(find("viewer-error"), null);
    try {
      await run();
    } catch (error) {
      tell(find("viewer-error"), error.message);
    }
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key in steps) this.try(() => this.step(steps[event.key]));
    else if (event.key === "Delete") this.question(true);
    else return;
    event.preventDefault();
  }

  async open(name) {
    this.name = name;
    this.found = null;
    this.question(false, false);
    tell(find("viewer-error"), null);
    const url = api.pictureUrl(name);
    Object.assign(find("viewer-image"), { src: url, alt: "" });
    Object.assign(find("viewer-download"), { href: url, download: name });
    const item = this.gallery.items.find((one) => one.name === name);
    find("viewer-title").textContent = item?.prompt || name;
    find("viewer-note").textContent = item
      ? `${item.width} × ${item.height} · ${new Date(item.time * 1000).toLocaleString()}` : "";
    for (const id of ["viewer-settings", "viewer-usual"]) find(id).replaceChildren();
    find("viewer-rest").hidden = true;
    if (!this.dialog.open) this.dialog.showModal();
    this.enable(false);
    await this.read(name);
  }

  async read(name) {
    try {
      const found = await api.settingsOf(name);
      if (this.name === name) this.show(found);
    } catch (error) {
      if (this.name === name) tell(find("viewer-error"), error.message);
    }
  }

  enable(on) {
    for (const id of ["viewer-again", "viewer-vary", "viewer-restore"]) find(id).disabled = !on;
    find("viewer-told").hidden = !on;
  }

  show(found) {
    this.found = found;
    this.enable(true);
    const { prompt, num, ...others } = found.request;
    const { grid } = found;
    find("viewer-again").textContent = grid ? "Draw the grid again" : "Again";
    find("viewer-vary").hidden = Boolean(grid);
    if (prompt?.length) find("viewer-title").textContent = prompt.join(", ");
    find("viewer-image").alt = find("viewer-title").textContent;
    const rows = Object.entries({ model: found.model ?? found.model_said, ...others })
      .filter(([, value]) => value !== null);
    const first = ([name, value]) => TOLD_FIRST.includes(name) || !this.isUsual(name, value);
    find("viewer-settings").replaceChildren(...axes(grid), ...rows.filter(first).map(row));
    find("viewer-usual").replaceChildren(...rows.filter((one) => !first(one)).map(row));
    find("viewer-rest").hidden = !find("viewer-usual").children.length;
    if (found.problems.length) tell(find("viewer-error"), found.problems.map(sentence).join(" "));
  }

  async step(by) {
    const name = await this.gallery.beside(this.name, by);
    if (!name) {
      announce(by < 0 ? "This is the newest picture" : "This is the oldest picture");
      return;
    }
    await this.open(name);
    announce(find("viewer-title").textContent);
  }

  // ------------------------------------------------------------------------------ what to do

  /** The picture's own request as a job. */
  async job() {
    if (!this.found.model) throw new Error("The model of this picture is not here.");
    const { model, init_image: picture, mask, files } = this.found;
    const job = { model, request: asked(this.found) };
    for (const [name, url] of Object.entries({ init_image: picture, mask, ...files })) {
      job[name] = url ? await this.use.data(await api.blob(url)) : null;
    }
    const units = this.found.control.map(async (unit) => (
      { ...unit, image: unit.image && await this.use.data(await api.blob(unit.image)) }));
    if (units.length) job.control = await Promise.all(units);
    return job;
  }

  async repeat() {
    const job = await this.job();
    if (this.found.grid) await this.drawGrid(job, this.found.grid);
    else await this.draw([job]);
    this.dialog.close();
  }

  async vary() {
    const job = await this.job();
    const from = this.varied.get(this.name) ?? job.request.seed ?? 0;
    const seeds = Array.from({ length: VARIATIONS }, (_, i) => (from + 1 + i) % SEEDS);
    await this.draw(seeds.map((seed) => ({ ...job, request: { ...job.request, seed } })));
    this.varied.set(this.name, seeds.at(-1));
    this.dialog.close();
  }

  async asInput() {
    const blob = await api.blob(api.pictureUrl(this.name));
    this.dialog.close();
    await this.use.picture(blob);
  }

  async toForm() {
    this.dialog.close();
    await this.restore(this.found);
  }

  question(on, focus = true) {
    find("viewer-question").hidden = !on;
    find("viewer-actions").hidden = on;
    if (focus) find(on ? "question-no" : "viewer-delete").focus();
  }

  async remove() {
    const { name } = this;
    const next = await this.gallery.beside(name, 1) ?? await this.gallery.beside(name, -1);
    await this.gallery.remove(name);
    announce("Deleted");
    if (next) await this.open(next);
    else this.dialog.close();
  }
}

/** What a grid goes over, as rows of the settings. */
function axes(grid) {
  const given = Object.entries(grid ?? {}).filter(([, axis]) => axis);
  return given.map(([letter, { name, values }]) => {
    const listed = values.map(told).join(name === "prompt" ? "; " : ", ");
    return make("div", {}, make("dt", {}, AXES[letter]),
      make("dd", {}, `${labelOf({ name })}: ${listed}`));
  });
}

function told(value) {
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "boolean") return value ? "yes" : "no";
  return String(value);
}
