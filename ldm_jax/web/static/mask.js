// Paints a mask over a picture: what is painted will be drawn anew. Everything that was done is kept
// as a list of strokes and other acts, so that each can be undone.

import { announce, iconButton, make } from "./dom.js";

const INK = "#e5357f";

export class MaskPainter {
  /** `changed` is called after each stroke, and whenever else the mask is another. */
  constructor(changed) {
    this.changed = changed;
    this.acts = [];
    this.erasing = false;
    this.cursor = null;
    this.canvas = make("canvas", { class: "mask", tabindex: 0, role: "img", "aria-label":
      "Mask. Arrow keys move the brush, space paints, E erases, Ctrl+Z undoes." });
    this.ring = make("div", { class: "brush-ring", hidden: true, "aria-hidden": "true" });
    this.tools = this.makeTools();
    this.listen();
  }

  makeTools() {
    this.brush = iconButton("brush", "Brush", () => this.erase(false));
    this.eraser = iconButton("eraser", "Eraser", () => this.erase(true));
    this.size = make("input", { type: "range", min: 2, max: 60, value: 16, "aria-label":
      "Size of the brush", oninput: () => this.drawRing() });
    this.undoButton = iconButton("undo", "Undo", () => this.undo());
    this.erase(false);
    return make("div", { class: "mask-tools", role: "toolbar", "aria-label": "Mask" },
      this.brush, this.eraser, this.size, this.undoButton,
      iconButton("invert", "Invert the mask", () => this.act({ kind: "invert" })),
      iconButton("trash", "Clear the mask", () => this.act({ kind: "clear" })));
  }

  erase(on) {
    this.erasing = on;
    this.brush.setAttribute("aria-pressed", String(!on));
    this.eraser.setAttribute("aria-pressed", String(on));
  }

  /** For a picture of this size, with a mask painted earlier or none. */
  start(width, height, earlier = null) {
    this.canvas.width = width;
    this.canvas.height = height;
    this.acts = earlier ? [{ kind: "image", image: earlier }] : [];
    this.cursor = null;
    this.repaint();
  }

  // ---------------------------------------------------------------------------- what is painted

  act(act) {
    this.acts.push(act);
    this.apply(act);
    this.undoButton.disabled = false;
    this.changed();
  }

  undo() {
    if (!this.acts.length) return;
    this.acts.pop();
    this.repaint();
    announce("Undone");
    this.changed();
  }

  repaint() {
    this.clear();
    for (const act of this.acts) this.apply(act);
    this.undoButton.disabled = !this.acts.length;
  }

  get context() {
    return this.canvas.getContext("2d", { willReadFrequently: true });
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  apply(act) {
    if (act.kind === "clear") this.clear();
    else if (act.kind === "invert") this.eachPixel((alpha) => 255 - alpha);
    else if (act.kind === "image") {
      this.context.drawImage(act.image, 0, 0, this.canvas.width, this.canvas.height);
      // The white of a mask in black and white.
      this.eachPixel((alpha, brightness) => (brightness >= 128 ? 255 : 0));
    } else act.points.forEach((_, i) => this.line(act, Math.max(0, i - 1), i));
  }

  /** Sets the opacity of each pixel from its opacity and brightness. */
  eachPixel(change) {
    const { width, height } = this.canvas;
    const image = this.context.getImageData(0, 0, width, height);
    const pixels = image.data;
    const [red, green, blue] = [1, 3, 5].map((i) => parseInt(INK.slice(i, i + 2), 16));
    for (let i = 0; i < pixels.length; i += 4) {
      pixels[i + 3] = change(pixels[i + 3], pixels[i]);
      pixels[i] = red;
      pixels[i + 1] = green;
      pixels[i + 2] = blue;
    }
    this.context.putImageData(image, 0, 0);
  }

  line(stroke, from, to) {
    const { context } = this;
    context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
    context.strokeStyle = INK;
    context.lineWidth = stroke.size;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...stroke.points[from]);
    // A line of no length is a dot only if it goes somewhere.
    const [x, y] = stroke.points[to];
    context.lineTo(x + (from === to ? 0.01 : 0), y);
    context.stroke();
    context.globalCompositeOperation = "source-over";
  }

  // -------------------------------------------------------------------------------- by pointer

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => this.end());
    canvas.addEventListener("pointercancel", () => this.end());
    canvas.addEventListener("pointerleave", () => { this.ring.hidden = true; });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.ring.hidden = true; });
  }

  /** Diameter of the brush in the picture's pixels: a share of the longer side. */
  get diameter() {
    const long = Math.max(this.canvas.width, this.canvas.height);
    return Math.max(1, (Number(this.size.value) / 100) * long);
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.canvas.width,
      ((event.clientY - box.top) / box.height) * this.canvas.height];
  }

  begin(event) {
    if (this.stroke || event.button > 0) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    const erase = this.erasing || event.buttons === 32; // the other end of a pen
    this.stroke = { kind: "stroke", erase, size: this.diameter, points: [this.point(event)] };
    this.line(this.stroke, 0, 0);
  }

  move(event) {
    this.cursor = this.point(event);
    this.drawRing();
    if (!this.stroke || event.pointerId !== this.pointer) return;
    const steps = event.getCoalescedEvents?.() ?? [];
    for (const step of steps.length ? steps : [event]) {
      this.stroke.points.push(this.point(step));
      const last = this.stroke.points.length - 1;
      this.line(this.stroke, last - 1, last);
    }
  }

  end() {
    if (!this.stroke) return;
    this.acts.push(this.stroke);
    this.stroke = null;
    this.undoButton.disabled = false;
    this.changed();
  }

  drawRing() {
    if (!this.cursor) return;
    const scale = this.canvas.clientWidth / this.canvas.width;
    const { style } = this.ring;
    this.ring.hidden = false;
    style.width = style.height = `${this.diameter * scale}px`;
    style.left = `${this.canvas.offsetLeft + this.cursor[0] * scale}px`;
    style.top = `${this.canvas.offsetTop + this.cursor[1] * scale}px`;
  }

  // ------------------------------------------------------------------------------- by keyboard

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    const { width, height } = this.canvas;
    this.cursor ??= [width / 2, height / 2];
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (move) {
      const far = Math.max(1, this.diameter / 2);
      this.cursor = [Math.min(width, Math.max(0, this.cursor[0] + far * move[0])),
        Math.min(height, Math.max(0, this.cursor[1] + far * move[1]))];
    } else if (event.key === " ") {
      const points = [[...this.cursor]];
      this.act({ kind: "stroke", erase: this.erasing, size: this.diameter, points });
    } else if (event.key.toLowerCase() === "e") this.erase(!this.erasing);
    else return;
    event.preventDefault();
    this.drawRing();
  }

  // ------------------------------------------------------------------------------- the result

  /** The mask as a PNG's data URL, white where it is painted, or null where nothing is. */
  data() {
    const { width, height } = this.canvas;
    if (!this.acts.length || !width) return null;
    const image = this.context.getImageData(0, 0, width, height);
    let painted = false;
    for (let i = 0; i < image.data.length; i += 4) {
      const white = image.data[i + 3] >= 128;
      painted ||= white;
      image.data.fill(white ? 255 : 0, i, i + 3);
      image.data[i + 3] = 255;
    }
    if (!painted) return null;
    const copy = make("canvas", { width, height });
    copy.getContext("2d").putImageData(image, 0, 0);
    return copy.toDataURL("image/png");
  }
}
