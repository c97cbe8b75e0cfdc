// The page before there is a picture: a grid as fine as the network's own, whose cells light where the pointer goes.

const field = document.getElementById("field");
const CELLS = 8;
let lit = null;

for (let number = 0; number < CELLS * CELLS; number += 1) field.append(document.createElement("i"));

function light({ clientX, clientY }) {
  const box = field.getBoundingClientRect();
  const [row, column] = [(clientY - box.top) / box.height, (clientX - box.left) / box.width].map((share) => Math.floor(CELLS * share));
  const inside = row >= 0 && row < CELLS && column >= 0 && column < CELLS;
  const next = inside ? field.children[row * CELLS + column] : null;
  if (next === lit) return;
  lit?.classList.remove("lit"); // and it fades
  next?.classList.add("lit");
  lit = next;
}

// Both: while something is dragged over the page, no pointer is told of.
addEventListener("pointermove", light);
addEventListener("dragover", light);
