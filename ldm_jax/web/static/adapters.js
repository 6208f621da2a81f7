// Adapters that the prompt can name: a button for each puts its tag at the prompt's end.

import { make } from "./dom.js";

export function adapterButtons(names, prompt) {
  const buttons = names.map((name) => {
    const button = make("button", { type: "button", class: "adapter" }, name);
    button.addEventListener("click", () => {
      prompt.value = `${prompt.value.trimEnd()} <lora:${name}:1>`.trimStart();
      prompt.dispatchEvent(new Event("input", { bubbles: true }));
      prompt.focus();
    });
    return button;
  });
  return make("div", { class: "adapters" },
    make("p", { class: "note" }, "Adapters; the number in the prompt is their strength:"), ...buttons);
}
