// Making and finding elements, and telling people what happened.

export const find = (id) => document.getElementById(id);

/** An element with attributes, listeners (`onclick: f`) and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `icons.svg#${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows only an icon. */
export const iconButton = (name, label, onclick) =>
  make("button", { type: "button", class: "tool", title: label, "aria-label": label, onclick },
    icon(name));

/** Shows a sentence in an element, or hides it. */
export function tell(element, text) {
  element.textContent = text ?? "";
  element.hidden = !text;
}

/** Read out by screen readers. */
export function announce(text) {
  find("announcer").textContent = text;
}

/** Messages that are shown at a time. */
const TOASTS = 2;

/** A message that goes by itself, with an action for those who want it. It takes the place of one
 * that says the same, and of the oldest where there are many. */
export function toast(text, action = null, run = null) {
  const close = () => box.remove();
  const box = make("div", { class: "toast" }, make("p", {}, text));
  if (action) {
    box.append(make("button", { type: "button", class: "link", onclick: () => { close(); run(); } },
      action));
  }
  box.append(iconButton("close", "Close this message", close));
  const others = [...find("toasts").children];
  const same = others.filter((one) => one.firstChild.textContent === text);
  const left = others.filter((one) => !same.includes(one));
  for (const one of [...same, ...left.slice(0, Math.max(0, left.length + 1 - TOASTS))]) one.remove();
  find("toasts").append(box);
  setTimeout(close, action ? 20000 : 9000);
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** Names of which one is meant. */
export const either = (names) => names.join(", ").replace(/, ([^,]*)$/, " or $1");

/** A name of the settings as people read it. */
export function words(name) {
  const text = name.replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}

/** What the server says of settings, as a sentence. */
export function sentence(message) {
  // Names such as guidance_scale stay as they are.
  const text = /^[a-z]+[ :]/.test(message) ? message[0].toUpperCase() + message.slice(1)
    : message;
  // A setting with its value, as the command line has it, in the words of the form.
  const plain = text.replace(/(?:--)?\b([a-z]+_[a-z_]+)=(\w+)/g,
    (_, name, value) => `“${words(name)}: ${value}”`);
  return /[.!?…]$/.test(plain) ? plain : `${plain}.`;
}
