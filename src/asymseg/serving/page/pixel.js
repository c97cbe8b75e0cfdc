// What the server knows of one pixel: its probabilities, and where it looked.

import { blockName, strongest } from "./attention.js";
import { percentOf } from "./legend.js";

const root = document.getElementById("pixel");
const MOST = 5;


function make(kind, given = {}, ...children) {
  const made = Object.assign(document.createElement(kind), given);
  made.append(...children);
  return made;
}

function head(said, row, column, onClose) {
  const close = make("button", { type: "button", className: "quiet icon", textContent: "×", onclick: onClose });
  close.setAttribute("aria-label", "Back to the classes");
  const swatch = make("i", { className: "swatch" });
  swatch.style.background = said.colour;
  const name = make("h2", { id: "pixel-name" }, swatch, said.name);
  return make("div", { className: "head" }, name, make("span", { className: "aside", textContent: `row ${row}, column ${column}` }), close);
}

/** Shows a pixel of which only the class is known yet. */
export function showWaiting(said, row, column, onClose) {
  root.hidden = false;
  root.replaceChildren(head(said, row, column, onClose), make("p", { className: "aside wait", textContent: "Asking the network …" }));
}

/** Shows a pixel in full. `onBlocks(chosen)` is told which blocks to draw, at once and when the user chooses others. */
export function showAnswer(said, answer, classes, size, onBlocks, onClose) {
  const colours = new Map(classes.map(({ id, colour }) => [id, colour]));
  const best = answer.probabilities.slice(0, MOST);
  const rest = answer.probabilities.slice(MOST);
  const bars = make("ol", { className: "bars" }, ...best.map((each) => bar(each.name, each.probability, colours.get(each.id))));
  if (rest.length) bars.append(bar(`${rest.length} other${rest.length > 1 ? "s" : ""}`, rest.reduce((sum, each) => sum + each.probability, 0), "var(--bar)"));
  root.hidden = false;
  root.replaceChildren(head(said, answer.row, answer.column, onClose), bars);
  if (answer.attention?.length) root.append(...regions(answer.attention, size, onBlocks));
  else root.append(make("p", { className: "aside", textContent: "This model cannot tell where it looked." }));
}

function bar(name, probability, colour) {
  const track = make("i");
  track.style.width = `${100 * probability}%`;
  track.style.background = colour;
  return make("li", {}, make("span", { className: "name", textContent: name }), make("span", { className: "share", textContent: percentOf(probability) }), make("span", { className: "track" }, track));
}

function regions(blocks, size, onBlocks) {
  const says = make("p", { className: "aside" });
  const tell = (chosen) => {
    says.textContent = chosen.map((block) => where(block, size)).join(" ");
    onBlocks(chosen);
  };
  const choices = blocks.length > 1 ? [["Both", blocks], ...blocks.map((block) => [blockName(block), [block]])] : [];
  const group = make("div", { className: "choice", role: "group" });
  group.setAttribute("aria-label", "Block");
  for (const [name, chosen] of choices) {
    const button = make("button", { type: "button", textContent: name });
    button.setAttribute("aria-pressed", String(chosen === blocks));
    button.onclick = () => {
      for (const each of group.children) each.setAttribute("aria-pressed", String(each === button));
      tell(chosen);
    };
    group.append(button);
  }
  tell(blocks);
  const title = make("h3", { textContent: "Where it looked" });
  const scale = make("div", { className: "scale" }, make("span", { textContent: "least" }), make("i"), make("span", { textContent: "most" }));
  scale.setAttribute("aria-hidden", "true");
  return choices.length ? [title, group, scale, says] : [title, scale, says];
}

/** A block's strongest region in words, for those who do not see the picture too. */
function where(block, { width, height }) {
  const region = strongest(block, height, width);
  if (!region) return `${blockName(block)} block: the picture as a whole.`;
  const [down, across] = [(region.top + region.bottom) / 2 / height, (region.left + region.right) / 2 / width];
  const row = down < 1 / 3 ? "top" : down > 2 / 3 ? "bottom" : "middle";
  const column = across < 1 / 3 ? "left" : across > 2 / 3 ? "right" : "centre";
  const place = row === "middle" && column === "centre" ? "in the middle" : `at the ${row} ${column}`;
  return `${blockName(block)} block: ${percentOf(region.weight)} of its weight on one region ${place}.`;
}

export function hide() {
  root.hidden = true;
  root.replaceChildren();
}
