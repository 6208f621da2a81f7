// The server's JSON API. Every failure becomes a Refusal: sentences, each with the setting it is
// about, or null.

import { sentence } from "./dom.js";

export class Refusal extends Error {
  constructor(errors, status) {
    super(errors.map((error) => error.message).join(" "));
    this.errors = errors;
    this.status = status;
  }
}

export const UNREACHABLE = "The server does not answer. Is it still running?";

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal([{ field: null, message: UNREACHABLE }], 0);
  }
  if (response.ok) return response;
  let errors = [{ field: null, message: `The server answered ${response.status}.` }];
  try {
    const told = await response.json();
    if (Array.isArray(told.errors) && told.errors.length) {
      errors = told.errors.map(({ field, message }) => ({ field, message: sentence(message) }));
    }
  } catch {
    // Not JSON: the status is all that is known.
  }
  throw new Refusal(errors, response.status);
}

const read = async (path) => (await call(path)).json();

function post(path, value) {
  const headers = { "Content-Type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(value) })
    .then((response) => response.json());
}

const part = encodeURIComponent;

export const models = () => read("api/models");

/** The form of a model; while the server loads it, `{ loading, waits_for }`. With `again` it tries once more to load
 * a model that it could not load. */
export async function form(model, again = false) {
  return read(`api/form?model=${part(model)}${again ? "&again=1" : ""}`);
}

export const tokens = (model, text) => post("api/tokens", { model, text });
export const draw = (job) => post("api/jobs", job);
export const drawGrid = (job) => post("api/grid", job);
export const stop = (id) => call(`api/jobs/${part(id)}`, { method: "DELETE" });
export const skip = (id) => call(`api/jobs/${part(id)}/skip`, { method: "POST" });
export const previewUrl = (id, count) => `api/jobs/${part(id)}/preview?n=${count}`;

export function gallery(before, count) {
  const from = before ? `&before=${part(before)}` : "";
  return read(`api/gallery?count=${count}${from}`);
}

export const pictureUrl = (name) => `api/gallery/${part(name)}`;
export const settingsOf = (name) => read(`${pictureUrl(name)}/settings`);
export const remove = (name) => call(pictureUrl(name), { method: "DELETE" });
export const blob = async (url) => (await call(url)).blob();

/** What a PNG file says of how it was drawn. */
export const settingsInFile = (file) =>
  call("api/settings_of", {
    method: "POST", headers: { "Content-Type": "image/png" }, body: file,
  }).then((response) => response.json());

const POLL = 3000; // milliseconds between questions of a page that nobody sees
const RETRY = 2000;

/** Calls back with the jobs whenever they change, when the gallery does, and when the connection
 * comes (true) or goes (false). The browser connects again by itself.
 *
 * Browsers keep few connections to a host. So a page that is not seen gives its own back, and asks
 * for the jobs now and then, for its title; when it is seen again, the connection comes anew. */
export function watch({ jobs, gallery, connection }) {
  let events = null;
  let timer = null;
  let turn = 0; // only the last to begin goes on

  function follow() {
    events = new EventSource("api/events");
    events.addEventListener("jobs", (event) => jobs(JSON.parse(event.data)));
    events.addEventListener("gallery", (event) => gallery(JSON.parse(event.data)));
    events.addEventListener("open", () => connection(true));
    events.addEventListener("error", () => {
      connection(false);
      if (events?.readyState === EventSource.CLOSED) timer = setTimeout(begin, RETRY);
    });
  }

  async function ask(mine) {
    const found = await read("api/jobs").catch(() => null);
    if (mine !== turn) return;
    if (found) jobs(found);
    timer = setTimeout(ask, POLL, mine);
  }

  function begin() {
    turn += 1;
    clearTimeout(timer);
    events?.close();
    events = null;
    if (document.hidden) ask(turn);
    else follow();
  }

  document.addEventListener("visibilitychange", begin);
  begin();
}
