// What the prompt can name: a button for each puts its tag, or its word, at the prompt's end.

import { make } from "./dom.js";

function buttons(heading, names, written, goal) {
  if (!names.length) return [];
  const all = names.map((name) => {
    const button = make("button", { type: "button", class: "adapter" }, name);
    button.addEventListener("click", () => {
      const input = goal();
      input.value = `${input.value.trimEnd()} ${written(name)}`.trimStart();
      input.dispatchEvent(new Event("input", { bubbles: true }));
      input.focus();
    });
    return button;
  });
  return [make("div", { class: "adapters" }, make("p", { class: "note" }, heading), ...all)];
}

/** For adapters, hypernetworks and embeddings; a word goes to the prompt that was typed in last. */
export function promptButtons({ adapters, hypernetworks, words }, fields) {
  const prompt = fields.prompt.input;
  let last = prompt;
  for (const field of [fields.prompt, fields.negative_prompt].filter(Boolean)) {
    field.input.addEventListener("focus", () => { last = field.input; });
  }
  return [
    ...buttons("Adapters; the number in the prompt is their strength:", adapters,
      (name) => `<lora:${name}:1>`, () => prompt),
    ...buttons("Hypernetworks; the number is their strength, too:", hypernetworks,
      (name) => `<hypernet:${name}:1>`, () => prompt),
    ...buttons("Words of embeddings, for either prompt:", words, (name) => name, () => last),
  ];
}
