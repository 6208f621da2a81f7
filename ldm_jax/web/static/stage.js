// What is being drawn: preview, progress, stop, skip; the queue; and what was drawn last.

import * as api from "./api.js";
import { announce, find, iconButton, make, plural, sentence, tell } from "./dom.js";
import { noiseCanvas, paintNoise } from "./noise.js";

/** Pictures of a drawing that are shown together, at most. */
const SHOWN = 16;

/** Seconds as people say them. */
export function duration(seconds) {
  if (seconds < 1.5) return "about a second";
  if (seconds < 90) return `about ${Math.round(seconds)} seconds`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} minutes`;
  return `about ${Math.round(seconds / 3600)} hours`;
}

/** What a job is of, in a line. */
export function subject({ request, model }) {
  if (request.prompt?.length) return request.prompt.join(", ");
  if (request.classes?.length) return `Class ${request.classes.join(", ")}`;
  return `A picture of ${model}`;
}

function doing(job) {
  const left = job.seconds_left == null ? "" : `, ${duration(job.seconds_left)} left`;
  switch (job.stage) {
    case "loading": return `Loading the model ${job.model} …`;
    case "compiling":
      return "Preparing the model for this size, batch and sampler: only the first time …";
    case "decoding": return "Finishing the picture …";
    default: {
      // Several pictures may be drawn at a time.
      const which = job.pictures === 1 ? "Step" : job.pictures_done
        ? `${job.pictures_done} of ${job.pictures} pictures done, step`
        : `${job.pictures} pictures, step`;
      return `${which} ${job.steps_done} of ${job.steps}${left}`;
    }
  }
}

function outcome(job) {
  const drawn = job.files.length;
  if (job.stage === "done") {
    if (drawn || !job.pictures_done) return drawn > 1 ? plural(drawn, "picture") : "";
    return job.saved ? "Deleted" : "Not kept here: only the program that asked for it has it.";
  }
  if (job.stage === "stopped") {
    return drawn ? `Stopped after ${plural(drawn, "picture")}` : "Stopped before the first picture";
  }
  return drawn ? `Ended after ${plural(drawn, "picture")}` : "";
}

export class Stage {
  /** `open` shows a picture of the gallery; `idle` says seed and proportions of the form;
   * `ended` is told of each job that ends while the page is open. */
  constructor({ open, idle, ended }) {
    Object.assign(this, { open, idle, ended });
    this.jobs = [];
    this.stages = new Map();
    this.deleted = new Set(); // files
    this.stopping = null; // the job of which the end was asked for
    this.noise = noiseCanvas();
    this.preview = make("img", { class: "preview", alt: "The picture as it is so far" });
    find("stop").addEventListener("click", () => this.stop());
    find("skip").addEventListener("click", () => this.ask(api.skip));
    this.show();
  }

  get running() {
    return this.jobs.find((job) => job.stage !== "queued" && !job.ended);
  }

  get latest() {
    return this.jobs.findLast((job) => job.ended);
  }

  async ask(what) {
    if (!this.running) return true;
    try {
      await what(this.running.id);
      return true;
    } catch (error) {
      tell(find("stage-error"), error.message);
      return false;
    }
  }

  /** It ends after its present steps: until then it is seen that it will. */
  async stop() {
    this.stopping = this.running?.id ?? null;
    this.show();
    announce("Stopping");
    if (await this.ask(api.stop)) return;
    this.stopping = null;
    this.showStopping(this.running);
  }

  showStopping(job) {
    const on = Boolean(job && (job.stopping || this.stopping === job.id));
    find("stop").disabled = find("skip").disabled = on;
    find("stop").querySelector("span").textContent = on ? "Stopping …" : "Stop";
  }

  update(jobs) {
    // First in, first out: the newest to end is the last.
    this.jobs = [...jobs].sort((a, b) => a.created - b.created);
    for (const job of this.jobs) {
      job.saved = job.files.length > 0;
      job.files = job.files.filter((name) => !this.deleted.has(name));
    }
    for (const job of this.jobs) {
      const before = this.stages.get(job.id);
      this.stages.set(job.id, job.stage);
      if (this.begun && before !== job.stage) this.changed(job);
    }
    this.begun = true;
    this.show();
  }

  /** A grid is finished: it is shown in the place of its last cell. */
  showGrid(name) {
    this.grid = { name, job: (this.running ?? this.latest)?.id };
    this.show();
  }

  /** The form shows what went wrong, beside the field. */
  toldElsewhere(job) {
    this.elsewhere = job.id;
    this.show();
  }

  changed(job) {
    if (["loading", "compiling"].includes(job.stage)) announce(doing(job));
    if (!job.ended) return;
    if (job.stage === "done") announce(`Done: ${subject(job)}`);
    if (job.stage === "stopped") announce(outcome(job));
    this.ended(job);
  }

  show() {
    const { running } = this;
    const waiting = this.jobs.filter((job) => job.stage === "queued");
    if (running) this.showRunning(running);
    else this.showIdle();
    find("stage-notes").replaceChildren(
      ...((running ?? this.latest)?.notes ?? []).map((note) => make("li", {}, sentence(note))));
    this.showStopping(running);
    find("stage-actions").hidden = !running;
    find("bar").hidden = !running;
    find("skip").hidden = !(running?.pictures > 1 || waiting.length);
    this.showQueue(waiting);
  }

  showRunning(job) {
    find("stage-title").textContent = subject(job);
    find("stage-note").textContent = doing(job);
    // What it says of this drawing, such as that it could not be stopped, stays.
    if (this.told !== job.id) tell(find("stage-error"), null);
    this.told = job.id;
    const bar = find("bar");
    if (job.steps && job.stage !== "loading" && job.stage !== "compiling") {
      bar.max = job.steps;
      bar.value = job.steps_done;
      document.title = `${Math.floor((100 * job.steps_done) / job.steps)}% · ldm_jax`;
    } else {
      bar.removeAttribute("value");
      document.title = "… · ldm_jax";
    }
    if (job.preview) this.showPreview(job);
    else {
      const { width, height } = job.request;
      paintNoise(this.noise, job.request.seed ?? 0, width / height || this.idle().aspect);
      this.put(this.noise, "noise");
    }
  }

  async showPreview(job) {
    const key = `${job.id}/${job.preview}`;
    if (this.previewed === key || this.fetching) return;
    this.fetching = true;
    const next = new Image();
    next.src = api.previewUrl(job.id, job.preview);
    try {
      await next.decode();
      if (this.running?.id !== job.id) return;
      this.preview.src = next.src;
      this.preview.classList.toggle("tiny", next.naturalWidth < 256);
      this.previewed = key;
      this.put(this.preview, "preview");
    } catch {
      // The job ended in between.
    } finally {
      this.fetching = false;
    }
  }

  showIdle() {
    document.title = "ldm_jax";
    const { latest } = this;
    if (!latest) {
      const { seed, aspect } = this.idle();
      paintNoise(this.noise, seed, aspect);
      this.put(this.noise, "noise");
      find("stage-title").textContent = "";
      find("stage-note").textContent =
        "Every picture begins as noise. Say what to draw, then press Draw.";
      return;
    }
    find("stage-title").textContent = subject(latest);
    find("stage-note").textContent = outcome(latest);
    const elsewhere = this.elsewhere === latest.id;
    if (elsewhere) find("stage-note").textContent = "Not drawn; the form says why.";
    tell(find("stage-error"), latest.error && !elsewhere && sentence(latest.error.message));
    this.showResults(latest);
  }

  showResults(job) {
    const files = this.grid?.job === job.id ? [this.grid.name] : job.files;
    const key = `results ${job.id} ${files.join(" ")}`;
    if (!files.length) {
      paintNoise(this.noise, job.request.seed ?? 0, this.idle().aspect);
      this.put(this.noise, "noise");
    } else if (this.shown !== key) {
      const results = make("div", { class: "results" }, ...files.slice(0, SHOWN).map((name, i) => {
        const image = make("img", { src: api.pictureUrl(name), alt: "", onload: () =>
          image.classList.toggle("tiny", image.naturalWidth < 256) });
        return make("button", { type: "button", class: "result", onclick: () => this.open(name),
          "aria-label": `Picture ${i + 1} of ${subject(job)}: show it large` }, image);
      }));
      this.put(results, key);
      this.arrange(results, job);
    }
  }

  /** As many columns as make the pictures largest. */
  arrange(results, { request }) {
    const { clientWidth: wide, clientHeight: high } = find("stage-frame");
    const aspect = request.width / request.height || this.idle().aspect;
    const count = results.children.length;
    const sizes = Array.from({ length: count }, (_, i) =>
      Math.min(wide / (i + 1), (high / Math.ceil(count / (i + 1))) * aspect));
    const columns = sizes.indexOf(Math.max(...sizes)) + 1;
    results.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  }

  put(element, key) {
    if (this.shown === key) return;
    this.shown = key;
    find("stage-frame").replaceChildren(element);
  }

  /** A picture is gone. */
  forget(name) {
    this.deleted.add(name);
    for (const job of this.jobs) job.files = job.files.filter((file) => file !== name);
    if (this.grid?.name === name) this.grid = null;
    this.show();
  }

  showQueue(waiting) {
    find("queue").hidden = !waiting.length;
    const waitsFor = waiting[0]?.waits_for;
    find("queue-heading").textContent = waitsFor ? `Waiting for ${waitsFor}` : "Waiting";
    const key = waiting.map((job) => job.id).join();
    if (key === this.queued) return;
    this.queued = key;
    // The cells of a grid go by one line.
    const lines = new Map();
    for (const job of waiting) {
      const line = job.group ?? job.id;
      lines.set(line, [...(lines.get(line) ?? []), job]);
    }
    find("queue-list").replaceChildren(...[...lines.values()].map((jobs) => this.line(jobs)));
  }

  line(jobs) {
    const name = subject(jobs[0]);
    const count = jobs.reduce((sum, job) => sum + job.pictures, 0);
    const note = jobs[0].group ? `${plural(count, "picture")} of a grid`
      : count > 1 ? plural(count, "picture") : "";
    const remove = () => Promise.all(jobs.map((job) => api.stop(job.id)))
      .catch((error) => tell(find("stage-error"), error.message));
    return make("li", {}, make("span", { class: "subject" }, name),
      make("span", { class: "note" }, note),
      iconButton("close", `Take “${name}” off the queue`, remove));
  }
}
