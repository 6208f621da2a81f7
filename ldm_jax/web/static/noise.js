// The noise that a seed stands for, as a small picture: where a picture will be, before it is. It
// is only an image of the idea; the model's own noise is another.

export function noiseCanvas(side = 24) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  canvas.className = "noise";
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}

/** Mulberry32: another sequence in [0, 1) for each seed. */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function paintNoise(canvas, seed, aspect = 1) {
  const long = 24;
  canvas.width = aspect >= 1 ? long : Math.max(4, Math.round(long * aspect));
  canvas.height = aspect >= 1 ? Math.max(4, Math.round(long / aspect)) : long;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const random = randomNumbers(seed);
  for (let i = 0; i < image.data.length; i += 4) {
    const grey = 128 + 60 * (random() + random() + random() - 1.5);
    for (let c = 0; c < 3; c++) image.data[i + c] = grey + 70 * (random() - 0.5);
    image.data[i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}
