// The ways by which a picture comes in: a file, a drop, a paste, an example.

import * as api from "./api.js";

const input = document.getElementById("file");
const veil = document.getElementById("veil");

/** Tells `onPicture(blob, name)` of each picture, and `onTrouble(title, cure)` of what is none. */
export function listen({ onPicture, onTrouble }) {
  for (const button of document.querySelectorAll("[data-open]")) button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files.length) onPicture(input.files[0], input.files[0].name);
    input.value = ""; // the same file may be chosen again
  });

  let depth = 0; // dragenter and dragleave come for every element on the way
  const lift = (deeper) => {
    depth = deeper;
    veil.classList.toggle("on", depth > 0);
  };
  addEventListener("dragenter", (event) => { event.preventDefault(); lift(depth + 1); });
  addEventListener("dragleave", () => lift(Math.max(0, depth - 1)));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    lift(0);
    const [file] = event.dataTransfer.files;
    if (file) onPicture(file, file.name);
    else onTrouble("That brought no file", "From another web page, copy the picture and paste it here instead.");
  });
  addEventListener("paste", (event) => {
    if (document.querySelector("dialog[open]")) return;
    const [file] = event.clipboardData.files;
    if (file) onPicture(file, "pasted picture");
    else onTrouble("There is no picture on the clipboard", "Copy a picture or a screenshot, then paste again.");
  });
}

const MOST = 12;

/** Fills the lists of examples, from all over a long one; those that do not come are left out. */
export async function showExamples(onPicture) {
  let given = [];
  try { given = await api.examples(); } catch { return; } // a page without examples is still whole
  const pictures = await Promise.allSettled(some(given).map(async ({ name, url }) => ({ name, blob: await api.file(new URL(url, document.baseURI)) })));
  const there = pictures.filter(({ status }) => status === "fulfilled").map(({ value }) => value);
  for (const list of document.querySelectorAll(".thumbs")) {
    list.replaceChildren(...there.map(({ name, blob }) => thumb(name, blob, onPicture)));
    list.parentElement.hidden = there.length === 0;
  }
}

function some(given) {
  return given.length <= MOST ? given : Array.from({ length: MOST }, (_, place) => given[Math.floor((place * given.length) / MOST)]);
}

function thumb(name, blob, onPicture) {
  const item = document.createElement("li");
  const button = Object.assign(document.createElement("button"), { type: "button", title: name });
  // Fetched and not linked: where the server wants a key, an <img> has none to give.
  const image = Object.assign(new Image(), { src: URL.createObjectURL(blob), alt: `Example ${name}`, draggable: false });
  image.addEventListener("load", () => image.classList.toggle("coarse", image.naturalWidth < 400));
  button.addEventListener("click", () => onPicture(blob, name));
  button.append(image);
  item.append(button);
  return item;
}
