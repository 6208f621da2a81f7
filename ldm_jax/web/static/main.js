// Puts the page together.

import * as api from "./api.js";
import { Control } from "./control.js";
import { announce, either, find, make, sentence, tell, toast, words } from "./dom.js";
import { Drop } from "./drop.js";
import { Files } from "./files.js";
import { Form } from "./form.js";
import { Gallery, isGrid } from "./gallery.js";
import { Grid } from "./grid.js";
import { dataUrl, Picture } from "./picture.js";
import { Stage } from "./stage.js";
import { remember, remembered } from "./store.js";
import { asked, Viewer } from "./viewer.js";

const PATIENCE = 700; // milliseconds between questions whether a model is loaded

const select = find("model");
let models = [];
let shown = null; // the model whose form is shown
let choice = 0; // counts choices of a model: only the last is followed
const mine = new Set(); // jobs of this page

const isLoaded = () => models.find((model) => model.name === shown)?.loaded ?? false;

const picture = new Picture(() => form.pictureChanged());
const files = new Files(() => form.pictureChanged());
const control = new Control();
const form = new Form(picture, files, () => changed(), isLoaded);
const grid = new Grid(() => changed());
const gallery = new Gallery((name) => viewer.open(name));
const stage = new Stage({
  open: (name) => viewer.open(name),
  idle: () => ({
    seed: Number(form.fields.seed?.input.value) || 0,
    aspect: form.size?.aspect(picture.given ? picture.now : null) ?? 1,
  }),
  ended: (job) => ended(job),
});
const viewer = new Viewer(gallery, {
  draw: (jobs) => queue(jobs),
  drawGrid: (job, axes) => sendGrid(job, axes),
  restore: (found) => restore(found),
  use: { picture: (blob) => use(blob), data: dataUrl },
  isUsual: (name, value) => form.isUsual(name, value),
});
new Drop({
  restore: (found) => restore(found),
  use: (file, exactly) => use(file, exactly),
  place: (element) => files.at(element),
});

// ------------------------------------------------------------------------------------- models

async function readModels() {
  models = await api.models();
  const wanted = select.value || remembered().model;
  select.replaceChildren(...models.map(({ name }) => make("option", { value: name }, name)));
  if (models.some(({ name }) => name === wanted)) select.value = wanted;
  noteModel();
}

function noteModel() {
  const model = models.find(({ name }) => name === select.value);
  const unloaded = shown === select.value && !model?.loaded;
  find("model-note").textContent = unloaded ? "Loaded when it is first used." : "";
}

async function chooseModel(again = false) {
  const name = select.value;
  if (!name) {
    tell(find("model-error"), "There is no model in the folders that the server was started with.");
    return;
  }
  const turn = ++choice;
  remember({ model: name });
  tell(find("model-error"), null);
  tell(find("form-error"), null);
  // Until its form is there, what is shown is of another model.
  if (name !== shown) find("draw").disabled = true;
  try {
    let description;
    while ((description = await api.form(name, again)).loading) {
      again = false;
      const before = description.waits_for;
      find("model-note").textContent = !before || before === `the model ${name}`
        ? "Loading the model …" : `Waits for ${before}; then the model is loaded …`;
      await new Promise((resolve) => setTimeout(resolve, PATIENCE));
      if (turn !== choice) return;
    }
    if (turn !== choice) return;
    shown = name;
    models = await api.models();
    form.show(description);
    control.show(description.controls);
    grid.show(description.settings);
    find("form").dataset.model = name;
    find("draw").disabled = false;
    noteModel();
  } catch (error) {
    if (turn !== choice) return;
    find("model-note").textContent = "";
    tell(find("model-error"), error.message);
  }
}

/** After a model was loaded or dropped: what the page says of it, and who can count tokens. */
async function modelsMoved() {
  models = await api.models().catch(() => models);
  noteModel();
  form.counts?.forEach((count) => count.count());
}

// ------------------------------------------------------------------------------------ drawing

function changed() {
  const { x, y } = grid.size();
  find("draw").textContent = grid.wanted ? `Draw a grid of ${x * y}` : form.pictures();
  if (!stage.running && !stage.latest) stage.show();
}

async function draw(event) {
  event.preventDefault();
  const button = find("draw");
  if (button.disabled) return;
  form.forgive();
  tell(find("control-error"), null);
  tell(find("form-error"), null);
  form.seed?.next();
  const { request, errors } = form.request();
  const axes = grid.wanted ? grid.read() : {};
  errors.push(...picture.missing(), ...files.missing());
  if (errors.length) complain(errors);
  if (errors.length || !axes) return;
  button.disabled = true;
  try {
    const job = { model: shown, request, ...(await picture.data()), ...(await files.data()),
      ...(await control.data(dataUrl)) };
    if (grid.wanted) await sendGrid(job, axes);
    else await queue([job]);
  } catch (error) {
    complain(error.errors ?? [{ field: null, message: error.message }]);
  } finally {
    button.disabled = false;
  }
}

async function sendGrid(job, { x, y }) {
  const request = { ...job.request };
  for (const name of ["num", x.name, y?.name]) delete request[name];
  await api.drawGrid({ ...job, request, x, y });
  announce("The grid is in the queue");
  showStage();
}

async function queue(jobs) {
  for (const job of jobs) {
    const { id } = await api.draw(job);
    mine.add(id);
    // It may have failed before the answer came.
    stage.jobs.filter((one) => one.id === id && one.stage === "failed").forEach(ended);
  }
  announce(stage.running ? "In the queue" : "Drawing");
  showStage();
}

/** On a narrow screen the picture is below the form. */
function showStage() {
  const box = find("stage").getBoundingClientRect();
  if (box.top > window.innerHeight * 0.7 || box.bottom < 0) {
    find("stage").scrollIntoView({ behavior: "smooth", block: "start" });
  }
}

function complain(errors) {
  let left = grid.wanted ? grid.complain(errors) : errors;
  left = form.complain(left);
  left = left.filter(({ field, message }) => {
    const place = field?.replace(/^control\[.*/, "control");
    const line = place && document.querySelector(`[data-field="${CSS.escape(place)}"] > .error`);
    if (!line || line.closest("[hidden]:not(.error)")) return true;
    tell(line, message);
    line.scrollIntoView({ block: "nearest" });
    return false;
  });
  tell(find("form-error"), left.map(({ message }) => message).join(" ") || null);
}

function ended(job) {
  if (job.stage === "failed" && mine.has(job.id) && job.error?.field) {
    complain([{ ...job.error, message: sentence(job.error.message) }]);
    stage.toldElsewhere(job);
  }
  mine.delete(job.id);
}

// -------------------------------------------------------------------------- settings and input

/** Fills the form with what a picture says of how it was drawn. */
async function restore(found) {
  const { model, model_said: said, init_image: input, mask } = found;
  const notes = found.problems.map(sentence);
  if (model && model !== shown) {
    select.value = model;
    await chooseModel();
  } else if (!model && said) notes.push(`Its model, ${said}, is not here.`);
  if (!form.description) return;
  const settings = asked(found);
  const unused = form.fill(settings).filter((name) => !form.isUsual(name, settings[name]));
  form.seed?.keep(true);
  const left = found.grid ? grid.fill(found.grid) : [];
  if (left.length) notes.push(`A grid over ${either(left.map(words))} cannot be typed here.`);
  if (input) await picture.set(await api.blob(input), mask);
  else if (picture.now) picture.clear();
  const blobs = {};
  for (const [name, url] of Object.entries(found.files)) blobs[name] = url && await api.blob(url);
  await files.restore(blobs);
  await control.restore(found.control, api.blob);
  if (found.control.length > 1) notes.push("Of its ControlNets the first is in the form.");
  if (unused.length) notes.push(`This model has no ${unused.map(words).join(", ").toLowerCase()}.`);
  toast(["The settings are in the form.", ...notes].join(" "));
  (form.fields.prompt ?? form.fields.classes)?.input.focus();
}

/** Takes a picture as input: of a model that is conditioned on one, as that, unless it was laid
 * `exactly` on the place of the picture to start from. */
async function use(file, exactly = false) {
  const input = exactly ? null : files.forPictures;
  if (input) {
    await input.set(file);
    input.element.scrollIntoView({ block: "nearest" });
    return;
  }
  if (!picture.allowed.picture) {
    toast("This model does not start from pictures.");
    return;
  }
  await picture.set(file);
  find("picture-in").scrollIntoView({ block: "nearest" });
}

// ---------------------------------------------------------------------------------- beginning

select.addEventListener("change", () => chooseModel(true));
find("form").addEventListener("submit", draw);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || find("viewer").open) return;
  find("form").requestSubmit();
});

let connected = document.hidden ? false : null;
let stagesSeen = "";

api.watch({
  jobs(jobs) {
    stage.update(jobs);
    const seen = jobs.map((job) => `${job.id}${job.stage}`).join();
    const used = jobs.find((job) => job.stage === "compiling" || job.stage === "drawing")?.model;
    const known = models.find((model) => model.loaded)?.name;
    if (seen !== stagesSeen && used && used !== known) modelsMoved();
    stagesSeen = seen;
  },
  gallery(change) {
    gallery.changed(change);
    if (isGrid(change.added)) stage.showGrid(change.added);
    if (change.deleted) stage.forget(change.deleted);
  },
  async connection(on) {
    if (!on) {
      tell(find("offline"), "The server does not answer. What you typed is kept; the page goes on "
        + "when the server is back.");
      connected = false;
      return;
    }
    tell(find("offline"), null);
    const back = connected === false;
    connected = true;
    if (!back) return;
    for (const line of document.querySelectorAll(".error")) {
      if (line.textContent === api.UNREACHABLE) tell(line, null);
    }
    await begin();
  },
});

// What came while nobody saw the page is asked for once it is seen again.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) connected = false;
});

async function begin() {
  gallery.refresh();
  try {
    await readModels();
  } catch (error) {
    tell(find("model-error"), error.message);
    return;
  }
  if (form.description && shown === select.value) await modelsMoved();
  else await chooseModel();
}

await begin();
await picture.restore();
