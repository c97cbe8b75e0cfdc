// The picture and what lies over it: layers, pointer, cursor, ring.

import { blockName, drawHeat, heatOf, strongest } from "./attention.js";

const find = (id) => document.getElementById(id);
const [frame, picture, classes, regions] = ["frame", "picture", "classes", "regions"].map(find);
const [strong, looking, ring, cursor, tip] = ["strong", "looking", "ring", "cursor", "tip"].map(find);
const percent = (share) => `${100 * share}%`;

let size = { width: 1, height: 1 };
let shown = null;
let at = null;

const CELLS = 8; // the finest of the paper's grids
for (let number = 0; number < CELLS * CELLS; number += 1) looking.append(document.createElement("i"));

/**
 * Lets the cells of the grid glimmer until the returned function is called. Four times a second and no smoother: where
 * the browser draws without a graphics card it shares the processor with the network that we wait for.
 */
export function glimmer() {
  const step = () => {
    for (const cell of looking.children) cell.className = cell.className === "lit" ? "dim" : Math.random() < 0.09 ? "lit" : "";
  };
  step();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const timer = still ? null : setInterval(step, 250);
  return () => clearInterval(timer);
}

/** Shows a picture alone, all layers cleared. Without a bitmap an empty sheet of that size. */
export function showPicture(bitmap, width, height) {
  size = { width, height };
  shown = null;
  at = null;
  frame.style.setProperty("--ratio", width / height);
  frame.style.setProperty("--most", `${16 * width}px`);
  for (const canvas of [picture, classes, regions]) {
    canvas.width = bitmap?.width ?? 4;
    canvas.height = bitmap?.height ?? 3;
  }
  if (bitmap) picture.getContext("2d").drawImage(bitmap, 0, 0);
  frame.classList.toggle("coarse", width < 400);
  for (const layer of [ring, cursor, tip]) layer.hidden = true;
  strong.replaceChildren();
}

/** Takes the class ids to be painted, as many as the screen can use. */
export function showClasses(map) {
  shown = map;
  classes.width = map.width;
  classes.height = map.height;
  classes.classList.remove("reveal");
  void classes.offsetWidth; // or the animation would not start anew
  classes.classList.add("reveal");
}

/** Paints the classes; `colours` is one RGBA word per id. */
export function paint(colours) {
  const pixels = new ImageData(shown.width, shown.height);
  const words = new Uint32Array(pixels.data.buffer);
  const { ids } = shown;
  for (let place = 0; place < ids.length; place += 1) words[place] = colours[ids[place]];
  classes.getContext("2d").putImageData(pixels, 0, 0);
}

/** Draws where a pixel looked, and frames each block's strongest region where that has twice its even share at least. */
export function showRegions(blocks) {
  regions.width = picture.width;
  regions.height = picture.height;
  // Small pictures get a canvas fine enough for their regions' borders.
  const scale = Math.max(1, Math.ceil(800 / Math.max(regions.width, regions.height)));
  regions.width *= scale;
  regions.height *= scale;
  drawHeat(regions, heatOf(blocks), size.height, size.width);
  strong.replaceChildren(...blocks.flatMap((block) => {
    const region = strongest(block, size.height, size.width);
    if (!region || region.weight * block.regions.length < 2) return [];
    const box = document.createElement("b");
    box.style.left = percent(region.left / size.width);
    box.style.top = percent(region.top / size.height);
    box.style.width = percent((region.right - region.left) / size.width);
    box.style.height = percent((region.bottom - region.top) / size.height);
    const share = `${(100 * region.weight).toFixed(0)} %`;
    box.dataset.share = blocks.length > 1 ? `${blockName(block)} ${share}` : share;
    box.classList.toggle("top", region.top === 0);
    box.classList.toggle("right", region.left > 0.7 * size.width);
    return [box];
  }));
}

function place(layer, row, column) {
  layer.hidden = false;
  layer.style.left = percent((column + 0.5) / size.width);
  layer.style.top = percent((row + 0.5) / size.height);
}

export function mark(row, column) {
  place(ring, row, column);
  at = { row, column };
}

export function unmark() {
  ring.hidden = true;
}

/** Shows what lies at a place beside it, or nothing. */
export function showTip(said, row, column) {
  tip.hidden = !said;
  if (!said) return;
  place(tip, row, column);
  tip.querySelector("span").textContent = said.name;
  tip.querySelector("i").style.background = said.colour;
  tip.classList.toggle("left", column > 0.7 * size.width);
  tip.classList.toggle("below", row < 0.15 * size.height);
}

function pixelUnder(event) {
  const box = frame.getBoundingClientRect();
  const row = Math.floor(((event.clientY - box.top) / box.height) * size.height);
  const column = Math.floor(((event.clientX - box.left) / box.width) * size.width);
  return { row: Math.min(Math.max(row, 0), size.height - 1), column: Math.min(Math.max(column, 0), size.width - 1) };
}

/** Tells of pointer and keys: `onPoint(row, column)`, `onLeave()`, `onChoose(row, column)`, `onBack()`. */
export function listen({ onPoint, onLeave, onChoose, onBack }) {
  frame.addEventListener("pointermove", (event) => {
    if (!shown || event.pointerType === "touch") return;
    cursor.hidden = true;
    const { row, column } = pixelUnder(event);
    onPoint(row, column, false);
  });
  frame.addEventListener("pointerleave", onLeave);
  frame.addEventListener("click", (event) => {
    if (!shown) return;
    cursor.hidden = true;
    const { row, column } = pixelUnder(event);
    onChoose(row, column);
  });
  frame.addEventListener("blur", () => { cursor.hidden = true; onLeave(); });
  frame.addEventListener("keydown", (event) => {
    if (!shown || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    at ??= { row: Math.floor(size.height / 2), column: Math.floor(size.width / 2) };
    if (step) {
      const far = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(size.height, size.width) / 50));
      at = {
        row: Math.min(Math.max(at.row + far * step[0], 0), size.height - 1),
        column: Math.min(Math.max(at.column + far * step[1], 0), size.width - 1),
      };
      place(cursor, at.row, at.column);
      onPoint(at.row, at.column, true);
    } else if (event.key === "Enter" || event.key === " ") {
      onChoose(at.row, at.column);
    } else if (event.key === "Escape") {
      onBack();
    } else {
      return;
    }
    event.preventDefault(); // the page must not scroll under the cursor
  });
}
