// Errors, told kindly: what is the matter, and what helps.

import { Refusal } from "./api.js";

const root = document.getElementById("notice");

const TITLES = {
  0: "The server does not answer",
  400: "That does not seem to be a picture",
  401: "This server asks for a key",
  404: "The server no longer has that",
  413: "That is more than this server takes",
  503: "The server has its hands full",
  504: "That took too long",
};

/** Title and cure for an error with the picture of that name, and which ways out make sense: again, smaller. */
export function explain(error, name) {
  if (!(error instanceof Refusal)) return { title: "This page has stumbled", cure: `${error.message}. Reload it, and if that does not help please report this.` };
  const title = TITLES[error.status] ?? (error.status >= 500 ? "Something broke on the server" : "The server did not accept that");
  if (error.status === 400 && name) return { title, cure: `“${name}” is none that can be read, or it is damaged. JPEG, PNG, WebP, BMP and TIFF can be, and arrays in .npy files.` };
  const smaller = error.status === 413 || error.status === 504 || error.code === "cannot";
  return { title, cure: error.message, smaller, again: !smaller && (error.status === 0 || error.status === 401 || error.status >= 500) };
}

/** Shows it. `onAgain` and `onSmaller` are offered where they make sense. */
export function showNotice({ title, cure, again, smaller }, onAgain, onSmaller) {
  const close = Object.assign(document.createElement("button"), { type: "button", className: "quiet icon", textContent: "×", onclick: hideNotice });
  close.setAttribute("aria-label", "Close");
  root.replaceChildren(
    Object.assign(document.createElement("h2"), { textContent: title }),
    Object.assign(document.createElement("p"), { textContent: sentence(cure) }),
    close,
  );
  const offer = (words, way) => {
    const onclick = () => { hideNotice(); way(); };
    root.append(Object.assign(document.createElement("button"), { type: "button", textContent: words, onclick }));
  };
  if (again && onAgain) offer("Try again", onAgain);
  if (smaller && onSmaller) offer("Look at a smaller copy", onSmaller);
  root.hidden = false;
}

export function hideNotice() {
  root.hidden = true;
  root.replaceChildren();
}

const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1);
