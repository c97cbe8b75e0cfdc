// The classes of a picture: names, areas, and which of them are to be seen.

const root = document.getElementById("legend");
const [strip, list, absent] = [root.querySelector(".strip"), root.querySelector("ul"), document.getElementById("absent")];
const all = document.getElementById("all");
const whole = new Intl.NumberFormat("en");

/** A share in words: one digit after the point, and never 0 for what is there. */
export function percentOf(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

/** Fills the legend, largest area first. `onChange(hidden, lit)`: ids that are hidden, and the id under the pointer or null. */
export function showLegend(classes, onChange) {
  const found = classes.filter(({ pixels }) => pixels > 0).sort((a, b) => b.pixels - a.pixels);
  const hidden = new Set();
  strip.replaceChildren(...found.map(segment));
  list.replaceChildren(...found.map((each) => row(each, (visible) => {
    if (visible) hidden.delete(each.id);
    else hidden.add(each.id);
    refresh(null);
  }, (lit) => onChange(hidden, lit))));
  const missing = classes.filter(({ pixels }) => pixels === 0).map(({ name }) => name);
  absent.textContent = missing.length ? `Not in this picture: ${missing.join(", ")}.` : "";
  all.onclick = () => {
    const hide = hidden.size === 0;
    for (const { id } of found) hide ? hidden.add(id) : hidden.delete(id);
    for (const box of list.querySelectorAll("input")) box.checked = !hide;
    refresh(null);
  };
  const refresh = (lit) => {
    all.textContent = hidden.size ? "Show all" : "Hide all";
    for (const part of strip.children) part.classList.toggle("off", hidden.has(Number(part.dataset.id)));
    onChange(hidden, lit);
  };
  refresh(null);
}

function segment({ id, colour, pixels }) {
  const part = document.createElement("i");
  part.dataset.id = id;
  part.style.flexGrow = pixels;
  part.style.background = colour;
  return part;
}

function row({ id, name, colour, pixels, share }, onVisible, onLit) {
  const item = document.createElement("li");
  const label = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
  box.style.setProperty("--class", colour);
  box.setAttribute("aria-label", `${name}, ${percentOf(share)}, ${whole.format(pixels)} pixels; show`);
  box.addEventListener("change", () => onVisible(box.checked));
  label.append(box, text("name", name), text("share", percentOf(share)), text("count", whole.format(pixels)));
  label.querySelector(".count").title = "pixels";
  item.dataset.id = id;
  item.append(label);
  item.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch" && box.checked) onLit(id); });
  item.addEventListener("pointerleave", () => onLit(null));
  return item;
}

function text(kind, content) {
  return Object.assign(document.createElement("span"), { className: kind, textContent: content });
}

/** Marks the row of the class under the pointer. */
export function point(id) {
  for (const item of list.children) item.classList.toggle("here", Number(item.dataset.id) === id);
}
