// The pictures of the output folder, newest first.

import * as api from "./api.js";
import { find, make } from "./dom.js";

const PAGE = 48;
const MOST = 200; // that the server tells at once

/** Whether a file shows the pictures of a grid side by side. */
export const isGrid = (name) => name?.endsWith("_grid.png") ?? false;

export class Gallery {
  /** `open` shows one large. */
  constructor(open) {
    this.open = open;
    this.items = [];
    this.tiles = new Map();
    this.complete = false;
    find("gallery-more").addEventListener("click", () => this.older());
  }

  /** After a picture came or went. */
  async changed({ deleted }) {
    if (deleted) this.show(this.items.filter((item) => item.name !== deleted));
    else await this.refresh();
  }

  /** The newest again from the server; older ones that are shown stay. */
  async refresh() {
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    try {
      const count = Math.min(MOST, Math.max(PAGE, this.items.length));
      const found = await api.gallery(null, count);
      const last = found.at(-1)?.name;
      const at = this.items.findIndex((item) => item.name === last);
      const all = found.length < count;
      const rest = at < 0 || all ? [] : this.items.slice(at + 1);
      this.complete = all || (this.complete && rest.length > 0);
      this.show([...found, ...rest]);
    } catch {
      // The banner says that the server does not answer.
    } finally {
      this.busy = false;
      if (this.again) {
        this.again = false;
        this.refresh();
      }
    }
  }

  async older() {
    if (this.complete || !this.items.length) return;
    const found = await api.gallery(this.items.at(-1).name, PAGE).catch(() => []);
    this.complete = found.length < PAGE;
    this.show([...this.items, ...found]);
  }

  show(items) {
    this.items = items;
    const tiles = items.map((item) => this.tile(item));
    this.tiles = new Map(items.map((item, i) => [item.name, tiles[i]]));
    find("gallery").replaceChildren(...tiles);
    find("gallery-more").hidden = this.complete;
    find("gallery-empty").hidden = items.length > 0;
  }

  tile(item) {
    const known = this.tiles.get(item.name);
    if (known) return known;
    const label = item.prompt || item.name;
    const tiny = Math.max(item.width, item.height) < 256;
    return make("li", {}, make("button", { type: "button", title: label, "data-name": item.name,
      onclick: () => this.open(item.name) },
    make("img", { src: api.pictureUrl(item.name), alt: label, loading: "lazy",
      width: item.width, height: item.height, class: tiny ? "tiny" : "" })));
  }

  focus(name) {
    this.tiles.get(name)?.querySelector("button").focus();
  }

  /** The picture's neighbour: -1 newer, 1 older; null at the ends. */
  async beside(name, step) {
    const at = this.items.findIndex((item) => item.name === name) + step;
    if (at >= this.items.length) await this.older();
    return this.items[at]?.name ?? null;
  }

  async remove(name) {
    await api.remove(name);
    this.show(this.items.filter((item) => item.name !== name));
  }
}
